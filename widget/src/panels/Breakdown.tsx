/** The drill-down: what each part of the fleet costs, in a list of any length, down by click or Enter. */

import { useVirtualizer, defaultRangeExtractor, type Range } from "@tanstack/react-virtual";
import { type KeyboardEvent, memo, type ReactNode, useCallback, useEffect, useMemo, useRef, useState } from "react";

import { type Entities, type Level, type Metrics, type Slice } from "../answers";
import type { Actions, PanelProps } from "../contract";
import { change, count, money, NONE, percent, rate, share, short } from "../format";
import { rowReached } from "./keys";
import { Clipped, Empty, Panel } from "./Panel";
import { type Amounts, type Column, costChange, dearest, errorRate, isNew, type Order, shown } from "./rows";

const ROW = 36;
const PAGE = 16;
/** How many rows before the end of those loaded the next page is asked for. */
const AHEAD = 40;
const LEVELS: readonly { value: Level; text: string }[] = [
  { value: "org", text: "Organisations" }, { value: "project", text: "Projects" }, { value: "team", text: "Teams" },
  { value: "agent", text: "Agents" }, { value: "provider", text: "Providers" }, { value: "model", text: "Models" },
];
const COLUMNS: readonly { by: Column; text: string; title?: string }[] = [
  { by: "name", text: "Name" }, { by: "cost", text: "Cost" },
  { by: "change", text: "Change", title: "Change of cost against the period before" },
  { by: "calls", text: "Calls" }, { by: "errors", text: "Errors" }, { by: "tokens", text: "Tokens" },
  { by: "saved", text: "Saved", title: "Saved tokens" },
];

export function Breakdown({ view, board, act }: PanelProps) {
  const { entities, metrics, failed } = board;
  return (
    <Panel
      name="entities"
      title="Breakdown"
      note={entities && `${count(entities.total)} ${plural(entities.level, entities.total)}`}
      failed={failed.entities}
      ready={entities !== undefined}
      aside={(
        <>
          <label className="field">
            <span className="visually-hidden">List</span>
            <select value={view.level} onChange={(event) => act.change({ level: event.target.value as Level })}>
              {LEVELS.map((one) => <option key={one.value} value={one.value}>{one.text}</option>)}
            </select>
          </label>
          <Search value={view.search} level={view.level} change={act.change} />
        </>
      )}
    >
      {entities && (
        <Table
          entities={entities}
          metrics={metrics}
          place={JSON.stringify(view.place)}
          search={view.search}
          drillable={entities.level !== "provider" && view.place[entities.level] === undefined}
          drill={act.drill}
          more={act.more}
        />
      )}
    </Panel>
  );
}

/** What is typed is shown at once; the frame decides when to ask. */
function Search({ value, level, change: tell }: { value: string; level: Level; change: Actions["change"] }) {
  const [typed, setTyped] = useState(value);
  const sent = useRef(value);
  useEffect(() => {
    // A view from elsewhere (Back, a shared link, a step down) replaces what is typed; the echo of one's own typing does not.
    if (value !== sent.current) setTyped(value);
    sent.current = value;
  }, [value]);
  return (
    <input
      type="search"
      className="search"
      aria-label={`Search ${plural(level, 2)} by name`}
      placeholder="Search names"
      maxLength={200}
      value={typed}
      onChange={(event) => {
        setTyped(event.target.value);
        sent.current = event.target.value;
        tell({ search: event.target.value }, "replace");
      }}
    />
  );
}

const Table = memo(function Table({ entities, metrics, place, search, drillable, drill, more }: {
  entities: Entities;
  metrics?: Metrics;
  /** Another place begins at the top of its list. */
  place: string;
  search: string;
  drillable: boolean;
  drill: Actions["drill"];
  more: Actions["more"];
}) {
  const [order, setOrder] = useState<Order>({ by: "cost", rising: false });
  const { rows, unattributed, total, moved, rest } = useMemo(() => shown(entities, metrics, order), [entities, metrics, order]);
  const [active, setActive] = useState(0);
  const toFocus = useRef(false);
  /** A key led down from a row, which is gone once the list below is there: the focus goes along. */
  const ledDown = useRef(false);
  const scroller = useRef<HTMLDivElement>(null);
  const list: Slice[] = useMemo(() => (unattributed ? [...rows, unattributed] : rows), [rows, unattributed]);
  const most = useMemo(() => dearest(list), [list]);
  const at = Math.min(active, Math.max(list.length - 1, 0));
  const virtual = useVirtualizer({
    count: list.length,
    getScrollElement: () => scroller.current,
    estimateSize: () => ROW,
    overscan: 8,
    // The row that Tab leads to is always there, even when it was scrolled away from.
    rangeExtractor: useCallback((range: Range) => {
      const seen = defaultRangeExtractor(range);
      return seen.includes(at) ? seen : [...seen, at].sort((a, b) => a - b);
    }, [at]),
  });
  const items = virtual.getVirtualItems();
  const lastSeen = items.at(-1)?.index ?? 0;
  useEffect(() => {
    if (entities.has_more && lastSeen >= rows.length - AHEAD) more();
  }, [entities, lastSeen, rows.length, more]);
  useEffect(() => {
    setActive(0);
    scroller.current?.scrollTo({ top: 0 });
  }, [entities.level, place]);
  useEffect(() => {
    if (ledDown.current) toFocus.current = true;
    ledDown.current = false;
  }, [entities]);
  useEffect(() => {
    if (!toFocus.current) return;
    toFocus.current = false;
    scroller.current?.querySelector<HTMLElement>(`[data-index="${at}"]`)?.focus({ preventScroll: true });
  });

  if (list.length === 0) {
    return (
      <Empty title={search ? `Nothing is called like “${search}”.` : "No usage in these days."}>
        {search
          ? "Search for a shorter part of the name, or clear the search."
          : "Choose other days or a longer timeframe, or go up again."}
      </Empty>
    );
  }
  const onKeyDown = (event: KeyboardEvent<HTMLDivElement>) => {
    const next = rowReached(event.key, at, list.length, PAGE);
    if (next !== null) {
      event.preventDefault();
      toFocus.current = true;
      setActive(next);
      virtual.scrollToIndex(next);
    } else if ((event.key === "Enter" || event.key === " ") && drillable) {
      event.preventDefault();
      const row = list[at];
      if (!row) return;
      ledDown.current = true;
      drill(entities.level, row.name);
    }
  };
  const extra = rest ? 1 : 0;
  return (
    <div
      className="grid"
      role="grid"
      aria-label={`${plural(entities.level, 2)} by ${order.by}`}
      aria-rowcount={entities.has_more ? entities.total + 2 : list.length + 2 + extra}
      aria-colcount={COLUMNS.length}
      aria-readonly="true"
    >
      <div role="rowgroup" className="grid-edge">
        <div className="grid-row grid-head" role="row" aria-rowindex={1}>
          {COLUMNS.map((column) => (
            <Heading key={column.by} column={column} order={order} sort={setOrder} />
          ))}
        </div>
      </div>
      <div
        ref={scroller}
        className="grid-body"
        role="rowgroup"
        onKeyDown={onKeyDown}
        style={{ height: Math.min(list.length, PAGE) * ROW }}
      >
        <div role="presentation" style={{ height: virtual.getTotalSize(), position: "relative" }}>
          {items.map((item) => {
            const row = list[item.index];
            return row && (
              <Row
                key={row.name}
                index={item.index}
                top={item.start}
                row={row}
                apart={row === unattributed}
                part={share(row.cost, total.cost)}
                width={share(row.cost, most)}
                reachable={item.index === at}
                open={drillable ? drill : undefined}
                level={entities.level}
                focus={setActive}
              />
            );
          })}
        </div>
      </div>
      <div role="rowgroup" className="grid-edge grid-foot">
        {rest && <Sum name={restName(entities, search)} amounts={rest} index={list.length + 2} moved={null} soft />}
        <Sum name="Total" amounts={total} moved={moved} index={list.length + 2 + extra} />
      </div>
      {entities.has_more && order.by !== "cost" && (
        <p className="told muted" role="presentation">Sorted among the {count(list.length)} dearest, which are loaded.</p>
      )}
    </div>
  );
});

const Row = memo(function Row({ index, top, row, apart, part, width, reachable, open, level, focus }: {
  index: number;
  top: number;
  row: Slice;
  apart: boolean;
  /** Of all. */
  part: number;
  /** Of the dearest row: shares of ten thousand agents would all be too small to see. */
  width: number;
  reachable: boolean;
  open?: Actions["drill"];
  level: Level;
  focus: (index: number) => void;
}) {
  return (
    <div
      className={`grid-row${open ? " opens" : ""}${apart ? " apart" : ""}`}
      role="row"
      aria-rowindex={index + 2}
      data-index={index}
      tabIndex={reachable ? 0 : -1}
      style={{ transform: `translateY(${top}px)` }}
      onFocus={() => focus(index)}
      onClick={open && (() => open(level, row.name))}
    >
      <Cell by="name">
        <Clipped text={row.name} />
        <span className="share-bar" aria-hidden="true"><span style={{ width: `${Math.max(width, 0) * 100}%` }} /></span>
      </Cell>
      <Numbers amounts={row} moved={costChange(row)} fresh={isNew(row)} part={part} />
    </div>
  );
});

function Sum({ name, amounts, moved, index, soft = false }: {
  name: string; amounts: Amounts; moved: number | null; index: number; soft?: boolean;
}) {
  return (
    <div className={`grid-row ${soft ? "grid-rest" : "grid-total"}`} role="row" aria-rowindex={index}>
      <Cell by="name"><Clipped text={name} /></Cell>
      <Numbers amounts={amounts} moved={moved} />
    </div>
  );
}

function Numbers({ amounts, moved, fresh = false, part }: {
  amounts: Amounts; moved: number | null; fresh?: boolean; part?: number;
}) {
  const failing = errorRate(amounts);
  return (
    <>
      <Cell by="cost" title={part === undefined ? undefined : `${money(amounts.cost)}, ${percent(part)} of all`}>{rate(amounts.cost)}</Cell>
      <Cell by="change">{moved !== null ? change(moved) : <span className="muted">{fresh ? "new" : NONE}</span>}</Cell>
      <Cell by="calls">{count(amounts.calls)}</Cell>
      <Cell by="errors" title={count(amounts.errors)}>
        {failing >= 0.1 ? <strong className="high">{percent(failing)}</strong> : percent(failing)}
      </Cell>
      <Cell by="tokens" title={count(amounts.tokens)}>{short(amounts.tokens)}</Cell>
      <Cell by="saved" title={count(amounts.saved_tokens)}>{short(amounts.saved_tokens)}</Cell>
    </>
  );
}

function Cell({ by, title, children }: { by: Column; title?: string; children: ReactNode }) {
  return <div role={by === "name" ? "rowheader" : "gridcell"} className={`cell cell-${by}`} title={title}>{children}</div>;
}

function Heading({ column, order, sort }: {
  column: (typeof COLUMNS)[number];
  order: Order;
  sort: (order: Order) => void;
}) {
  const on = order.by === column.by;
  return (
    <div
      role="columnheader"
      className={`cell cell-${column.by}`}
      aria-sort={on ? (order.rising ? "ascending" : "descending") : "none"}
    >
      <button
        type="button"
        title={column.title}
        onClick={() => sort({ by: column.by, rising: on ? !order.rising : column.by === "name" })}
      >
        {column.text}<span className="sort" aria-hidden="true">{on ? (order.rising ? "↑" : "↓") : ""}</span>
      </button>
    </div>
  );
}

function restName({ total, entities, has_more: more }: Entities, search: string): string {
  if (search) return "Not matching the search";
  return more ? `${count(total - entities.length)} more, not loaded yet` : "Everything else";
}

function plural(level: Level, number: number): string {
  const many = (LEVELS.find((one) => one.value === level)?.text ?? level).toLowerCase();
  return number === 1 ? many.slice(0, -1) : many;
}

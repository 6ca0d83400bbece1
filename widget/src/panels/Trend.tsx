/** One metric over time: the line, the band of the ordinary, the anomalies. By mouse, by keyboard, and as a table. */

import { memo, type KeyboardEvent, useCallback, useEffect, useMemo, useRef, useState } from "react";
import type uPlot from "uplot";

import type { Grain, Metric, Trends } from "../answers";
import { columns, type Columns, type Mark, marks as marksOf, nextOf, span } from "../charts/series";
import { SEVERITIES, Shape } from "../charts/shapes";
import { trendOptions } from "../charts/trendOptions";
import { UPlot } from "../charts/UPlot";
import type { Actions, PanelProps } from "../contract";
import { count, counted, days, exact, measured, NONE, shortDay, when } from "../format";
import { pointReached } from "./keys";
import { Empty, Panel, Switch } from "./Panel";

const METRICS: readonly { value: Metric; text: string }[] = [
  { value: "cost", text: "Cost" }, { value: "tokens", text: "Tokens" }, { value: "calls", text: "Calls" },
  { value: "errors", text: "Errors" }, { value: "latency", text: "Latency" },
];
const GRAINS: readonly { value: Grain; text: string }[] = [{ value: "hour", text: "Hours" }, { value: "day", text: "Days" }];

export function Trend({ view, board, act, theme }: PanelProps) {
  const { trends, failed } = board;
  const single = view.place.agent !== undefined;
  const choices = METRICS.map((one) => (
    one.value === "latency" && !single ? { ...one, unless: "Choose one agent: percentiles of several cannot be added." } : one));
  return (
    <Panel
      name="trend"
      title="Trend"
      failed={failed.trends}
      ready={trends !== undefined}
      aside={(
        <>
          <Switch label="Metric" choices={choices} value={view.metric} onChoose={(metric) => act.change({ metric })} />
          <Switch label="Steps" choices={GRAINS} value={view.grain} onChoose={(grain) => act.change({ grain })} />
        </>
      )}
    >
      {trends && <Course trends={trends} open={view.anomaly} theme={theme} explain={act.explain} />}
    </Panel>
  );
}

/** What is under the cursor. */
interface Cursor {
  index: number;
  left: number;
}

const Course = memo(function Course({ trends, open, theme, explain }: {
  trends: Trends;
  open?: string;
  theme: "dark" | "light";
  explain: Actions["explain"];
}) {
  const drawn = useMemo(() => columns(trends), [trends]);
  const marks = useMemo(() => marksOf(trends.anomalies, drawn), [trends, drawn]);
  const [cursor, setCursor] = useState<Cursor | null>(null);
  const [tabled, setTabled] = useState(false);
  const [even, setEven] = useState(true);
  const plot = useRef<uPlot | null>(null);
  const newest = useRef({ trends, marks, open, explain });
  newest.current = { trends, marks, open, explain };
  const last = useRef<string>(undefined);
  const zone = trends.granularity === "day" ? "UTC" : trends.time_zone;

  const choose = useCallback((mark: Mark) => {
    last.current = nextOf(mark.ids, last.current);
    newest.current.explain(last.current ?? null);
  }, []);
  const options = useMemo(
    () => trendOptions({
      metric: trends.metric, grain: trends.granularity, zone, theme, even,
      span: () => span(newest.current.trends), marks: () => newest.current.marks, open: () => newest.current.open,
      choose, moved: setCursor,
    }),
    [trends.metric, trends.granularity, zone, theme, even, choose],
  );
  const data = useMemo<uPlot.AlignedData>(
    () => [drawn.times, drawn.upper, drawn.lower, drawn.expected, drawn.settled, drawn.provisional],
    [drawn],
  );
  const hold = useCallback((made: uPlot | null) => { plot.current = made; }, []);
  useEffect(() => plot.current?.redraw(false), [open, marks]);

  if (drawn.times.length === 0) {
    return <Empty title="No values in these days.">Choose other days, a longer timeframe or another metric, or remove a filter.</Empty>;
  }
  const at = cursor && Math.min(cursor.index, drawn.times.length - 1);
  const here = at === null ? undefined : marks.find((mark) => mark.index === at);
  const onKeyDown = (event: KeyboardEvent) => {
    if (event.key === "Enter" || event.key === " ") {
      if (here) choose(here);
      event.preventDefault();
      return;
    }
    const next = pointReached(event.key, at ?? drawn.times.length, drawn, marks);
    if (next === null) return;
    event.preventDefault();
    const time = drawn.times[next] ?? 0;
    plot.current?.setCursor({ left: plot.current.valToPos(time, "x"), top: 10 });
  };

  return (
    <>
      <div
        className="chart"
        role="application"
        aria-roledescription="line chart"
        aria-label={summary(trends, drawn)}
        aria-describedby="trend-keys"
        tabIndex={0}
        onKeyDown={onKeyDown}
        onBlur={() => plot.current?.setCursor({ left: -10, top: -10 })}
      >
        <UPlot options={options} data={data} onPlot={hold} />
        {cursor && at !== null && <Tooltip trends={trends} drawn={drawn} index={at} mark={here} left={cursor.left} zone={zone} />}
      </div>
      <p id="trend-keys" className="visually-hidden">
        Arrow keys move along the points, Page Up and Page Down from anomaly to anomaly, Enter explains the one reached.
      </p>
      <p className="visually-hidden" role="status">{at === null ? "" : spoken(trends, drawn, at, here, zone)}</p>
      <footer className="chart-foot">
        <Legend trends={trends} drawn={drawn} />
        <span className="chart-tools">
          <button type="button" className="link" aria-pressed={!even} onClick={() => setEven(!even)}>Log scale</button>
          <button type="button" className="link" aria-expanded={tabled} onClick={() => setTabled(!tabled)}>
            {tabled ? "Hide the table" : "Show as table"}
          </button>
        </span>
      </footer>
      {tabled && <PointsTable trends={trends} drawn={drawn} marks={marks} zone={zone} />}
    </>
  );
});

function Tooltip({ trends, drawn, index, mark, left, zone }: {
  trends: Trends; drawn: Columns; index: number; mark?: Mark; left: number; zone: string;
}) {
  const value = valueAt(drawn, index);
  const range = usual(trends, drawn, index);
  const right = left > 0.6;
  return (
    <div className="tooltip" style={right ? { right: `${(1 - left) * 100}%` } : { left: `${left * 100}%` }} aria-hidden="true">
      <p className="muted">{moment(drawn, index, trends.granularity, zone)}{isOpen(drawn, index) && " · provisional"}</p>
      <p className="tooltip-value">{measured(trends.metric, value)}</p>
      {range !== null && <p className="muted">usual {range}</p>}
      {mark && (
        <p className="tooltip-mark">
          <Shape severity={mark.severity} />
          {told(mark)}, click to see why
        </p>
      )}
    </div>
  );
}

function Legend({ trends, drawn }: { trends: Trends; drawn: Columns }) {
  const banded = drawn.upper.some((value) => value !== null);
  const open = drawn.provisional.some((value) => value !== null);
  return (
    <ul className="chart-legend">
      <li><span className="swatch line" aria-hidden="true" />{METRICS.find((one) => one.value === trends.metric)?.text}</li>
      {banded && <li><span className="swatch band" aria-hidden="true" />Usual range, {trends.band}</li>}
      {open && <li><span className="swatch dashed" aria-hidden="true" />Provisional</li>}
      {SEVERITIES.map((severity) => {
        const found = trends.anomalies.filter((one) => one.severity === severity).length;
        return found > 0 && <li key={severity}><Shape severity={severity} />{found} {severity}</li>;
      })}
      {trends.marked !== undefined && trends.marked > trends.anomalies.length && (
        <li>The worst {count(trends.anomalies.length)} of {count(trends.marked)} are marked</li>
      )}
      {!banded && <li>{unbanded(trends.band)}</li>}
    </ul>
  );
}

/** Why there is no band. Where one is promised and not there, these points had too little before them. */
function unbanded(band: string): string {
  return band.startsWith("none: ") ? band.replace("none: ", "No usual range: ") : "No usual range: too little usage before";
}

function PointsTable({ trends, drawn, marks, zone }: { trends: Trends; drawn: Columns; marks: readonly Mark[]; zone: string }) {
  const at = new Map(marks.map((mark) => [mark.index, mark]));
  return (
    <div className="table-scroll" tabIndex={0} role="region" aria-label="The points as a table">
      <table className="plain-table">
        <thead>
          <tr>
            <th scope="col">Time ({zone})</th><th scope="col">Value</th><th scope="col">Usual</th><th scope="col">Anomaly</th>
          </tr>
        </thead>
        <tbody>
          {drawn.times.map((time, index) => {
            const mark = at.get(index);
            return (
              <tr key={time}>
                <th scope="row">
                  {moment(drawn, index, trends.granularity, zone)}{isOpen(drawn, index) && " (provisional)"}
                </th>
                <td>{measured(trends.metric, valueAt(drawn, index))}</td>
                <td>{usual(trends, drawn, index) ?? NONE}</td>
                <td>{mark && told(mark)}</td>
              </tr>
            );
          })}
        </tbody>
      </table>
    </div>
  );
}

function told({ ids, severity }: Mark): string {
  return ids.length === 1 ? `${severity} anomaly` : `${ids.length} anomalies, worst ${severity}`;
}

/** The usual range at a point; null where nothing was learnt. */
function usual({ metric }: Trends, { lower, upper }: Columns, index: number): string | null {
  const [from, to] = [lower[index], upper[index]];
  return from == null || to == null ? null : `${measured(metric, Math.max(from, 0))} – ${measured(metric, to)}`;
}

function valueAt({ settled, provisional }: Columns, index: number): number | null {
  return settled[index] ?? provisional[index] ?? null;
}

function isOpen({ settled, provisional }: Columns, index: number): boolean {
  return settled[index] == null && provisional[index] != null;
}

function moment({ times }: Columns, index: number, grain: Grain, zone: string): string {
  const at = (times[index] ?? 0) * 1000;
  return grain === "day" ? shortDay(at, "UTC") : when(at, zone);
}

function spoken(trends: Trends, drawn: Columns, index: number, mark: Mark | undefined, zone: string): string {
  const point = `${moment(drawn, index, trends.granularity, zone)}: ${measured(trends.metric, valueAt(drawn, index))}`;
  return mark ? `${point}, ${told(mark)}` : point;
}

function summary(trends: Trends, drawn: Columns): string {
  const values = drawn.times.map((_, index) => valueAt(drawn, index) ?? 0);
  const peak = values.indexOf(Math.max(...values));
  const at = drawn.times[peak];
  return `${trends.metric} by ${trends.granularity}, ${days(trends.first_day, trends.last_day)}: highest `
    + `${measured(trends.metric, values[peak])} at ${at === undefined ? "no time" : exact(new Date(at * 1000).toISOString())}, `
    + `${counted(trends.anomalies.length, "anomaly", "anomalies")}`;
}


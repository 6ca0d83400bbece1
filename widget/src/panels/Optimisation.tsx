/** What is saved, what work costs by the piece, and what the numbers suggest. */

import { memo } from "react";

import type { Metrics } from "../answers";
import type { Actions, PanelProps } from "../contract";
import { change, count, fromNano, money, nano, per, percent, rate, short } from "../format";
import { type Hint, hints, perMillion } from "./hints";
import { Clipped, Empty, Panel } from "./Panel";

export function Optimisation({ board, act }: PanelProps) {
  const { metrics, failed } = board;
  return (
    <Panel name="optimisation" title="Optimisation" failed={failed.metrics} ready={metrics !== undefined}>
      {metrics && <Findings metrics={metrics} drill={act.drill} />}
    </Panel>
  );
}

const Findings = memo(function Findings({ metrics, drill }: { metrics: Metrics; drill: Actions["drill"] }) {
  const { tokens, spending, trends } = metrics;
  if (metrics.calls === 0) {
    return <Empty title="Nothing to optimise yet.">Hints appear once there is usage in the chosen days.</Empty>;
  }
  const perCall = per(spending.current, metrics.calls);
  const million = perMillion(spending.current, tokens.consumed);
  const found = hints(metrics);
  return (
    <>
      <dl className="tiles">
        <Tile
          name="Saved tokens"
          value={short(tokens.saved)}
          title={count(tokens.saved)}
          note={`${percent(tokens.efficiency)} of all tokens`}
        />
        <Tile name="Input from cache" value={percent(tokens.cached_share)} note={`${short(tokens.cached)} tokens`} />
        <Tile
          name="Cost per call"
          value={rate(perCall)}
          note={pieceChange(perCall, per(trends.cost.previous, Number(trends.calls.previous)))}
        />
        <Tile
          name="Per million tokens"
          value={million === null ? "—" : money(fromNano(million))}
          note={pieceChange(million === null ? null : fromNano(million), previousMillion(metrics))}
        />
      </dl>
      {found.length > 0 ? (
        <ul className="hints" aria-label="What the numbers suggest">
          {found.map((hint) => <HintRow key={hint.id} hint={hint} open={(name) => drill(metrics.by, name)} />)}
        </ul>
      ) : <p className="told muted">Nothing stands out: no {metrics.by} is much dearer, fails often or uses its caches badly.</p>}
    </>
  );
});

function HintRow({ hint, open }: { hint: Hint; open: (name: string) => void }) {
  const { name } = hint;
  return (
    <li>
      <p className="hint-title">
        {name !== undefined && (
          <button type="button" className="link" title={name} onClick={() => open(name)}><Clipped text={name} /></button>
        )}
        <span>{hint.title}</span>
      </p>
      <p className="muted">{hint.detail}</p>
    </li>
  );
}

function Tile({ name, value, note, title }: { name: string; value: string; note: string; title?: string }) {
  return (
    <div>
      <dt>{name}</dt>
      <dd>
        <span className="tile-value" title={title}>{value}</span>
        <span className="muted">{note}</span>
      </dd>
    </div>
  );
}

function previousMillion({ trends }: Metrics): string | null {
  const before = perMillion(trends.cost.previous, Number(trends.tokens.previous));
  return before === null ? null : fromNano(before);
}

function pieceChange(now: string | null, before: string | null): string {
  if (now === null || before === null || nano(before) === 0n) return "no calls before";
  return `${change(Number(now) / Number(before) - 1)} vs. before`;
}

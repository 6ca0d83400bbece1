/** What the tokens were: fresh input, input from caches, output; and what was saved. The bar repeats the table. */

import { memo } from "react";

import type { Metrics } from "../answers";
import { type BarPart, StackedBar } from "../charts/StackedBar";
import type { PanelProps } from "../contract";
import { count, percent, short } from "../format";
import { Trend } from "./CostSummary";
import { Empty, Panel } from "./Panel";
import { BEFORE } from "./period";

export function TokenUsage({ board }: PanelProps) {
  const { metrics, failed } = board;
  return (
    <Panel name="tokens" title="Tokens" failed={failed.metrics} ready={metrics !== undefined}>
      {metrics && <Usage metrics={metrics} />}
    </Panel>
  );
}

/** Servers that know them tell these too. */
type Tokens = Metrics["tokens"] & { cache_written?: number | null; reasoning?: number | null };

const Usage = memo(function Usage({ metrics }: { metrics: Metrics }) {
  const { tokens, trends, timeframe } = metrics;
  if (tokens.consumed === 0) {
    return <Empty title="No tokens in these days.">Choose other days or a longer timeframe, or remove a filter.</Empty>;
  }
  const parts = tokenParts(tokens);
  return (
    <>
      <p className="figure" title={`${count(tokens.consumed)} tokens`}>{short(tokens.consumed)}</p>
      <p className="beside">
        <Trend of={trends.tokens} rising="neutral" />
        <span className="muted">{Number(trends.tokens.previous) === 0 ? "none" : short(Number(trends.tokens.previous))} in {BEFORE[timeframe]}</span>
      </p>
      <StackedBar parts={parts} />
      <table className="legend-table">
        <caption className="visually-hidden">Tokens by kind</caption>
        <thead className="visually-hidden"><tr><th>Kind</th><th>Tokens</th><th>Share</th></tr></thead>
        <tbody>
          {parts.map((part) => (
            <tr key={part.name}>
              <th scope="row"><span className={`key fill-${part.tone}`} aria-hidden="true" />{part.name}</th>
              <td title={count(part.value)}>{short(part.value)}</td>
              <td>{percent(part.value / tokens.consumed)}</td>
            </tr>
          ))}
          <tr className="apart">
            <th scope="row"><span className="key" aria-hidden="true" />Saved, on top</th>
            <td title={count(tokens.saved)}>{short(tokens.saved)}</td>
            <td>{percent(tokens.efficiency)}</td>
          </tr>
        </tbody>
      </table>
    </>
  );
});

/** Parts that add up to what was consumed: caches are part of the input, reasoning is part of the output. */
export function tokenParts(tokens: Tokens): BarPart[] {
  const [written, reasoning] = [tokens.cache_written ?? 0, tokens.reasoning ?? 0];
  const parts: BarPart[] = [
    { name: "Input", value: Math.max(tokens.input - tokens.cached - written, 0), tone: "input" },
    { name: "Input read from cache", value: tokens.cached, tone: "cached" },
    { name: "Input written to cache", value: written, tone: "written" },
    { name: reasoning > 0 ? "Output, answers" : "Output", value: Math.max(tokens.output - reasoning, 0), tone: "output" },
    { name: "Output, reasoning", value: reasoning, tone: "reasoning" },
  ];
  return parts.filter((part) => part.value > 0 || ["Input", "Input read from cache", "Output"].includes(part.name));
}

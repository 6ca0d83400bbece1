/** Why one anomaly is one: the values around it, what was expected, and what it is made of. */

import { memo, useMemo } from "react";

import type { AnomalyShown, Explained, Metric, Split } from "../answers";
import { BandLine } from "../charts/BandLine";
import { type BarPart, StackedBar } from "../charts/StackedBar";
import { stepsOf } from "../charts/steps";
import { Waterfall } from "../charts/Waterfall";
import { count, counted, measured, money, percent, shortDay } from "../format";

const METHODS: Record<string, string> = { zscore: "z-score", iqr: "interquartile range" };

export const Explanation = memo(function Explanation({ explained }: { explained: Explained }) {
  const { anomaly, lower, upper, context, around, method, split } = explained;
  const { metric } = anomaly;
  const made = contributions(anomaly, context);
  const range = lower !== null && upper !== null
    ? `${measured(metric, Math.max(lower, 0))} – ${measured(metric, upper)}` : "not enough history";
  return (
    <>
      {split && (
        <p className="cause">
          <strong>Likely cause: {split.cause}.</strong> {sentence(split.because)}
        </p>
      )}
      <div className="explanation">
        <div className="explained">
          <BandLine
            points={around}
            at={anomaly.timestamp}
            severity={anomaly.severity}
            label={`${metric} by ${anomaly.grain} around it: ${measured(metric, anomaly.observed)} where ${range} is usual`}
          />
          {split ? <Parts metric={metric} split={split} /> : made.length > 0 && <Made metric={metric} observed={anomaly.observed} parts={made} />}
        </div>
        <dl className="facts">
          <Fact name="Observed" value={measured(metric, anomaly.observed)} />
          <Fact name="Expected" value={measured(metric, anomaly.baseline)} />
          <Fact name="Usual range" value={range} />
          {anomaly.deviation !== null && <Fact name="Deviation" value={`${anomaly.deviation.toFixed(1).replace("-", "−")} σ`} />}
          {counts(context).map(([name, value]) => <Fact key={name} name={name} value={count(value)} />)}
          <Fact name="Method" value={METHODS[method] ?? method.replaceAll("_", " ")} />
        </dl>
      </div>
    </>
  );
});

function Parts({ metric, split }: { metric: Metric; split: Split }) {
  const steps = useMemo(() => stepsOf(metric, split), [metric, split]);
  if (split.terms.length === 0) return null;
  return (
    <div>
      <Waterfall steps={steps} caption={`${heading(metric)}, against the mean since ${shortDay(split.reference_start, "UTC")}`} />
      {split.unpriced_calls > 0 && (
        <p className="told muted">{counted(split.unpriced_calls, "call")} without a known price {split.unpriced_calls === 1 ? "is" : "are"} in no step.</p>
      )}
    </div>
  );
}

/** The mean latency is what is split; what was observed is a percentile. */
function heading(metric: Metric): string {
  return metric === "latency" ? "The mean latency, from expected to observed" : "From expected to observed";
}

/** Begun with a capital, ended with a stop. Pure. */
export function sentence(text: string): string {
  return `${text.charAt(0).toUpperCase()}${text.slice(1)}${/[.!?]$/.test(text) ? "" : "."}`;
}

function Made({ metric, observed, parts }: { metric: Metric; observed: number; parts: BarPart[] }) {
  return (
    <div>
      <table className="legend-table">
        <caption>What it is made of</caption>
        <thead className="visually-hidden"><tr><th>Part</th><th>Amount</th><th>Share</th></tr></thead>
        <tbody>
          {parts.map((part) => (
            <tr key={part.name}>
              <th scope="row"><span className={`key fill-${part.tone}`} aria-hidden="true" />{part.name}</th>
              <td>{metric === "cost" ? money(part.value.toFixed(9)) : count(part.value)}</td>
              <td>{percent(part.value / observed)}</td>
            </tr>
          ))}
        </tbody>
      </table>
      <StackedBar parts={parts} height={8} />
    </div>
  );
}

/** The parts of an anomalous cost or token count that its context names, and the rest; they add up to what was observed. */
export function contributions({ metric, observed }: AnomalyShown, context: Record<string, unknown>): BarPart[] {
  const [over, listed] = [number(context.overcharge_usd), number(context.list_cost_usd)];
  if (metric === "cost" && over !== null && over > 0) {
    return withRest(observed, [
      { name: "Charged above list price", value: over, tone: "bad" },
      { name: "The same calls at list price", value: listed ?? 0, tone: "output" },
    ]);
  }
  const call = record(context.call);
  if (!call) return [];
  const value = metric === "cost"
    ? number(call.reported_cost) ?? number(call.list_cost)
    : metric === "tokens" ? (number(call.input_tokens) ?? 0) + (number(call.output_tokens) ?? 0) : null;
  if (value === null || value <= 0) return [];
  return withRest(observed, [{ name: `One call to ${text(call.model) ?? "an unnamed model"}`, value, tone: "bad" }]);
}

function withRest(observed: number, parts: BarPart[]): BarPart[] {
  const rest = observed - parts.reduce((all, part) => all + part.value, 0);
  const worth = rest > observed * 1e-6;
  return worth ? [...parts, { name: "All other calls", value: rest, tone: "cached" }] : parts;
}

function counts(context: Record<string, unknown>): [string, number][] {
  const names = { Calls: "calls", Errors: "errors", "Mispriced calls": "mispriced_calls", "Points of history": "history_points" };
  return Object.entries(names).flatMap(([name, key]) => {
    const value = number(context[key]);
    return value === null ? [] : [[name, value] as [string, number]];
  });
}

function Fact({ name, value }: { name: string; value: string }) {
  return <div><dt>{name}</dt><dd>{value}</dd></div>;
}

/** Numbers, also where they came as exact text. */
function number(value: unknown): number | null {
  const found = typeof value === "string" && value !== "" ? Number(value) : value;
  return typeof found === "number" && Number.isFinite(found) ? found : null;
}

function text(value: unknown): string | null {
  return typeof value === "string" && value !== "" ? value : null;
}

function record(value: unknown): Record<string, unknown> | null {
  return typeof value === "object" && value !== null && !Array.isArray(value) ? (value as Record<string, unknown>) : null;
}

/** From a trend's answer to what is drawn: columns for the chart and one mark a moment. Pure; no canvas, no colours. */

import type { AnomalyMark, Grain, Severity, Trends } from "../answers";
import { SEVERITIES } from "./shapes";

/** Columns of equal length. Times in seconds; `settled` and `provisional` are the line in two parts that meet. */
export interface Columns {
  times: number[];
  settled: (number | null)[];
  provisional: (number | null)[];
  lower: (number | null)[];
  upper: (number | null)[];
  expected: (number | null)[];
}

/** The anomalies of one moment, the gravest first. */
export interface Mark {
  at: number;
  index: number;
  value: number;
  severity: Severity;
  ids: string[];
}

const STEP: Record<Grain, number> = { hour: 3600, day: 86_400 };
const LONGEST = 20_000;

/**
 * Sums (cost, tokens, calls) are zero at a moment of the days asked about that has no row: nothing was used then. A share of
 * errors or a latency has no value without calls, and the line goes from one that has it to the next.
 */
export function columns(answer: Trends): Columns {
  const step = STEP[answer.granularity];
  const found = new Map(answer.points.map((point) => [Date.parse(point.time) / 1000, point]));
  const known = [...found.keys()].sort((a, b) => a - b);
  const isSum = answer.metric !== "errors" && answer.metric !== "latency";
  const times = isSum && known.length > 0 ? filled(known, computed(answer), step) : known;
  const values = times.map((time) => found.get(time)?.value ?? 0);
  const open = new Set(answer.coverage.provisional_days);
  const isOpen = times.map((time) => open.has(new Date(time * 1000).toISOString().slice(0, 10)));
  const of = (name: "lower" | "upper" | "expected") => times.map((time) => found.get(time)?.[name] ?? null);
  return {
    times,
    settled: values.map((value, i) => (isOpen[i] ? null : value)),
    provisional: values.map((value, i) => (isOpen[i] || isOpen[i + 1] || isOpen[i - 1] ? value : null)),
    lower: of("lower"),
    upper: of("upper"),
    expected: of("expected"),
  };
}

/** The whole of the days asked about, so that the axis stays when the metric changes. In seconds; never empty. */
export function span(answer: Trends): [number, number] {
  const [from, to] = whole(answer);
  return from === to ? [from - 43_200, to + 43_200] : [from, to];
}

/** One mark a moment, at the line's height there, or at the anomaly's own where there is no line. In order of time. */
export function marks(anomalies: readonly AnomalyMark[], { times, settled, provisional }: Columns): Mark[] {
  const place = new Map(times.map((time, index) => [time, index]));
  const grouped = new Map<number, AnomalyMark[]>();
  for (const one of anomalies) {
    const at = Date.parse(one.time) / 1000;
    grouped.set(at, [...(grouped.get(at) ?? []), one]);
  }
  return [...grouped].sort(([a], [b]) => a - b).map(([at, together]) => {
    const gravest = together.toSorted((a, b) => SEVERITIES.indexOf(a.severity) - SEVERITIES.indexOf(b.severity));
    const index = place.get(at) ?? nearest(times, at);
    const line = place.has(at) ? settled[index] ?? provisional[index] : null;
    return {
      at,
      index,
      value: line ?? gravest[0]?.observed ?? 0,
      severity: gravest[0]?.severity ?? "info",
      ids: gravest.map((one) => one.id),
    };
  });
}

/** The place of the value closest to `wanted` in an ascending list; -1 in an empty one. */
export function nearest(ascending: readonly number[], wanted: number): number {
  let [low, high] = [0, ascending.length - 1];
  if (high < 0) return -1;
  while (high - low > 1) {
    const middle = (low + high) >> 1;
    if ((ascending[middle] ?? 0) <= wanted) low = middle;
    else high = middle;
  }
  return Math.abs((ascending[high] ?? 0) - wanted) < Math.abs((ascending[low] ?? 0) - wanted) ? high : low;
}

/** The next anomaly after the open one among those of a moment, round and round. */
export function nextOf(ids: readonly string[], open: string | undefined): string | undefined {
  return ids[(ids.indexOf(open ?? "") + 1) % ids.length];
}

/** The first and the last moment of the days asked about, in seconds. */
function whole({ first_day: first, last_day: last, granularity }: Trends): [number, number] {
  const [from, to] = [Date.parse(first) / 1000, Date.parse(last) / 1000];
  return [from, granularity === "hour" ? to + 23 * 3600 : to];
}

/** The same, without the hours after the newest event: what they hold is not known yet. */
function computed(answer: Trends): [number, number] {
  const [from, to] = whole(answer);
  const newest = answer.as_of === null ? to : Date.parse(answer.as_of) / 1000;
  return [from, Math.min(to, newest - (newest % STEP[answer.granularity]))];
}

function filled(known: readonly number[], [from, to]: [number, number], step: number): number[] {
  const first = Math.min(from, known[0] ?? from);
  const last = Math.max(to, known.at(-1) ?? to);
  if ((last - first) / step > LONGEST || !known.every((time) => (time - first) % step === 0)) return [...known];
  return Array.from({ length: Math.round((last - first) / step) + 1 }, (_, i) => first + i * step);
}

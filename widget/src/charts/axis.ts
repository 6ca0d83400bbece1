/** Labels of a value axis: short, for orientation only. Exact values are in tooltips and tables. */

import type { Metric } from "../answers";
import { duration, percent, short } from "../format";

export function axisValue(metric: Metric, value: number): string {
  if (metric === "errors") return percent(value);
  if (metric === "latency") return value === 0 ? "0" : duration(value);
  if (metric !== "cost") return short(value);
  if (value !== 0 && Math.abs(value) < 0.01) return `$${Number(value.toPrecision(2))}`;
  return `$${Math.abs(value) < 10 && !Number.isInteger(value) ? value.toFixed(2) : short(value)}`;
}

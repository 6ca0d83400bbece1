/** How the trend is drawn: scales, axes, band, line and marks on uPlot's canvas. Colours come from the theme's variables. */

import uPlot from "uplot";

import type { Grain, Metric } from "../answers";
import { clock, shortDay } from "../format";
import { axisValue } from "./axis";
import type { Mark } from "./series";
import { SHAPES } from "./shapes";

/** The first of the columns that are the line; those before it are its surroundings. */
const LINE = 4;
/** How near to a mark a click must be, in pixels. */
const REACH = 14;

/** Steps between dates; a label twice on one day would be no news. */
const DAYS = [1, 2, 4, 7, 14, 30, 61, 91, 183, 365].map((days) => days * 86_400);

/** Below this an uneven axis is linear. */
const SMALLEST: Record<Metric, number> = { cost: 0.01, tokens: 100, calls: 1, errors: 0.001, latency: 10 };

export interface TrendDrawing {
  metric: Metric;
  grain: Grain;
  zone: string;
  /** A change of theme makes new options, and so a new drawing. */
  theme: "dark" | "light";
  /** Even steps up the value axis; else each the tenfold of the one below, so that small values show beside a huge one. */
  even: boolean;
  /** The first and the last moment of the time axis, in seconds. */
  span: () => [number, number];
  marks: () => readonly Mark[];
  /** The anomaly that is open; its mark gets a ring. */
  open: () => string | undefined;
  choose: (mark: Mark) => void;
  /** The point under the cursor and how far right it is in the box, from 0 to 1; null when the cursor left. */
  moved: (to: { index: number; left: number } | null) => void;
}

type Options = Omit<uPlot.Options, "width" | "height">;

export function trendOptions(drawing: TrendDrawing): Options {
  const axis: uPlot.Axis = {
    stroke: drawn("--muted"), font: "11px system-ui, sans-serif", ticks: { show: false }, border: { show: false },
    grid: { stroke: drawn("--grid"), width: 1 },
  };
  const line: uPlot.Series = {
    stroke: drawn("--series-1"), width: 1.75, fill: faded, points: { size: 5, fill: drawn("--series-1"), filter: alone },
  };
  const hidden: uPlot.Series = { stroke: "transparent", width: 0, points: { show: false } };
  return {
    padding: [10, 24, 0, 0],
    legend: { show: false },
    tzDate: (seconds) => uPlot.tzDate(new Date(seconds * 1000), drawing.zone),
    cursor: { y: false, drag: { x: false, y: false }, points: { size: (_plot, series) => (series < LINE ? 0 : 8) } },
    scales: { x: { range: () => drawing.span() }, y: valueScale(drawing) },
    axes: [
      {
        ...axis, size: 34, gap: 10, space: 64, grid: { show: false }, ...(drawing.grain === "day" ? { incrs: DAYS } : {}),
        values: (_plot, ticks) => ticks.map((tick) => timeTick(tick, drawing)),
      },
      {
        ...axis, size: 56, gap: 8, space: 42, ...steps(drawing),
        values: (_plot, ticks) => ticks.map((tick) => axisValue(drawing.metric, tick)),
      },
    ],
    series: [
      {},
      hidden,
      hidden,
      { stroke: drawn("--faint"), width: 1, dash: [2, 3], points: { show: false } },
      line,
      { ...line, dash: [5, 4] },
    ],
    bands: [{ series: [1, 2], fill: drawn("--band") }],
    hooks: {
      setCursor: [(plot) => drawing.moved(cursorOf(plot))],
      ready: [(plot) => plot.over.addEventListener("click", () => {
        const found = markAt(plot, drawing.marks());
        if (found) drawing.choose(found);
      })],
      draw: [(plot) => drawMarks(plot, drawing)],
    },
  };
}

/** Under the line, from its colour to nothing at the foot: it gives the line weight and leaves the band readable. */
function faded(plot: uPlot): CanvasGradient {
  const { top, height } = plot.bbox;
  const shade = plot.ctx.createLinearGradient(0, top, 0, top + height);
  shade.addColorStop(0, palette()("--fill"));
  shade.addColorStop(1, palette()("--fill-none"));
  return shade;
}

/** From zero, on both: the uneven one is linear below what can be told apart, so that zero has a place. */
function valueScale({ even, metric }: TrendDrawing): uPlot.Scale {
  if (even) return { range: (plot, _low, high) => [0, ceiling(plot, high)] };
  return { distr: 4, asinh: SMALLEST[metric], range: (_plot, _low, high) => [0, high > 0 ? high * 2 : 1] };
}

/** Values without a neighbour: the line does not show them. */
function alone(plot: uPlot, series: number): number[] {
  const values = plot.data[series] ?? [];
  return Array.from(values, (_, i) => i).filter((i) => values[i] != null && values[i - 1] == null && values[i + 1] == null);
}

/** The ticks of an uneven axis: zero, and each power of ten from the smallest value worth telling apart. */
function steps({ even, metric }: TrendDrawing): uPlot.Axis {
  if (even) return {};
  return {
    filter: (_plot, ticks) => ticks,
    splits: (_plot, _axis, _low, high) => {
      // The smallest itself would crowd the zero.
      const first = Math.log10(SMALLEST[metric]) + 1;
      const count = Math.max(Math.floor(Math.log10(high) - first) + 1, 0);
      const tens = Array.from({ length: count }, (_, i) => 10 ** (first + i));
      return [0, ...(tens.length > 6 ? tens.filter((_, i) => (tens.length - i) % 2 === 1) : tens)];
    },
  };
}

/** A band much wider than the line ever is runs out at the top, so that the line keeps its shape. */
function ceiling(plot: uPlot, high: number): number {
  const line = plot.data.slice(LINE).flatMap((values) => Array.from(values ?? [], (value) => value ?? 0));
  const top = line.reduce((most, value) => Math.max(most, value), 0);
  const most = top > 0 ? Math.min(high, 2.5 * top) : high;
  return most > 0 ? most * 1.1 : 1;
}

function timeTick(seconds: number, { grain, zone }: TrendDrawing): string {
  const at = seconds * 1000;
  if (grain === "day") return shortDay(at, "UTC");
  const time = clock(at, zone);
  return time === "00:00" ? shortDay(at, zone) : time;
}

function cursorOf(plot: uPlot): { index: number; left: number } | null {
  const { idx, left } = plot.cursor;
  if (idx == null || left == null || left < 0) return null;
  return { index: idx, left: (plot.over.offsetLeft + left) / Math.max(plot.width, 1) };
}

function markAt(plot: uPlot, marks: readonly Mark[]): Mark | undefined {
  const [left, top] = [plot.cursor.left ?? -1, plot.cursor.top ?? -1];
  const away = (mark: Mark) => Math.hypot(plot.valToPos(mark.at, "x") - left, plot.valToPos(mark.value, "y") - top);
  const [closest] = marks.map((mark) => ({ mark, far: away(mark) })).sort((a, b) => a.far - b.far);
  if (closest && closest.far <= REACH) return closest.mark;
  // The tooltip offers the mark of the point it shows, wherever above or below it the click is.
  return marks.find((mark) => mark.index === plot.cursor.idx);
}

function drawMarks(plot: uPlot, drawing: TrendDrawing): void {
  const { ctx } = plot;
  const colour = palette();
  const open = drawing.open();
  const tone = { info: colour("--accent"), warning: colour("--warn-mark"), critical: colour("--bad-mark") };
  ctx.save();
  for (const mark of drawing.marks()) {
    ctx.setTransform(uPlot.pxRatio, 0, 0, uPlot.pxRatio, plot.valToPos(mark.at, "x", true), plot.valToPos(mark.value, "y", true));
    const shape = new Path2D(SHAPES[mark.severity]);
    ctx.lineWidth = 3;
    ctx.strokeStyle = colour("--surface");
    ctx.stroke(shape);
    ctx.lineWidth = 1.75;
    ctx.fillStyle = mark.severity === "info" ? colour("--surface") : tone[mark.severity];
    ctx.strokeStyle = tone[mark.severity];
    ctx.fill(shape);
    ctx.stroke(shape);
    if (open !== undefined && mark.ids.includes(open)) {
      ctx.strokeStyle = colour("--text");
      ctx.stroke(new Path2D("M0-10A10 10 0 1 1 0 10A10 10 0 1 1 0-10Z"));
    }
  }
  ctx.restore();
}

/** A colour of the theme as it is when something is drawn: the page may take on its theme after the plot was made. */
function drawn(name: string): () => string {
  return () => palette()(name);
}

function palette(): (name: string) => string {
  const style = getComputedStyle(document.documentElement);
  return (name) => style.getPropertyValue(name).trim();
}

/** A small line with its band of the ordinary and one point of interest: what was going on around an anomaly. */

import type { Moment, Point, Severity } from "../answers";
import { SHAPES } from "./shapes";

interface Sizes {
  width: number;
  height: number;
}

const SIZE: Sizes = { width: 560, height: 96 };
const PAD = 8;

export function BandLine({ points, at, severity, label }: {
  points: readonly Point[];
  at: Moment;
  severity: Severity;
  label: string;
}) {
  if (points.length < 2) return null;
  const { x, y } = scales(points, SIZE);
  const banded = points.filter((point) => point.lower !== null && point.upper !== null);
  const found = points.find((point) => Date.parse(point.time) === Date.parse(at));
  return (
    <svg className="band-line" viewBox={`0 0 ${SIZE.width} ${SIZE.height}`} role="img" aria-label={label}>
      {banded.length > 1 && (
        <polygon
          className="band"
          points={[
            ...banded.map((point) => `${x(point)},${y(point.upper ?? 0)}`),
            ...banded.toReversed().map((point) => `${x(point)},${y(point.lower ?? 0)}`),
          ].join(" ")}
        />
      )}
      <polyline className="line" points={points.map((point) => `${x(point)},${y(point.value)}`).join(" ")} />
      {found && (
        <g className={`shape ${severity}`} transform={`translate(${x(found)} ${y(found.value)})`}>
          <path d={SHAPES[severity]} />
        </g>
      )}
    </svg>
  );
}

/** Where points lie in a box; zero is always its floor. Pure. */
export function scales(points: readonly Point[], { width, height }: Sizes) {
  const times = points.map((point) => Date.parse(point.time));
  const [first, last] = [Math.min(...times), Math.max(...times)];
  const top = Math.max(...points.map((point) => Math.max(point.value, point.upper ?? 0)), Number.MIN_VALUE);
  const round = (value: number) => Math.round(value * 10) / 10;
  return {
    x: (point: Point) => round(PAD + ((Date.parse(point.time) - first) / (last - first || 1)) * (width - 2 * PAD)),
    y: (value: number) => round(height - PAD - (Math.max(value, 0) / top) * (height - 2 * PAD)),
  };
}

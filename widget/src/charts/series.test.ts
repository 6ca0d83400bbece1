import { describe, expect, test } from "vitest";

import type { AnomalyMark, Point, Trends } from "../answers";
import { columns, marks, nearest, nextOf, span } from "./series";

const point = (time: string, value: number, band: Partial<Point> = {}): Point => ({
  time, value, expected: null, lower: null, upper: null, ...band,
});

const trends = (points: Point[], more: Partial<Trends> = {}): Trends => ({
  time_zone: "UTC", as_of: null, first_day: "2026-04-01", last_day: "2026-04-30", versions: {},
  coverage: { calls: 1, unpriced_calls: 0, unpriced_bound: null, unattributed_cost: "0", provisional_days: [] },
  metric: "cost", granularity: "day", unit: "USD", anomalies: [], band: "none", points, ...more,
});

const mark = (id: string, time: string, severity: AnomalyMark["severity"]): AnomalyMark => ({ id, time, severity, observed: 7 });

describe("columns of a trend", () => {
  test("a day without usage is zero for a sum, also before the first one that has some and after the last", () => {
    const points = [point("2026-04-02T00:00:00Z", 1), point("2026-04-04T00:00:00Z", 3)];
    expect(columns(trends(points, { last_day: "2026-04-05" })).settled).toEqual([0, 1, 0, 3, 0]);
  });

  test("hours after the newest event are not zero but not there", () => {
    const told = { granularity: "hour", as_of: "2026-04-01T04:20:34Z", last_day: "2026-04-01" } as const;
    expect(columns(trends([point("2026-04-01T01:00:00Z", 2)], told)).settled).toEqual([0, 2, 0, 0, 0]);
  });

  test("a day without calls has no latency and no place on the line", () => {
    const points = [point("2026-04-01T00:00:00Z", 1), point("2026-04-03T00:00:00Z", 3)];
    expect(columns(trends(points, { metric: "latency" })).settled).toEqual([1, 3]);
  });

  test("provisional days leave the settled line and stay joined to it", () => {
    const told = trends(
      [1, 2, 3, 4].map((day) => point(`2026-04-0${day}T00:00:00Z`, day)), { last_day: "2026-04-04" },
    );
    told.coverage.provisional_days = ["2026-04-04"];
    const found = columns(told);
    expect(found.settled).toEqual([1, 2, 3, null]);
    expect(found.provisional).toEqual([null, null, 3, 4]);
  });

  test("points out of order are put in order, an empty trend has no columns", () => {
    const points = [point("2026-04-02T00:00:00Z", 2), point("2026-04-01T00:00:00Z", 1)];
    const found = columns(trends(points, { last_day: "2026-04-02" }));
    expect(found.settled).toEqual([1, 2]);
    expect(columns(trends([])).times).toEqual([]);
  });

  test("hours over a change of clocks stay hours, for they are UTC", () => {
    const found = columns(trends(
      [point("2026-03-29T00:00:00Z", 1), point("2026-03-29T03:00:00Z", 4)],
      { granularity: "hour", first_day: "2026-03-29", last_day: "2026-03-29" },
    ));
    expect(found.times).toHaveLength(24);
  });
});

test("the axis covers the days asked about, and a single day is not a single point", () => {
  const day = { first_day: "2026-04-01", last_day: "2026-04-01" };
  const long = (seconds: [number, number]) => (seconds[1] - seconds[0]) / 3600;
  expect(long(span(trends([])))).toBe(29 * 24);
  expect(long(span(trends([], day)))).toBe(24);
  expect(long(span(trends([], { ...day, granularity: "hour" })))).toBe(23);
});

describe("marks of anomalies", () => {
  const points = [point("2026-04-01T00:00:00Z", 1), point("2026-04-02T00:00:00Z", 5)];
  const drawn = columns(trends(points, { last_day: "2026-04-02" }));

  test("those of one moment are one mark with the gravest first", () => {
    const [only, ...more] = marks(
      [mark("a", "2026-04-02T00:00:00Z", "info"), mark("b", "2026-04-02T00:00:00Z", "critical")], drawn,
    );
    expect(more).toEqual([]);
    expect(only).toMatchObject({ severity: "critical", ids: ["b", "a"], value: 5, index: 1 });
  });

  test("a mark beside the line keeps its own height", () => {
    expect(marks([mark("a", "2026-04-09T00:00:00Z", "info")], drawn)).toMatchObject([{ value: 7, index: 1 }]);
  });

  test("choosing again goes on to the next of the same moment", () => {
    expect([nextOf(["a", "b"], undefined), nextOf(["a", "b"], "a"), nextOf(["a", "b"], "b")]).toEqual(["a", "b", "a"]);
  });
});

test.each([[[], 5, -1], [[1, 4, 9], 0, 0], [[1, 4, 9], 6, 1], [[1, 4, 9], 7, 2], [[1, 4, 9], 99, 2]])(
  "in %j the nearest to %d is at %d", (list, wanted, at) => expect(nearest(list as number[], wanted)).toBe(at),
);

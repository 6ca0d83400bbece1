import { expect, it } from "vitest";

import type { Metrics } from "./answers";
import { saidOnce, statusOf } from "./status";
import { viewOf } from "./state";
import type { Model } from "./widget";

const NOW = new Date("2026-03-06T12:00:00Z");

function model(change: Partial<Model>, asOf: string | null = "2026-03-06T11:00:00Z"): Model {
  const metrics = { as_of: asOf, last_day: "2026-03-06" } as Metrics;
  return {
    phase: "open", view: viewOf({}, 1), board: { metrics, failed: {} }, busy: new Set(), outdated: new Set(), growing: new Set(),
    refreshedAt: new Date("2026-03-06T11:59:50Z"), ...change,
  };
}

it("waits until everything came once", () => {
  expect(statusOf(model({ refreshedAt: undefined }), NOW).kind).toBe("waiting");
});

it("is fresh while the newest event is of these two days", () => {
  expect(statusOf(model({}), NOW).kind).toBe("fresh");
  expect(statusOf(model({}, "2026-03-04T12:00:00Z"), NOW).kind).toBe("fresh");
});

it("says where data end that are older", () => {
  expect(statusOf(model({}, "2026-03-01T09:00:00Z"), NOW)).toMatchObject({ kind: "old-data", text: "Data end 1 Mar 2026" });
});

it("goes by the last computed day where no event is known", () => {
  expect(statusOf(model({}, null), NOW).kind).toBe("fresh");
});

it("says since when nothing was refreshed, before it says how old the data are", () => {
  const late = model({ refreshedAt: new Date("2026-03-06T11:55:00Z") }, "2026-03-01T09:00:00Z");
  expect(statusOf(late, NOW)).toMatchObject({ kind: "not-refreshed", text: "Refreshed 5 min ago" });
});

it("says that a refresh failed before all else, each reason once", () => {
  const reasons = { metrics: "The lake is away.", trends: "The lake is away.", budgets: undefined };
  const failed = statusOf(model({ board: { failed: reasons } }), NOW);
  expect(failed.kind).toBe("failed");
  expect(failed.detail).toMatch(/^The lake is away\. Last refreshed/);
});

it("tells one reason for many parts once, and leaves it to those that have nothing to show", () => {
  const board = model({ board: { ...model({}).board, failed: { metrics: "Away.", trends: "Away." } } }).board;
  const once = saidOnce(board);
  expect(once.reason).toBe("Away.");
  expect(once.board.failed).toEqual({ trends: "Away." });
});

it("leaves a single part's reason, and different ones, where they are", () => {
  for (const failed of [{ metrics: "Away." }, { metrics: "Away.", trends: "Name one agent." }, {}]) {
    const board = { failed };
    expect(saidOnce(board)).toEqual({ reason: null, board });
  }
});

import { describe, expect, test } from "vitest";

import type { AnomalyShown, BudgetShown, Coverage, Entities, Entity, IncidentShown, Incidents, Metrics, Slice } from "../answers";
import type { Columns, Mark } from "../charts/series";
import { sum } from "../format";
import { counts, gravestFirst, overLimit } from "./Attention";
import { contributions } from "./Explanation";
import { hints, perMillion } from "./hints";
import { because, isWeb, together, unfinishedFirst } from "./Incidents";
import { pointReached, rowReached } from "./keys";
import { openQuestions, projection } from "./period";
import { byRisk } from "./risk";
import { costChange, dearest, isNew, ordered, shown } from "./rows";
import { tokenParts } from "./TokenUsage";

const coverage: Coverage = {
  calls: 100, unpriced_calls: 0, unpriced_bound: null, unattributed_cost: "0E-9", provisional_days: [],
};
const answer = {
  time_zone: "UTC" as const, as_of: null, first_day: "2026-04-01", last_day: "2026-04-07", coverage, versions: { mart_spend: 3 },
};

const slice = (name: string, cost: string, more: Partial<Slice> = {}): Slice => ({
  name, cost, calls: 10, errors: 0, tokens: 1000, saved_tokens: 0, ...more,
});
const entity = (name: string, cost: string, more: Partial<Entity> = {}): Entity => ({
  ...slice(name, cost), previous_cost: cost, ...more,
});
const entities = (rows: Entity[], more: Partial<Entities> = {}): Entities => ({
  ...answer, total: rows.length, has_more: false, next_cursor: null, level: "agent", entities: rows, ...more,
});
const metrics = (slices: Slice[], more: Partial<Metrics> = {}): Metrics => ({
  ...answer, timeframe: "week", by: "agent", calls: slices.reduce((all, one) => all + one.calls, 0), errors: 0, slices,
  spending: { current: sum(slices.map((one) => one.cost)), previous: "0", budget: null, percentage: null },
  tokens: {
    consumed: slices.reduce((all, one) => all + one.tokens, 0), input: 0, output: 0, cached: 0, saved: 0, efficiency: 0,
    cached_share: 0.5,
  },
  trends: Object.fromEntries(
    ["cost", "tokens", "calls", "errors"].map((name) => [name, { current: "0", previous: "0", change: 0.5 }]),
  ) as Metrics["trends"],
  ...more,
});
const dearestFirst = { by: "cost", rising: false } as const;

describe("the rows of the drill-down", () => {
  test("the total is the summary's, and nothing is left over when all rows are there", () => {
    const summary = metrics([slice("a", "2.1"), slice("b", "0.9")]);
    const told = shown(entities([entity("a", "2.1"), entity("b", "0.9")]), summary, dearestFirst);
    expect(told.total.cost).toBe("3.000000000");
    expect(told.rest).toBeNull();
    expect(told.moved).toBe(0.5);
  });

  test("pages that are not loaded are one row, so that all rows add up to the total", () => {
    const summary = metrics([slice("a", "2.1"), slice("b", "0.9"), slice("c", "0.3")]);
    const told = shown(entities([entity("a", "2.1")], { total: 3, has_more: true }), summary, dearestFirst);
    expect(told.rest).toMatchObject({ cost: "1.200000000", calls: 20 });
  });

  test("what belongs to nobody comes last under every order", () => {
    const rows = [entity("(unattributed)", "9"), entity("a", "2"), entity("b", "3")];
    for (const by of ["name", "cost", "change", "calls", "errors", "tokens", "saved"] as const) {
      const told = shown(entities(rows), undefined, { by, rising: true });
      expect(told.unattributed?.cost).toBe("9");
      expect(told.rows.map((row) => row.name)).not.toContain("(unattributed)");
    }
  });

  test("a search does not hide what belongs to nobody", () => {
    const summary = metrics([slice("alpha", "2"), slice("beta", "5"), slice("(unattributed)", "1")]);
    const told = shown(entities([entity("alpha", "2")]), summary, dearestFirst);
    expect(told.unattributed?.cost).toBe("1");
    expect(told.rest?.cost).toBe("5.000000000");
  });

  test("answers about different data are not set off against each other", () => {
    const told = shown(entities([entity("a", "2")], { versions: { mart_spend: 4 } }), metrics([slice("a", "7")]), dearestFirst);
    expect(told).toMatchObject({ rest: null, total: { cost: "2.000000000" } });
  });

  test("a part larger than the whole falls back to what the rows come to", () => {
    const told = shown(entities([entity("a", "9")]), metrics([slice("a", "7")]), dearestFirst);
    expect(told).toMatchObject({ rest: null, total: { cost: "9.000000000" } });
  });

  test("amounts are ordered as amounts, not as text and not as floats", () => {
    const rows = [entity("a", "9"), entity("b", "10"), entity("c", "9007199254740993"), entity("d", "9007199254740992")];
    expect(ordered(rows, dearestFirst).map((row) => row.name)).toEqual(["c", "d", "b", "a"]);
  });

  test("a row without a past has no change and comes after all others", () => {
    const rows = [entity("new", "5", { previous_cost: "0" }), entity("half", "1", { previous_cost: "2" })];
    expect(costChange(rows[0]!)).toBeNull();
    expect(costChange(rows[1]!)).toBe(-0.5);
    expect(rows.map(isNew)).toEqual([true, false]);
    expect(ordered(rows, { by: "change", rising: false }).map((row) => row.name)).toEqual(["half", "new"]);
  });
});

describe("what the numbers leave open", () => {
  test("nothing where all is priced, attributed and settled", () => expect(openQuestions(coverage)).toEqual([]));
  test("an unknown bound is said to be unknown", () => {
    expect(openQuestions({ ...coverage, unpriced_calls: 1 })).toEqual([
      "No price is known for 1 of 100 calls: how much on top is unknown.",
    ]);
  });
  test("days are named while they are few", () => {
    const [few] = openQuestions({ ...coverage, provisional_days: ["2026-04-24", "2026-04-25"] });
    const [many] = openQuestions({ ...coverage, provisional_days: ["2026-04-01", "2026-04-02", "2026-04-03", "2026-04-04"] });
    expect([few, many]).toEqual([
      "24 Apr and 25 Apr are provisional: late usage may still arrive.",
      "4 days are provisional: late usage may still arrive.",
    ]);
  });
});

const budget = (more: Partial<BudgetShown> = {}): BudgetShown => ({
  scope: "org", org: "acme", project: null, agent: null, kind: "cost", period: "monthly", currency: "USD",
  window_start: "2026-04-01T00:00:00Z", window_end: "2026-05-01T00:00:00Z", limit: "300", spent: "100", spent_upper: "100",
  ratio: 0.33, state: "ok", burn_short: 1, burn_long: 1, projected_exhaustion: null, ...more,
});

describe("the projection", () => {
  const half = "2026-04-16T00:00:00Z";
  test("an even pace for the second half of the window adds half of the limit", () => {
    expect(projection([budget()], {}, "month", half)).toMatchObject({ amount: 250, over: false });
  });
  test("a pace of two goes over the limit", () => {
    expect(projection([budget({ burn_long: 2 })], {}, "month", half)).toMatchObject({ amount: 400, over: true });
  });
  test.each([
    ["another period", [budget({ period: "weekly" })], {}, half],
    ["two organisations", [budget(), budget({ org: "other" })], {}, half],
    ["another place", [budget()], { project: "p" }, half],
    ["a team", [budget()], { team: "t" }, half],
    ["a budget in another currency", [budget({ currency: "EUR" })], {}, half],
    ["a window that is over", [budget()], {}, "2026-05-01T00:00:00Z"],
    ["no pace", [budget({ burn_long: null })], {}, half],
  ])("there is none for %s", (_, budgets, place, at) => expect(projection(budgets, place, "month", at)).toBeNull());
});

test("exceeded budgets come before those soon gone before full ones", () => {
  const found = byRisk([
    budget({ agent: "full", ratio: 0.9, state: "warning" }), budget({ agent: "calm", ratio: 0.1 }),
    budget({ agent: "over", ratio: 1.2, state: "exceeded" }),
    budget({ agent: "later", projected_exhaustion: "2026-04-28T00:00:00Z" }),
    budget({ agent: "soon", projected_exhaustion: "2026-04-20T00:00:00Z" }),
    budget({ agent: "foreign", ratio: null, state: "incomparable" }),
  ]);
  expect(found.map((one) => one.agent)).toEqual(["over", "soon", "later", "full", "calm", "foreign"]);
});

describe("hints", () => {
  const busy = { calls: 100, tokens: 2_000_000 };
  test("an ordinary fleet gets none", () => {
    expect(hints(metrics([slice("a", "5", busy), slice("b", "5", busy)]))).toEqual([]);
  });
  test("failing calls are named with their share", () => {
    const [hint] = hints(metrics([slice("a", "5", { ...busy, errors: 25 }), slice("b", "5", busy)]));
    expect(hint).toMatchObject({ name: "a", title: "25% of the calls fail" });
  });
  test("a slice thrice as dear by the token as everything is named", () => {
    const found = hints(metrics([slice("a", "50", { tokens: 1_000_000 }), slice("b", "5", { tokens: 9_000_000 })]));
    expect(found).toMatchObject([{ name: "a", title: "A million tokens cost $50.00" }]);
  });
  test("input that never comes from a cache is a hint about everything", () => {
    const tokens = { consumed: 11e6, input: 10.9e6, output: 1e5, cached: 1e5, saved: 0, efficiency: 0, cached_share: 0.009 };
    expect(hints(metrics([slice("a", "5", { calls: 100, tokens: 11_000_000 })], { tokens }))).toMatchObject([{ id: "cache" }]);
  });
  test("rest and unattributed are nobody that could be helped, and small slices are left alone", () => {
    const failing = { calls: 100, errors: 90 };
    const names = [["(rest)", "50"], ["(unattributed)", "50"], ["a", "0.1"]] as const;
    expect(hints(metrics(names.map(([name, cost]) => slice(name, cost, failing))))).toEqual([]);
  });
  test("never more than four, the most money first", () => {
    const found = hints(metrics([1, 2, 3, 4, 5, 6].map((n) => slice(`a${n}`, String(n), { calls: 100, errors: 50 }))));
    expect(found.map((one) => one.name)).toEqual(["a6", "a5", "a4", "a3"]);
  });
  test("no tokens have no price", () => expect(perMillion("5", 0)).toBeNull());
});

describe("what an anomaly is made of", () => {
  const anomaly = { metric: "cost", observed: 100 } as AnomalyShown;
  const whole = (parts: { value: number }[]) => parts.reduce((all, part) => all + part.value, 0);
  test("a contradicted price is split into list price and what is above", () => {
    const parts = contributions(anomaly, { overcharge_usd: 90, list_cost_usd: 2 });
    expect(parts.map((part) => part.value)).toEqual([90, 2, 8]);
  });
  test("one call and the rest add up to what was observed", () => {
    const parts = contributions(anomaly, { call: { model: "m", reported_cost: "97.5", list_cost: "97.5" } });
    expect(parts[0]?.name).toBe("One call to m");
    expect(whole(parts)).toBe(100);
  });
  test("tokens of one call are its input and output", () => {
    const parts = contributions({ ...anomaly, metric: "tokens" }, { call: { model: null, input_tokens: 90, output_tokens: 10 } });
    expect(parts).toMatchObject([{ name: "One call to an unnamed model", value: 100 }]);
  });
  test.each([[{}], [{ call: "text" }], [{ call: { reported_cost: "no number" } }], [{ call: [1] }]])(
    "a context of %j tells of no part", (context) => expect(contributions(anomaly, context)).toEqual([]),
  );
});

test("the kinds of tokens add up to what was consumed", () => {
  const tokens = {
    consumed: 1500, input: 1000, output: 500, cached: 300, saved: 9, efficiency: 0, cached_share: 0.3,
    cache_written: 100, reasoning: 200,
  };
  expect(tokenParts(tokens).map((part) => part.value)).toEqual([600, 300, 100, 300, 200]);
});

describe("keys", () => {
  const drawn = { times: [0, 1, 2, 3, 4] } as Columns;
  const found = [{ index: 1 }, { index: 3 }] as Mark[];
  test.each([
    ["ArrowRight", 4, 4], ["ArrowLeft", 0, 0], ["ArrowLeft", 5, 4], ["Home", 3, 0], ["End", 1, 4], ["PageDown", 1, 3],
    ["PageDown", 3, 3], ["PageUp", 3, 1], ["PageUp", 0, 1], ["x", 1, null],
  ])("%s from point %d leads to %s", (key, from, to) => expect(pointReached(key, from, drawn, found)).toBe(to));
  test.each([
    ["ArrowDown", 9, 9], ["ArrowUp", 0, 0], ["PageDown", 2, 7], ["PageUp", 7, 2], ["End", 0, 9], ["Home", 5, 0], ["Tab", 5, null],
  ])("%s from row %d leads to %s", (key, from, to) => expect(rowReached(key, from, 10, 5)).toBe(to));
});

test("unfinished incidents come first and keep their order", () => {
  const incidents = [["a", "resolved"], ["b", "open"], ["c", "acknowledged"], ["d", "open"]].map(
    ([id, status]) => ({ id, status }) as IncidentShown,
  );
  expect(unfinishedFirst(incidents).map((one) => one.id)).toEqual(["b", "d", "c", "a"]);
});

test("of open incidents the gravest stand first, of others those that changed last", () => {
  const incidents = [["a", "open", "info"], ["b", "resolved", "info"], ["c", "open", "critical"], ["d", "resolved", "critical"]].map(
    ([id, status, severity]) => ({ id, status, severity }) as IncidentShown,
  );
  expect(unfinishedFirst(incidents).map((one) => one.id)).toEqual(["c", "a", "b", "d"]);
});

test("open incidents are counted by severity where there are several, over all pages", () => {
  const told = (by_severity?: Incidents["by_severity"]) =>
    counts({ ...answer, total: 9, has_more: true, next_cursor: "x", incidents: [], by_severity });
  expect(told({ info: 1200, critical: 2 })).toBe("; 2 critical, 1,200 info in all");
  expect([told({ warning: 7 }), told({}), told()]).toEqual(["", "", ""]);
});

test("bars are as long as the dearest row's, to the cent", () => {
  expect(dearest([{ cost: "9" }, { cost: "10.000000001" }, { cost: "-3" }])).toBe("10.000000001");
  expect(dearest([])).toBe("0.000000000");
});

test("only a web address of a task is a link", () => {
  expect(["https://a.example/1", "HTTP://a"].every(isWeb)).toBe(true);
  expect(["javascript:alert(1)", " https://a", "data:text/html,x", "//a", ""].some(isWeb)).toBe(false);
});

test("an open incident is listed however long it did not change, and none twice", () => {
  const of = (...ids: string[]) => ids.map((id) => ({ id }) as IncidentShown);
  expect(together(of("new", "both"), of("both", "forgotten")).map((one) => one.id)).toEqual(["new", "both", "forgotten"]);
});

test("the gravest incident is the first to be told, and of equals the one that changed last", () => {
  const incidents = [["a", "info"], ["b", "warning"], ["c", "critical"], ["d", "warning"]].map(
    ([id, severity]) => ({ id, severity }) as IncidentShown,
  );
  expect(gravestFirst(incidents).map((one) => one.id)).toEqual(["c", "b", "d", "a"]);
});

test("budgets that are used up are counted, and the fullest is named", () => {
  const told = (budgets: BudgetShown[], exceeded: number) =>
    overLimit({ ...answer, total: 9, has_more: false, next_cursor: null, at: null, by_state: { exceeded }, budgets });
  const [over, more] = [budget({ agent: "a", ratio: 1.2, state: "exceeded" }), budget({ agent: "b", ratio: 3, state: "exceeded" })];
  expect(told([over, more, budget({ ratio: 0.1 })], 2)).toBe("2 budgets are over the limit: b, monthly cost at 300%");
  expect(told([over], 1)).toBe("1 budget is over the limit: a, monthly cost at 120%");
  expect(told([budget({ ratio: 0.1 })], 0)).toBeNull();
  expect(overLimit(undefined)).toBeNull();
});

test("a decision is told with its stage and what it names, as far as they are there", () => {
  expect(because({ reason: "asleep", stage: "quiet_times", by: "nights" })).toBe("asleep · stage quiet times · by nights");
  expect(because({ stage: 7 })).toBe("");
});

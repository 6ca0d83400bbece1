import { describe, expect, it } from "vitest";

import { below, filtersOf, fromQuery, PATH, reduce, tidy, toQuery, viewOf, type View } from "./state";

const drilled: View = {
  timeframe: "month",
  end: "2026-02-28",
  metric: "tokens",
  grain: "hour",
  place: { org: "acme", project: "atlas", team: "(unattributed)", agent: "a&b=c #1 ü", model: "m" },
  level: "team",
  search: "50 % +",
  severity: "critical",
  anomaly: "an-1",
  incident: "inc-1",
};

describe("an address", () => {
  it("shows the same view when it is opened anew", () => {
    expect(viewOf(fromQuery(toQuery(filtersOf(drilled, 3))), 3)).toEqual(drilled);
  });

  it("is empty for the usual view, however many organisations there are", () => {
    for (const orgs of [1, 2]) expect(toQuery(filtersOf(viewOf({}, orgs), orgs))).toBe("");
  });

  it("leaves out what cannot be meant", () => {
    expect(fromQuery("timeframe=year&end=2026-02-30&metric=__proto__&granularity=&level=agent&orgId=&x=1")).toEqual({ level: "agent" });
    expect(tidy({ timeframe: 7, orgId: ["acme"], agentId: { a: 1 }, search: "ok" })).toEqual({ search: "ok" });
  });

  it("cuts names that are longer than the server takes", () => {
    expect(fromQuery(`agentId=${"x".repeat(9999)}`).agentId).toHaveLength(500);
  });
});

describe("the drill-down", () => {
  it("leads from the organisation to the model", () => {
    let view = viewOf({}, 2);
    const seen: string[] = [];
    for (const name of ["acme", "atlas", "bot", "gpt"]) {
      seen.push(view.level);
      view = reduce(view, { type: "drill", level: view.level, name }, 2);
    }
    expect(seen).toEqual(["org", "project", "agent", "model"]);
    expect(view.place).toEqual({ org: "acme", project: "atlas", agent: "bot", model: "gpt" });
  });

  it("begins with the projects where there is one organisation", () => {
    expect(below({}, 1)).toBe("project");
    expect(below({}, 2)).toBe("org");
  });

  it("climbs to every step of its path and forgets what is below and what was searched", () => {
    for (const [index, level] of PATH.entries()) {
      const view = reduce(drilled, { type: "climb", to: level }, 2);
      expect(Object.keys(view.place)).toEqual(PATH.slice(0, index + 1));
      expect(view.search).toBe("");
    }
    expect(reduce(drilled, { type: "climb", to: "top" }, 2).place).toEqual({});
  });

  it("does not go into a provider, which no question can be narrowed to", () => {
    expect(reduce(drilled, { type: "drill", level: "provider", name: "x" }, 1)).toBe(drilled);
  });
});

describe("a change", () => {
  it("of the timeframe chooses the steps that suit it", () => {
    const view = viewOf({}, 1);
    expect(reduce(view, { type: "change", to: { timeframe: "day" } }, 1).grain).toBe("hour");
    expect(reduce(view, { type: "change", to: { timeframe: "month" } }, 1).grain).toBe("day");
  });

  it("cannot make latency of more than one agent's calls", () => {
    const one = viewOf({ agentId: "bot", metric: "latency" }, 1);
    expect(one.metric).toBe("latency");
    expect(reduce(one, { type: "climb", to: "top" }, 1).metric).toBe("cost");
    expect(reduce(one, { type: "drill", level: "model", name: "gpt" }, 1).metric).toBe("cost");
    expect(viewOf({ metric: "latency" }, 1).metric).toBe("cost");
  });
});

import { describe, expect, test } from "vitest";

import type { Split, Term } from "../answers";
import { nano } from "../format";
import { stepsOf } from "./steps";

const term = (name: string, amount: string, ...models: [string | null, string][]): Term => ({
  name, amount, by_model: models.map(([model, part]) => ({ model, amount: part })),
});
const split = (expected: string, observed: string, ...terms: Term[]): Split => ({
  cause: "more calls", because: "more calls", unit: "USD", expected, observed, terms, unpriced_calls: 0,
  reference_start: "2026-04-01T00:00:00Z",
});

describe("the steps from expected to observed", () => {
  test("meet, and are told with their signs", () => {
    const steps = stepsOf("cost", split("2.00", "5.00", term("volume", "4.00", ["a", "4.00"]), term("unit price", "-1.00")));
    expect(steps.map((step) => [step.name, step.kind, step.shown])).toEqual([
      ["expected", "whole", "$2.00"], ["volume", "more", "+$4.00"], ["unit price", "less", "−$1.00"], ["observed", "whole", "$5.00"],
    ]);
    const [expected, volume, price, observed] = steps;
    expect(volume?.from).toBe(expected?.to);
    expect(volume?.to).toBe(price?.to);
    expect(price?.from).toBe(observed?.to);
    expect(volume?.to).toBe(1);
  });

  test("too small to see are one step, so that all still add up", () => {
    const terms = [term("volume", "1000"), term("model mix", "0.001"), term("cache share", "-0.0005")];
    const steps = stepsOf("cost", split("1", "1001.0005", ...terms));
    expect(steps.map((step) => step.name)).toEqual(["expected", "volume", "too small to see", "observed"]);
    expect(steps[2]?.shown).toBe("+$0.0005");
    const all = terms.reduce((sum, one) => sum + nano(one.amount), nano("1"));
    expect(all).toBe(nano("1001.0005"));
  });

  test("name the models behind them", () => {
    const two = term("model mix", "3", ["gpt-5", "4"], [null, "-1"]);
    const [, alone, both] = stepsOf("cost", split("1", "6", term("volume", "2", ["gpt-5", "2"]), two));
    expect(alone?.note).toBe("gpt-5");
    expect(both?.note).toBe("gpt-5 +$4.00, no model −$1.00");
  });

  test("carry the unit of the metric, and a flat one has no length", () => {
    const [expected, slower] = stepsOf("latency", split("1500", "3500", term("time per token", "2000")));
    expect([expected?.shown, slower?.shown]).toEqual(["1.5 s", "+2 s"]);
    expect(stepsOf("tokens", split("0", "0")).map((step) => step.to)).toEqual([0, 0]);
  });
});

import { describe, expect, test } from "vitest";

import {
  ago, change, clock, count, counted, day, days, duration, exact, fromNano, measured, money, moneyBetween, moneyIn, nano, per,
  percent, rate, share, short, shortDay, sum, when,
} from "./format";

describe("money is formatted from its exact text", () => {
  test.each([
    ["0", "$0.00"],
    ["0E-9", "$0.00"],
    ["-0.000000000", "$0.00"],
    ["1234.560000000", "$1,234.56"],
    ["999999999999999999999.995000000", "$1,000,000,000,000,000,000,000.00"],
    ["12345678901234567890.120000000", "$12,345,678,901,234,567,890.12"],
    ["0.1", "$0.10"],
    ["0.099", "$0.099"],
    ["0.05", "$0.05"],
    ["0.004200000", "$0.0042"],
    ["0.0000126", "$0.000013"],
    ["0.000000499", "< $0.000001"],
    ["0.0000009", "$0.000001"],
    ["1E-9", "< $0.000001"],
    ["1.5E+3", "$1,500.00"],
    ["-12.345", "−$12.34"],
    ["-0.0042", "−$0.0042"],
  ])("%s is shown as %s", (text, shown) => expect(money(text)).toBe(shown));

  test("an amount that floats cannot hold keeps its cents", () => {
    expect(money("9007199254740993.01")).toBe("$9,007,199,254,740,993.01");
  });

  test("halves are rounded to even, as the command line does", () => {
    expect([money("0.125"), money("0.135"), money("2.675")]).toEqual(["$0.12", "$0.14", "$2.68"]);
  });

  test("a mean has no more digits than say something", () => {
    expect(["0.087888", "0.0001234567", "0.000000004", "0.5", "1234.567", "0"].map(rate)).toEqual(
      ["$0.0879", "$0.000123", "< $0.000001", "$0.50", "$1,234.57", "$0.00"],
    );
    expect(rate(null)).toBe("—");
  });
  test("no amount is a dash, not zero", () => expect([money(null), money(undefined)]).toEqual(["—", "—"]));

  test("another currency is named by its code", () => expect(moneyIn("EUR", "1234.5")).toBe("EUR 1,234.50"));

  test.each(["", "abc", "1,5", "1.2.3", ".", "0x10", "NaN"])("%j is refused", (text) => {
    expect(() => nano(text)).toThrow(RangeError);
  });

  test("an interval collapses where both ends read the same", () => {
    expect(moneyBetween("10.001", "10.002")).toBe("$10.00");
    expect(moneyBetween("10", "63.72")).toBe("$10.00 – $63.72");
    expect(moneyBetween("10", null)).toBe("$10.00 or more");
  });
});

describe("money arithmetic is exact", () => {
  test("ten times a tenth is one", () => expect(sum(Array(10).fill("0.1"))).toBe("1.000000000"));
  test("nano units go there and back", () => {
    for (const text of ["0.000000001", "-0.000000001", "123456789012345678901234567.123456789"]) {
      expect(fromNano(nano(text))).toBe(text);
    }
  });
  test("a cost per call has nine decimals, and none without calls", () => {
    expect(per("10", 3)).toBe("3.333333333");
    expect(per("-10", 4)).toBe("-2.500000000");
    expect(per("10", 0)).toBeNull();
  });
  test("a share of nothing is nothing", () => {
    expect(share("1", "0")).toBe(0);
    expect(share("25", "100")).toBe(0.25);
  });
});

describe("counts and shares", () => {
  test.each([
    [0, "0"], [999, "999"], [1000, "1K"], [12_345, "12.3K"], [999_999, "1M"], [1_234_567, "1.2M"], [45_600_000_000, "45.6B"],
    [-12_345, "−12.3K"], [0.25, "0.25"], [123_456, "123K"],
  ])("%d is short for %s", (value, shown) => expect(short(value)).toBe(shown));

  test.each([
    [0, "0%"], [0.42, "42%"], [0.042, "4.2%"], [0.0042, "0.42%"], [0.00001, "< 0.01%"], [12.34, "1,234%"], [1, "100%"],
    [-0.05, "−5%"],
  ])("%d as a share is %s", (value, shown) => expect(percent(value)).toBe(shown));

  test.each([
    [0.123, "+12%"], [-0.04, "−4%"], [0, "±0%"], [0.0001, "±0%"], [2.399, "+240%"], [33, "34×"], [null, "no comparison"],
  ])("a change of %s reads %s", (value, shown) => expect(change(value)).toBe(shown));

  test("thousands are grouped and one is not many", () => {
    expect([count(1_234_567), counted(1, "call"), counted(2, "call")]).toEqual(["1,234,567", "1 call", "2 calls"]);
  });
});

describe("a metric's value carries its unit", () => {
  test.each([
    ["cost", 9990.04, "$9,990.04"], ["cost", 1e-7, "< $0.000001"], ["tokens", 942_515, "943K"], ["tokens", 1607, "1,607"],
    ["errors", 0.25, "25%"], ["latency", 420.4, "420 ms"], ["latency", 3210, "3.2 s"], ["latency", 250_000, "4 min 10 s"],
    ["calls", 12, "12"], ["cost", null, "—"],
  ])("%s %s is %s", (metric, value, shown) => expect(measured(metric, value)).toBe(shown));
  test("a whole minute has no seconds", () => expect(duration(120_000)).toBe("2 min"));
});

describe("times", () => {
  const now = Date.parse("2026-04-25T12:00:00Z");
  test.each([
    ["2026-04-25T11:59:40Z", "just now"], ["2026-04-25T11:55:00Z", "5 min ago"], ["2026-04-25T09:00:00Z", "3 h ago"],
    ["2026-04-23T12:00:00Z", "2 d ago"], ["2025-10-25T12:00:00Z", "6 months ago"], ["2023-04-25T12:00:00Z", "3 years ago"],
    ["2026-04-25T15:00:00Z", "in 3 h"],
  ])("%s is %s", (moment, shown) => expect(ago(moment, now)).toBe(shown));

  test("the exact time is UTC", () => expect(exact("2026-04-25T13:00:00.123456Z")).toBe("2026-04-25 13:00:00 UTC"));

  test("a zone moves the clock and the day", () => {
    expect(when("2026-04-25T23:30:00Z", "UTC")).toBe("25 Apr 2026, 23:30");
    expect(when("2026-04-25T23:30:00Z", "Asia/Tokyo")).toBe("26 Apr 2026, 08:30");
    expect(shortDay("2026-04-25T23:30:00Z", "America/New_York")).toBe("25 Apr");
    expect(clock("2026-04-25T00:00:00Z", "UTC")).toBe("00:00");
  });

  test("a range of days says what they share once", () => {
    expect(days("2026-04-19", "2026-04-25")).toBe("19 – 25 Apr 2026");
    expect(days("2026-03-27", "2026-04-25")).toBe("27 Mar – 25 Apr 2026");
    expect(days("2025-12-27", "2026-01-02")).toBe("27 Dec 2025 – 2 Jan 2026");
    expect(days("2026-04-25", "2026-04-25")).toBe(day("2026-04-25", "UTC"));
  });
});

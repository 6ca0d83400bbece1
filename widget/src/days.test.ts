import { describe, expect, it } from "vitest";

import type { Answer } from "./answers";
import { isDay, LENGTH, moved, showing, stepped } from "./days";

const answer = { first_day: "2026-04-19", last_day: "2026-04-25", as_of: "2026-04-25T04:20:34Z" } as Answer;

describe("a step through time", () => {
  it("goes back by as many days as are shown, over months and leap days", () => {
    expect(stepped("2026-04-25", "week", -1, "2026-04-25")).toBe("2026-04-18");
    expect(stepped("2024-03-01", "day", -1, "2026-04-25")).toBe("2024-02-29");
    expect(stepped("2026-03-01", "month", -1, "2026-04-25")).toBe(moved("2026-03-01", -LENGTH.month));
  });

  it("comes to the newest day again and not beyond it", () => {
    expect(stepped("2026-04-11", "week", 1, "2026-04-25")).toBe("2026-04-18");
    expect(stepped("2026-04-18", "week", 1, "2026-04-25")).toBeUndefined();
    expect(stepped("2026-04-20", "month", 1, "2026-04-25")).toBeUndefined();
  });
});

describe("the days that show a moment", () => {
  it("stay where they hold it", () => {
    expect(showing("2026-04-20T10:00:00Z", undefined, answer)).toBeUndefined();
    expect(showing("2026-04-20T10:00:00Z", "2026-04-25", answer)).toBe("2026-04-25");
  });

  it("end a day after it where they do not, and with the newest day where that is later", () => {
    expect(showing("2025-05-08T22:00:00Z", undefined, answer)).toBe("2025-05-09");
    expect(showing("2026-11-24T15:00:00Z", "2026-04-25", answer)).toBeUndefined();
  });
});

it("knows days that there are", () => {
  expect(["2026-04-25", "2024-02-29"].every(isDay)).toBe(true);
  expect(["", "2026-02-30", "2026-4-1", "2026-13-01", "today", "2026-04-25T00:00"].some(isDay)).toBe(false);
});

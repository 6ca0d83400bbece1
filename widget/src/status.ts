/** How fresh what is shown is, in words. Pure: the clock is passed in. */

import { PARTS } from "./asking";
import type { Board } from "./contract";
import { ago, counted, day } from "./format";
import type { Model } from "./widget";

export interface Status {
  kind: "waiting" | "fresh" | "old-data" | "not-refreshed" | "failed";
  text: string;
  /** More of it, for a tip. */
  detail: string;
}

/** Later than this the newest event is called old: a day may still be in the making. */
const OLD_DATA = 48 * 3_600_000;
/** Three refreshes that did not happen. */
const NOT_REFRESHED = 100_000;

export function statusOf(model: Model, now: Date): Status {
  const reasons = [...new Set(Object.values(model.board.failed).filter((one) => one !== undefined))];
  const refreshed = model.refreshedAt ? `Last refreshed ${ago(model.refreshedAt.toISOString(), now.getTime())}.` : "";
  if (reasons.length) {
    return { kind: "failed", text: "Refresh failed", detail: [...reasons, refreshed].filter(Boolean).join(" ") };
  }
  const { metrics } = model.board;
  if (!metrics || !model.refreshedAt) return { kind: "waiting", text: "Loading…", detail: "" };
  if (now.getTime() - model.refreshedAt.getTime() > NOT_REFRESHED) {
    const since = ago(model.refreshedAt.toISOString(), now.getTime());
    return { kind: "not-refreshed", text: `Refreshed ${since}`, detail: "It is refreshed when this page is looked at." };
  }
  const newest = metrics.as_of ?? `${metrics.last_day}T23:59:59Z`;
  const age = now.getTime() - Date.parse(newest);
  if (age > OLD_DATA) {
    const days = counted(Math.floor(age / 86_400_000), "day");
    return {
      kind: "old-data",
      text: `Data end ${day(newest, "UTC")}`,
      detail: `The newest event taken in is ${days} old. ${refreshed}`,
    };
  }
  return { kind: "fresh", text: "Up to date", detail: `Newest event ${ago(newest, now.getTime())}. ${refreshed}` };
}

/** One reason that keeps several parts from being refreshed, and the board with it said once, not by each of them. */
export function saidOnce(board: Board): { reason: string | null; board: Board } {
  const parts = PARTS.filter((part) => board.failed[part] !== undefined);
  const reasons = new Set(parts.map((part) => board.failed[part]));
  const [reason] = reasons;
  if (parts.length < 2 || reasons.size !== 1 || reason === undefined) return { reason: null, board };
  // A part that has nothing to show says why by itself.
  const failed = Object.fromEntries(parts.filter((part) => board[part] === undefined).map((part) => [part, reason]));
  return { reason, board: { ...board, failed } };
}

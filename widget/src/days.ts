/** Days of the calendar as text (`2026-04-25`, UTC), and the steps that a timeframe makes through them. Pure. */

import type { Answer, Moment, Timeframe } from "./answers";

const DAY = 86_400_000;

/** How many days a timeframe holds. */
export const LENGTH: Record<Timeframe, number> = { day: 1, week: 7, month: 30 };

export function dayOf(moment: Moment): string {
  return new Date(moment).toISOString().slice(0, 10);
}

export function moved(day: string, by: number): string {
  return dayOf(new Date(Date.parse(day) + by * DAY).toISOString());
}

/** Whether a text is a day that there is. */
export function isDay(text: string): boolean {
  return /^\d{4}-\d{2}-\d{2}$/.test(text) && !Number.isNaN(Date.parse(text)) && dayOf(text) === text;
}

/** The end of the days before (-1) or after (+1) those that end with `end`; undefined where they reach the newest day. */
export function stepped(end: string, timeframe: Timeframe, way: -1 | 1, newest: string): string | undefined {
  return upTo(moved(end, way * LENGTH[timeframe]), newest);
}

/** The end under which days that hold a moment are shown: the one there is, where it holds it already. */
export function showing(moment: Moment, end: string | undefined, answer: Answer | undefined): string | undefined {
  if (!answer) return end;
  const day = dayOf(moment);
  if (day >= answer.first_day && day <= answer.last_day) return end;
  // A day more, so that what followed is seen too.
  return upTo(moved(day, 1), answer.as_of === null ? answer.last_day : dayOf(answer.as_of));
}

function upTo(day: string, newest: string): string | undefined {
  return day < newest ? day : undefined;
}

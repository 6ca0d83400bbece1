/** Where the keyboard leads, in the chart and in the list. Pure. */

import type { Columns, Mark } from "../charts/series";

/** Where a key leads from a point; null for a key that does not move. Pure. */
export function pointReached(key: string, from: number, { times }: Columns, marks: readonly Mark[]): number | null {
  const last = times.length - 1;
  const within = (index: number) => Math.max(0, Math.min(last, index));
  switch (key) {
    case "ArrowRight": return within(from + 1);
    case "ArrowLeft": return within(from - 1);
    case "Home": return 0;
    case "End": return last;
    case "PageDown": return marks.find((mark) => mark.index > from)?.index ?? marks.at(-1)?.index ?? within(from);
    case "PageUp": return marks.findLast((mark) => mark.index < from)?.index ?? marks[0]?.index ?? within(from);
    default: return null;
  }
}

/** Where a key leads in a list of `length` rows, `page` of them seen at once; null for a key that does not move. Pure. */
export function rowReached(key: string, from: number, length: number, page: number): number | null {
  const within = (index: number) => Math.max(0, Math.min(length - 1, index));
  switch (key) {
    case "ArrowDown": return within(from + 1);
    case "ArrowUp": return within(from - 1);
    case "PageDown": return within(from + page);
    case "PageUp": return within(from - page);
    case "Home": return 0;
    case "End": return within(length - 1);
    default: return null;
  }
}

/**
 * Turning the widget's requests into questions of the server and the answers into `data`, whatever carries them.
 */

import type { Exported, Page, Verdict } from "../answers";
import { questionOf, type Question } from "../asking";
import type { Part, Payload, Wanted } from "../protocol";
import { viewOf, type Filters } from "../state";

export interface Carrier {
  /** One question. Throws a `Refusal` with a readable reason. */
  ask<T>(name: string, inputs: Record<string, unknown>): Promise<T>;
  /** Rows that fit into one answer: of lists, and of an export. */
  rows: { list: number; few: number; export: number };
  /** The lists as they were last answered. */
  known: Map<Part, { key: string; whole: Page; pages: number }>;
}

const SAID: Record<Verdict, string> = { real: "it was real", false_positive: "a false alarm", planned: "it was planned" };

/** The server said no, or nothing. The message is for people. */
export class Refusal extends Error {
  constructor(
    message: string,
    readonly needsToken = false,
    readonly retryAfter: number | null = null,
  ) {
    super(message);
  }

  /** Whether a list must be asked for from its beginning. */
  get startAnew(): boolean {
    return /\bcursor: /.test(this.message);
  }
}

/** Ask for every wanted part at once; each is told as it comes. */
export async function answer(carrier: Carrier, wanted: Wanted, orgs: number, tell: (payload: Payload) => void): Promise<void> {
  const view = viewOf(wanted.filters, orgs);
  await Promise.all(
    wanted.parts.map(async (part) => {
      const question = questionOf(part, view);
      if (!question) return;
      try {
        const list = part === "entities" || part === "anomalies" || part === "incidents";
        const found = list
          ? await pages(carrier, part, question, wanted.pages?.[part] ?? 1)
          : await carrier.ask(question.name, question.inputs);
        tell({ [part]: found, timestamp: new Date().toISOString() });
      } catch (error) {
        if (error instanceof Refusal && error.needsToken) tell({ needsToken: error.message });
        else tell({ failed: { [part]: reason(error) } });
      }
    }),
  );
}

/** All rows of an export as one text. A page of CSV begins with its header. */
export async function wholeExport(carrier: Carrier, filters: Filters, format: "csv" | "json"): Promise<Exported> {
  const inputs = { ...exportInputs(filters, format), limit: carrier.rows.export };
  const texts: string[] = [];
  let cursor: string | null = null;
  for (;;) {
    const page: Exported = await patiently(() => carrier.ask<Exported>("dashboard_export_data", said({ ...inputs, cursor })));
    if (format === "csv") texts.push(texts.length ? page.content.slice(page.content.indexOf("\r\n") + 2) : page.content);
    else texts.push(page.content.slice(1, -1));
    cursor = page.next_cursor;
    if (!cursor) return { ...page, content: format === "csv" ? texts.join("") : `[${texts.filter(Boolean).join(",\n")}]` };
  }
}

/** What is exported: the rows of the days and the place that are looked at. */
export function exportInputs(filters: Filters, format: "csv" | "json"): Record<string, unknown> {
  const { timeframe, end, orgId, projectId, teamId, agentId, model } = { timeframe: "week", ...filters };
  return said({ format, timeframe, end, orgId, projectId, teamId, agentId, model });
}

export function exportName(exported: Exported): string {
  return `usage-${exported.first_day}-${exported.last_day}.${exported.format}`;
}

/** A saying about an anomaly, and what became of it in words. */
export async function label(carrier: Carrier, anomaly: string, verdict: Verdict): Promise<Payload> {
  await carrier.ask("label_anomaly", { anomalyId: anomaly, verdict });
  return { done: `Kept: ${SAID[verdict]}. Later scores of this series heed it.` };
}

export function reason(error: unknown): string {
  return error instanceof Error && error.message ? error.message : "Something went wrong that has no name.";
}

/** The smallest question: its total is how many organisations the caller sees. */
export const ORGANISATIONS: Question = { name: "list_entities", inputs: { level: "org", timeframe: "month", limit: 1 } };

/** The first pages of a list as one. What is known of it already, from the same data, is not asked for again. */
async function pages(carrier: Carrier, part: Part, question: Question, count: number): Promise<Page> {
  const ask = (cursor?: string) =>
    carrier.ask<Page>(question.name, said({ ...question.inputs, limit: carrier.rows[part === "entities" ? "list" : "few"], cursor }));
  const key = JSON.stringify(question);
  const known = carrier.known.get(part);
  let whole: Page | null = null;
  let held = 0;
  if (known?.key === key && known.pages < count && known.whole.next_cursor) {
    [whole, held] = [known.whole, known.pages];
  } else {
    const first = await ask();
    // Versions are the lake's: what people do to incidents and say of anomalies changes without them.
    const same = part === "entities" && known?.key === key && known.pages >= count && sameData(known.whole, first);
    [whole, held] = same ? [joined(part, first, [], known.whole), known.pages] : [first, 1];
  }
  while (held < count && whole.next_cursor) {
    const next: Page | null = await ask(whole.next_cursor).catch((error: unknown) => {
      if (error instanceof Refusal && error.startAnew) return null;
      throw error;
    });
    // The data changed meanwhile, and the cursor ended with them.
    if (next === null) {
      carrier.known.delete(part);
      return pages(carrier, part, question, count);
    }
    whole = joined(part, next, rowsOf(part, whole), next);
    held += 1;
  }
  carrier.known.set(part, { key, whole, pages: held });
  return whole;
}

function rowsOf(part: Part, page: Page): unknown[] {
  return (page as Page & Record<string, unknown[]>)[part] ?? [];
}

/** What a newer answer tells of itself, with the rows before and the rows and the cursor of another. */
function joined(part: Part, told: Page, before: unknown[], page: Page): Page {
  const { has_more, next_cursor } = page;
  return { ...told, has_more, next_cursor, [part]: [...before, ...rowsOf(part, page)] };
}

function sameData(one: Page, other: Page): boolean {
  return one.total === other.total && JSON.stringify(one.versions) === JSON.stringify(other.versions);
}

/** Wait as long as the server wishes when there were too many requests. */
async function patiently<T>(ask: () => Promise<T>): Promise<T> {
  for (let attempt = 1; ; attempt += 1) {
    try {
      return await ask();
    } catch (error) {
      if (!(error instanceof Refusal) || error.retryAfter === null || attempt === 5) throw error;
      await new Promise((resolve) => setTimeout(resolve, Math.min(error.retryAfter ?? 1, 60) * 1000));
    }
  }
}

function said(inputs: Record<string, unknown>): Record<string, unknown> {
  return Object.fromEntries(Object.entries(inputs).filter(([, value]) => value !== undefined && value !== null));
}

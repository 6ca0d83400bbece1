/**
 * The messages between the widget and its host, the only way between the two: `data` comes in, `request` goes out, `filter`
 * goes both ways. Only their shapes and a guard; who carries them stands under `hosts/`.
 *
 * Every `filter` and `request` carries a turn, counted up by the widget. `data` names the turn that it answers, so that an
 * answer which was overtaken can be told from a new one.
 */

import type {
  Anomalies, Budgets, Caller, Entities, Explained, Exported, Incidents, Metrics, SavedView, Trends, Verdict, Why,
} from "./answers";
import type { Filters } from "./state";

export interface Parts {
  metrics: Metrics;
  trends: Trends;
  anomalies: Anomalies;
  budgets: Budgets;
  incidents: Incidents;
  /** Those that nobody looks after yet. */
  open: Incidents;
  entities: Entities;
  explained: Explained;
  why: Why;
}

export type Part = keyof Parts;

/** Which parts are wanted, of what, and of lists how many pages. */
export interface Wanted {
  filters: Filters;
  parts: Part[];
  pages?: Partial<Record<Part, number>>;
}

/** Who looks, and what may be done here: questions, and the deeds of the host. */
export interface Session {
  caller: Caller;
  /** Names of the questions this caller may ask; deeds among them. */
  may: string[];
  /** How many organisations this caller sees. */
  orgs: number;
  /** Whether a link to a view can be copied, and views kept: not inside a chat. */
  links: boolean;
  /** Whether the widget itself may choose dark or light. */
  ownTheme: boolean;
}

export type FromWidget =
  /** This is looked at from now on. `step` says whether Back should lead here. */
  | { type: "filter"; turn: number; filters: Filters; step: boolean }
  | { type: "request"; action: "refresh"; turn: number; params: Wanted }
  | { type: "request"; action: "export"; turn: number; params: { filters: Filters; format: "csv" | "json" } }
  | { type: "request"; action: "views"; turn: number }
  | { type: "request"; action: "save-view"; turn: number; params: { name: string; filters: Filters } }
  | { type: "request"; action: "rename-view"; turn: number; params: { name: string; to: string; content: SavedView["content"] } }
  | { type: "request"; action: "delete-view"; turn: number; params: { name: string } }
  | { type: "request"; action: "label"; turn: number; params: { anomaly: string; verdict: Verdict } }
  | { type: "request"; action: "acknowledge"; turn: number; params: { incident: string } }
  | { type: "request"; action: "sign-in"; turn: number; params: { token: string } }
  | { type: "request"; action: "sign-out"; turn: number };

export interface Payload extends Partial<Parts> {
  session?: Session;
  views?: SavedView[];
  theme?: "dark" | "light";
  /** The host asks for a token, and why. */
  needsToken?: string;
  /** The host cannot begin yet, and why; it tries again by itself. */
  away?: string;
  /** Readable reasons why parts have no newer answer. */
  failed?: Partial<Record<Part, string>>;
  /** What became of a request that has no data: said to whoever looks and listens. */
  done?: string;
  refused?: string;
  /** When the host had this, in UTC. */
  timestamp?: string;
}

export type ToWidget =
  | { type: "data"; turn: number; payload: Payload }
  | { type: "filter"; filters: Filters };

/** Something to talk to. `connect` begins; the function it returns ends it for good. */
export interface Host {
  connect(hear: (message: ToWidget) => void): () => void;
  send(message: FromWidget): void;
}

export type { Exported };

/** Whether something that arrived is a message for the widget; anything else is not looked at. */
export function isToWidget(message: unknown): message is ToWidget {
  if (typeof message !== "object" || message === null || !("type" in message)) return false;
  if (message.type === "data") {
    return "turn" in message && typeof message.turn === "number" && "payload" in message && isRecord(message.payload);
  }
  return message.type === "filter" && "filters" in message && isRecord(message.filters);
}

function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

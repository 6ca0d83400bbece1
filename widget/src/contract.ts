/**
 * What the frame hands to every panel, and what a panel may ask of the frame.
 *
 * Every panel is a component `(props: PanelProps) => ReactNode`, exported by its name from `panels/index.ts`. A panel draws; it
 * never fetches, never reads the address, keeps no filter of its own.
 */

import type {
  Anomalies, Budgets, Caller, Entities, Explained, Incidents, Level, Metrics, Trends, Verdict, Why,
} from "./answers";
import type { Part } from "./protocol";
import type { View } from "./state";

export type { Part };

/** What is known now. A part is undefined until its first answer; old parts stay until newer ones are there. */
export interface Board {
  metrics?: Metrics;
  trends?: Trends;
  anomalies?: Anomalies;
  budgets?: Budgets;
  incidents?: Incidents;
  /** Incidents that nobody looks after yet. */
  open?: Incidents;
  /** The rows of every page loaded so far, the dearest first; `total` counts those not loaded too. */
  entities?: Entities;
  /** Answers about the one anomaly or incident that is open (`view.anomaly`, `view.incident`). */
  explained?: Explained;
  why?: Why;
  /** Why a part has no newer answer, by its name: a readable sentence. */
  failed: Partial<Record<Part, string>>;
}

/** What this caller may do here. Hide what is not allowed. */
export interface Allowed {
  export: boolean;
  why: boolean;
  saveViews: boolean;
  label: boolean;
  /** Whether a link leads out of here: not inside a chat's frame. */
  links: boolean;
  acknowledge: boolean;
}

export interface Actions {
  /** Change the view; the address follows. `replace` makes no new step for the Back button. */
  change(change: Partial<View>, how?: "replace"): void;
  /** Go down into a row of the drill-down: org → project → agent → model (team stands beside). */
  drill(level: Level, name: string): void;
  /** Load the next page of the drill-down's list; does nothing while one is loading or all are there. */
  more(): void;
  /** Load the next page of anomalies. */
  moreAnomalies(): void;
  /** Load the next page of incidents. */
  moreIncidents(): void;
  /** Open or close (null) the explanation of an anomaly. */
  explain(anomaly: string | null): void;
  /** Open or close (null) the decisions about an incident. */
  why(incident: string | null): void;
  /** Resolves when the server has it; rejects with a readable Error. */
  acknowledge(incident: string): Promise<void>;
  /** Say what an anomaly was. As above. */
  label(anomaly: string, verdict: Verdict): Promise<void>;
}

export interface PanelProps {
  view: View;
  board: Board;
  act: Actions;
  allowed: Allowed;
  caller?: Caller;
  /** "dark" or "light", as shown now: a canvas must be drawn anew when it changes. */
  theme: "dark" | "light";
}

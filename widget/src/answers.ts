/**
 * The shapes of the server's answers, as they arrive: money is exact text in USD, times are ISO text in UTC.
 * Only types; what is done with them stands where it is done.
 */

export type Timeframe = "day" | "week" | "month";
export type Grain = "hour" | "day";
export type Metric = "cost" | "tokens" | "calls" | "errors" | "latency";
export type Severity = "info" | "warning" | "critical";
export type Level = "org" | "project" | "team" | "agent" | "provider" | "model";
export type Money = string;
export type Moment = string;

export const UNATTRIBUTED = "(unattributed)";
export const REST = "(rest)";

export interface Coverage {
  calls: number;
  unpriced_calls: number;
  unpriced_bound: Money | null;
  unattributed_cost: Money;
  provisional_days: string[];
}

export interface Answer {
  time_zone: "UTC";
  as_of: Moment | null;
  first_day: string;
  last_day: string;
  coverage: Coverage;
  versions: Record<string, number>;
}

export interface Page extends Answer {
  total: number;
  has_more: boolean;
  next_cursor: string | null;
}

export interface Change {
  current: string;
  previous: string;
  change: number | null;
}

export interface Slice {
  name: string;
  cost: Money;
  calls: number;
  errors: number;
  tokens: number;
  saved_tokens: number;
}

export interface Metrics extends Answer {
  timeframe: Timeframe;
  by: Level;
  spending: { current: Money; previous: Money; budget: Money | null; percentage: number | null };
  tokens: {
    consumed: number;
    input: number;
    output: number;
    cached: number;
    saved: number;
    efficiency: number | null;
    cached_share: number | null;
  };
  calls: number;
  errors: number;
  trends: Record<"cost" | "tokens" | "calls" | "errors", Change>;
  slices: Slice[];
}

export interface Point {
  time: Moment;
  value: number;
  expected: number | null;
  lower: number | null;
  upper: number | null;
}

export interface AnomalyMark {
  id: string;
  time: Moment;
  severity: Severity;
  observed: number;
}

export interface Trends extends Answer {
  metric: Metric;
  granularity: Grain;
  unit: string;
  points: Point[];
  /** The worst of them; `marked` counts all that the series has. */
  anomalies: AnomalyMark[];
  marked?: number;
  band: string;
}

export type Verdict = "real" | "false_positive" | "planned";

export interface AnomalyShown {
  id: string;
  timestamp: Moment;
  org: string | null;
  project: string | null;
  agent: string | null;
  metric: Metric;
  grain: Grain;
  severity: Severity;
  score: number;
  confidence: number;
  baseline: number | null;
  observed: number;
  deviation: number | null;
  reason: string;
  /** What somebody said of it last, where the server tells it. */
  label?: Verdict | null;
}

export interface Anomalies extends Page {
  anomalies: AnomalyShown[];
  by_severity: Partial<Record<Severity, number>>;
}

/** One reason of a deviation; `by_model` are the models that most of it comes from. */
export interface Term {
  name: string;
  amount: string;
  by_model: { model: string | null; amount: string }[];
}

/** A deviation in parts: the terms add up to observed minus expected exactly. `cause` is a guess, `because` its evidence. */
export interface Split {
  cause: string;
  because: string;
  unit: string;
  observed: string;
  expected: string;
  terms: Term[];
  unpriced_calls: number;
  reference_start: Moment;
}

export interface Explained extends Answer {
  anomaly: AnomalyShown;
  lower: number | null;
  upper: number | null;
  method: string;
  context: Record<string, unknown>;
  around: Point[];
  split?: Split | null;
}

export interface Exported extends Page {
  format: "csv" | "json";
  media_type: string;
  content: string;
  total_cost: Money;
}

/** A row of the drill-down. `previous_cost` is what it cost in as many days before. */
export interface Entity extends Slice {
  previous_cost: Money;
}

export interface Entities extends Page {
  level: Level;
  entities: Entity[];
}

export type BudgetState = "ok" | "warning" | "exceeded" | "incomparable";

export interface BudgetShown {
  scope: "org" | "project" | "agent";
  org: string | null;
  project: string | null;
  agent: string | null;
  kind: string;
  period: string;
  currency: string;
  window_start: Moment;
  window_end: Moment;
  limit: string;
  spent: string | null;
  spent_upper: string | null;
  ratio: number | null;
  state: BudgetState;
  burn_short: number | null;
  burn_long: number | null;
  projected_exhaustion: Moment | null;
}

export interface Budgets extends Page {
  at: Moment | null;
  by_state: Partial<Record<BudgetState, number>>;
  budgets: BudgetShown[];
}

export type IncidentStatus = "open" | "acknowledged" | "resolved";

export interface IncidentShown {
  id: string;
  /** Who, what and how much, in a sentence. */
  title?: string;
  kind: string;
  severity: Severity;
  status: IncidentStatus;
  org: string | null;
  project: string | null;
  agent: string | null;
  acknowledged_by?: string | null;
  /** When usage began to be abnormal; it was noticed later, at `opened_at`. */
  began_at?: Moment;
  opened_at: Moment;
  updated_at: Moment;
}

export interface Incidents extends Page {
  /** Of all that were asked for, on whatever page. */
  by_severity?: Partial<Record<Severity, number>>;
  incidents: IncidentShown[];
}

export interface Decision {
  at: Moment;
  route: string;
  outcome: string;
  detail: Record<string, unknown>;
}

export interface Task {
  tracker: string;
  id: string;
  url: string | null;
  state: string;
}

export interface Why extends Answer {
  incident: IncidentShown;
  /** What was made of it in a task system. */
  tasks?: Task[];
  decisions: Decision[];
}

export interface Caller {
  name: string;
  role: "viewer" | "analyst" | "editor" | "admin";
  org: string | null;
  projects: string[];
}

export interface SavedView {
  name: string;
  owner: string;
  content: Record<string, unknown>;
}

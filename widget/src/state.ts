/**
 * What is looked at: one value, changed by one reducer, mirrored in an address. No clock, no storage, no network.
 */

import type { Grain, Level, Metric, Severity, Timeframe } from "./answers";
import { isDay } from "./days";

/** Where in the fleet one stands. A name may be "(unattributed)". */
export interface Place {
  org?: string;
  project?: string;
  team?: string;
  agent?: string;
  model?: string;
}

export interface View {
  timeframe: Timeframe;
  /** The last day looked at; undefined for the last computed one, which moves on by itself. */
  end?: string;
  metric: Metric;
  grain: Grain;
  place: Place;
  /** What the drill-down lists: the next level down, unless another was chosen. */
  level: Level;
  search: string;
  /** Of the anomalies shown; undefined for all. */
  severity?: Severity;
  /** The one whose explanation is open. */
  anomaly?: string;
  /** The one whose decisions are open. */
  incident?: string;
}

/**
 * A view as it is told to others: to the host, in an address, in a saved view. Flat, under the names that the server's questions
 * use; what is not said is as usual.
 */
export interface Filters {
  timeframe?: Timeframe;
  end?: string;
  metric?: Metric;
  granularity?: Grain;
  orgId?: string;
  projectId?: string;
  teamId?: string;
  agentId?: string;
  model?: string;
  level?: Level;
  search?: string;
  severity?: Severity;
  anomalyId?: string;
  incidentId?: string;
}

export type Change =
  | { type: "change"; to: Partial<View> }
  | { type: "drill"; level: Level; name: string }
  | { type: "climb"; to: keyof Place | "top" }
  | { type: "open"; filters: Filters };

const TIMEFRAMES = ["day", "week", "month"] as const;
const METRICS = ["cost", "tokens", "calls", "errors", "latency"] as const;
const GRAINS = ["hour", "day"] as const;
const SEVERITIES = ["info", "warning", "critical"] as const;
const LEVELS = ["org", "project", "team", "agent", "provider", "model"] as const;
/** From the whole to the part; a team stands beside, between project and agent. */
export const PATH = ["org", "project", "team", "agent", "model"] as const;
/** Under which name a level of the path is asked for. */
export const ID = { org: "orgId", project: "projectId", team: "teamId", agent: "agentId", model: "model" } as const;

/** The level below a place. With a single organisation there is nothing to choose at the top. */
export function below(place: Place, orgs: number): Level {
  if (place.model || place.agent) return "model";
  if (place.project || place.team) return "agent";
  return place.org || orgs <= 1 ? "project" : "org";
}

/** The whole view that filters stand for. */
export function viewOf(filters: Filters, orgs: number): View {
  const place: Place = {};
  for (const level of PATH) {
    const name = filters[ID[level]];
    if (name) place[level] = name;
  }
  const timeframe = filters.timeframe ?? "week";
  return possible({
    timeframe,
    end: filters.end,
    metric: filters.metric ?? "cost",
    grain: filters.granularity ?? usualGrain(timeframe),
    place,
    level: filters.level ?? below(place, orgs),
    search: filters.search ?? "",
    severity: filters.severity,
    anomaly: filters.anomalyId,
    incident: filters.incidentId,
  });
}

/** What of a view is not as usual. `viewOf` of it is the view again. */
export function filtersOf(view: View, orgs: number): Filters {
  const said: Filters = {};
  for (const level of PATH) {
    const name = view.place[level];
    if (name) said[ID[level]] = name;
  }
  if (view.timeframe !== "week") said.timeframe = view.timeframe;
  if (view.end) said.end = view.end;
  if (view.metric !== "cost") said.metric = view.metric;
  if (view.grain !== usualGrain(view.timeframe)) said.granularity = view.grain;
  if (view.level !== below(view.place, orgs)) said.level = view.level;
  if (view.search) said.search = view.search;
  if (view.severity) said.severity = view.severity;
  if (view.anomaly) said.anomalyId = view.anomaly;
  if (view.incident) said.incidentId = view.incident;
  return said;
}

export function reduce(view: View, change: Change, orgs: number): View {
  switch (change.type) {
    case "change":
      return possible(changed(view, change.to, orgs));
    case "drill": {
      if (change.level === "provider") return view;
      const place = { ...view.place, [change.level]: change.name };
      return possible({ ...view, place, level: below(place, orgs), search: "" });
    }
    case "climb": {
      const place: Place = {};
      if (change.to !== "top") {
        for (const level of PATH.slice(0, PATH.indexOf(change.to) + 1)) {
          if (view.place[level] !== undefined) place[level] = view.place[level];
        }
      }
      return possible({ ...view, place, level: below(place, orgs), search: "" });
    }
    case "open":
      return viewOf(change.filters, orgs);
  }
}

function changed(view: View, to: Partial<View>, orgs: number): View {
  const next = { ...view, ...to };
  if (to.place && !to.level) next.level = below(to.place, orgs);
  if (to.timeframe && !to.grain) next.grain = usualGrain(to.timeframe);
  return next;
}

function usualGrain(timeframe: Timeframe): Grain {
  return timeframe === "day" ? "hour" : "day";
}

/** Percentiles cannot be added: latency is of one agent, and of all its calls. */
function possible(view: View): View {
  const { agent, team, model } = view.place;
  return view.metric === "latency" && (!agent || team || model) ? { ...view, metric: "cost" } : view;
}

/** Filters as a query string, without the question mark. */
export function toQuery(filters: Filters): string {
  return new URLSearchParams(Object.entries(filters).filter(([, value]) => value)).toString();
}

export function fromQuery(text: string): Filters {
  return tidy(Object.fromEntries(new URLSearchParams(text)));
}

/** Filters from anything that claims to be some: an address, a saved view, a tool's input. What cannot be meant is left out. */
export function tidy(said: Record<string, unknown>): Filters {
  const word = (name: string, longest = 500) => {
    const value = said[name];
    return typeof value === "string" && value !== "" ? value.slice(0, longest) : undefined;
  };
  const found: Filters = {
    timeframe: oneOf(TIMEFRAMES, said.timeframe),
    end: [word("end")].find((day) => day !== undefined && isDay(day)),
    metric: oneOf(METRICS, said.metric),
    granularity: oneOf(GRAINS, said.granularity),
    orgId: word("orgId"),
    projectId: word("projectId"),
    teamId: word("teamId"),
    agentId: word("agentId"),
    model: word("model"),
    level: oneOf(LEVELS, said.level),
    search: word("search", 200),
    severity: oneOf(SEVERITIES, said.severity),
    anomalyId: word("anomalyId", 40),
    incidentId: word("incidentId", 80),
  };
  return Object.fromEntries(Object.entries(found).filter(([, value]) => value !== undefined));
}

function oneOf<T extends string>(allowed: readonly T[], value: unknown): T | undefined {
  return allowed.find((one) => one === value);
}

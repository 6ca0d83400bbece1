/**
 * Which question of the server each part of the widget is the answer to. Pure: a view in, a name and inputs out.
 */

import { PATH, ID, type View } from "./state";
import type { Part } from "./protocol";

export interface Question {
  name: string;
  inputs: Record<string, string | number>;
}

export const PARTS: readonly Part[] = [
  "metrics", "trends", "anomalies", "budgets", "incidents", "open", "entities", "explained", "why",
];

/** The question behind a part; null where there is nothing to ask. */
export function questionOf(part: Part, view: View): Question | null {
  const days: Record<string, string> = view.end ? { timeframe: view.timeframe, end: view.end } : { timeframe: view.timeframe };
  switch (part) {
    case "metrics":
      return { name: "dashboard_get_metrics", inputs: { ...days, by: "model", ...place(view) } };
    case "trends":
      return {
        name: "dashboard_get_trends",
        inputs: { ...days, metric: view.metric, granularity: view.grain, ...place(view) },
      };
    case "anomalies": {
      const severity: Record<string, string> = view.severity ? { severity: view.severity } : {};
      return { name: "dashboard_get_anomalies", inputs: { ...days, ...severity, ...place(view, ["org", "project", "agent"]) } };
    }
    case "budgets":
      return { name: "get_budget_status", inputs: place(view, ["org", "project", "agent"]) };
    case "incidents":
      return { name: "list_incidents", inputs: place(view, ["org", "project", "agent"]) };
    case "open":
      return { name: "list_incidents", inputs: { status: "open", order: "worst", ...place(view, ["org", "project", "agent"]) } };
    case "entities": {
      const search: Record<string, string> = view.search.trim() ? { search: view.search.trim() } : {};
      return { name: "list_entities", inputs: { ...days, level: view.level, ...search, ...place(view) } };
    }
    case "explained":
      return view.anomaly ? { name: "explain_anomaly", inputs: { anomalyId: view.anomaly } } : null;
    case "why":
      return view.incident ? { name: "why_notified", inputs: { incidentId: view.incident } } : null;
  }
}

/** Two views that ask the same for a part have the same key. */
export function keyOf(part: Part, view: View): string {
  return JSON.stringify(questionOf(part, view));
}

function place(view: View, levels: readonly (typeof PATH)[number][] = PATH): Record<string, string> {
  const named: Record<string, string> = {};
  for (const level of levels) {
    const name = view.place[level];
    if (name) named[ID[level]] = name;
  }
  return named;
}

/** The panels of the dashboard. The frame places them; each draws what the board holds and asks the frame for everything else. */

import "../styles/panels.css";

export { Anomalies } from "./Anomalies";
export { Attention } from "./Attention";
export { Breakdown } from "./Breakdown";
export { BudgetBars } from "./BudgetBars";
export { CostSummary } from "./CostSummary";
export { Incidents } from "./Incidents";
export { Optimisation } from "./Optimisation";
export { TokenUsage } from "./TokenUsage";
export { Trend } from "./Trend";

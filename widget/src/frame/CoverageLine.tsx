/** How far the numbers can be trusted, under everything. */

import type { ReactNode } from "react";

import type { Answer } from "../answers";
import { count, counted, money, nano, percent } from "../format";

export function CoverageLine({ answer }: { answer: Answer }): ReactNode {
  const { calls, unpriced_calls, unpriced_bound, unattributed_cost, provisional_days } = answer.coverage;
  const said = [
    unpriced_calls > 0 &&
      `${counted(unpriced_calls, "call")} of ${count(calls)} (${percent(unpriced_calls / calls)}) without a price` +
        (unpriced_bound === null ? "" : `, at most ${money(unpriced_bound)} on top`),
    nano(unattributed_cost) !== 0n && `${money(unattributed_cost)} without an agent or team`,
    provisional_days.length > 0 && `${counted(provisional_days.length, "day")} may still change`,
  ].filter((one) => one !== false);
  return (
    <footer className="coverage" data-testid="coverage">
      <span>Days are UTC, money is USD.</span>
      {said.map((one) => <span key={one}>{one}.</span>)}
      {said.length === 0 && <span>Every call is priced and attributed.</span>}
    </footer>
  );
}

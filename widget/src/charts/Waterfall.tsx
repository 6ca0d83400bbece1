/** From what was expected to what was observed, step by step: a table whose middle column is drawn. */

import type { Step } from "./steps";

/** A bar narrower than this part of the width could not be seen. */
const THINNEST = 0.006;

export function Waterfall({ steps, caption }: { steps: readonly Step[]; caption: string }) {
  return (
    <table className="waterfall">
      <caption>{caption}</caption>
      <colgroup><col className="step" /><col /><col className="amount" /></colgroup>
      <thead className="visually-hidden"><tr><th>Step</th><th>Drawn</th><th>Amount</th></tr></thead>
      <tbody>
        {steps.map((step) => (
          <tr key={step.name} className={step.kind}>
            <th scope="row">
              {step.name}
              {step.note && <small>{step.note}</small>}
            </th>
            <td aria-hidden="true">
              <svg width="100%" height="10">
                <rect
                  className={step.kind}
                  x={percentOf(Math.min(step.from, 1 - THINNEST))}
                  width={percentOf(Math.max(step.to - step.from, THINNEST))}
                  height="10"
                  rx="1.5"
                />
              </svg>
            </td>
            <td>{step.shown}</td>
          </tr>
        ))}
      </tbody>
    </table>
  );
}

function percentOf(part: number): string {
  return `${Math.round(part * 10_000) / 100}%`;
}

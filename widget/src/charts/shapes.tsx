/** The mark of each severity: a shape of its own, so that it can be told without its colour. In SVG here, on canvas by path. */

import type { Severity } from "../answers";

export const SHAPES: Record<Severity, string> = {
  info: "M0-4.2A4.2 4.2 0 1 1 0 4.2A4.2 4.2 0 1 1 0-4.2Z",
  warning: "M0-5.2 5.4 4.4-5.4 4.4Z",
  critical: "M0-5.8 5.8 0 0 5.8-5.8 0Z",
};

/** From grave to mild. */
export const SEVERITIES: readonly Severity[] = ["critical", "warning", "info"];

export function Shape({ severity }: { severity: Severity }) {
  return (
    <svg className={`shape ${severity}`} viewBox="-7 -7 14 14" width="14" height="14" aria-hidden="true">
      <path d={SHAPES[severity]} />
    </svg>
  );
}

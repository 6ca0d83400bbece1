/** A severity as shape and word. */

import type { Severity } from "../answers";
import { Shape } from "../charts/shapes";

export function SeverityTag({ severity }: { severity: Severity }) {
  return <span className={`severity ${severity}`}><Shape severity={severity} />{severity}</span>;
}

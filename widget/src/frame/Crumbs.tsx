/** Where in the fleet one stands, and the way back up. */

import type { ReactNode } from "react";

import { PATH, type Place, type View } from "../state";
import type { Session } from "../protocol";
import { Icon } from "./icons";

interface Props {
  view: View;
  session: Session;
  onClimb(to: keyof Place | "top"): void;
}

const KINDS: Record<keyof Place, string> = {
  org: "Organisation", project: "Project", team: "Team", agent: "Agent", model: "Model",
};

export function Crumbs({ view, session, onClimb }: Props): ReactNode {
  const steps = PATH.filter((level) => view.place[level]);
  const top = session.caller.org ?? (session.orgs > 1 ? "All organisations" : "All usage");
  return (
    <nav className="crumbs" aria-label="Where you are" data-testid="breadcrumb">
      <ol>
        <li>
          {steps.length ? (
            <button type="button" className="crumb" onClick={() => onClimb("top")}>{top}</button>
          ) : (
            <span className="crumb here" aria-current="location">{top}</span>
          )}
        </li>
        {steps.map((level, index) => (
          <li key={level}>
            <Icon name="chevron" />
            {index < steps.length - 1 ? (
              <button type="button" className="crumb" onClick={() => onClimb(level)} title={KINDS[level]}>
                <span className="sr-only">{KINDS[level]} </span>{view.place[level]}
              </button>
            ) : (
              <span className="crumb here" aria-current="location" title={KINDS[level]}>
                <span className="sr-only">{KINDS[level]} </span>{view.place[level]}
              </span>
            )}
          </li>
        ))}
      </ol>
    </nav>
  );
}

/** Where in the fleet one stands, and the way back up. */

import { useEffect, useRef, type ReactNode } from "react";

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
  const here = useRef<HTMLSpanElement>(null);
  const climbed = useRef(false);
  useEffect(() => {
    // The step that was chosen is no button any more: the focus must not be lost with it.
    if (climbed.current) here.current?.focus();
    climbed.current = false;
  }, [view.place]);
  const climb = (to: keyof Place | "top") => {
    climbed.current = true;
    onClimb(to);
  };
  const top = session.caller.org ?? (session.orgs > 1 ? "All organisations" : "All usage");
  return (
    <nav className="crumbs" aria-label="Where you are" data-testid="breadcrumb">
      <ol>
        <li>
          {steps.length ? (
            <button type="button" className="crumb" onClick={() => climb("top")}>{top}</button>
          ) : (
            <span ref={here} tabIndex={-1} className="crumb here" aria-current="location">{top}</span>
          )}
        </li>
        {steps.map((level, index) => (
          <li key={level}>
            <Icon name="chevron" />
            {index < steps.length - 1 ? (
              <button type="button" className="crumb" onClick={() => climb(level)} title={KINDS[level]}>
                <span className="sr-only">{KINDS[level]} </span>{view.place[level]}
              </button>
            ) : (
              <span ref={here} tabIndex={-1} className="crumb here" aria-current="location" title={KINDS[level]}>
                <span className="sr-only">{KINDS[level]} </span>{view.place[level]}
              </span>
            )}
          </li>
        ))}
      </ol>
    </nav>
  );
}

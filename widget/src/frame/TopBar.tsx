/** The bar above everything: the time looked at, how fresh it is, and what can be done with the whole. */

import { useState, type ReactNode } from "react";

import type { Status } from "../status";
import type { Model, Widget } from "../widget";
import { Icon } from "./icons";
import { Menu } from "./Menu";
import { Period } from "./Period";
import type { Choice } from "./theme";
import { ViewsMenu } from "./ViewsMenu";

interface Props {
  widget: Widget;
  model: Model;
  status: Status;
  choice: Choice;
  onTheme(): void;
}

const THEMES = {
  system: { icon: "system", text: "as the system" },
  dark: { icon: "moon", text: "dark" },
  light: { icon: "sun", text: "light" },
} as const;

export function TopBar({ widget, model, status, choice, onTheme }: Props): ReactNode {
  const { session, view, board } = model;
  if (!session) return null;
  return (
    <header className="top">
      <div className="brand">
        <svg className="mark" viewBox="0 0 20 20" aria-hidden="true">
          <rect x="1" y="10" width="4" height="9" rx="1.2" /><rect x="8" y="5" width="4" height="14" rx="1.2" />
          <rect x="15" y="1" width="4" height="18" rx="1.2" />
        </svg>
        <h1>Cost</h1>
      </div>
      <Period view={view} shown={board.metrics} change={(to) => widget.change({ type: "change", to })} />
      <div className="tools">
        <StatusBadge status={status} />
        <button
          type="button"
          className="btn quiet square"
          aria-label="Refresh"
          title="Refresh now"
          data-testid="refresh"
          data-busy={model.busy.size > 0}
          onClick={() => widget.refresh()}
        >
          <Icon name="refresh" />
        </button>
        {session.links && <ViewsMenu widget={widget} model={model} />}
        {session.may.includes("dashboard_export_data") && <ExportMenu widget={widget} />}
        {session.ownTheme && (
          <button
            type="button"
            className="btn quiet square"
            aria-label={`Colours: ${THEMES[choice].text}. Change`}
            title={`Colours: ${THEMES[choice].text}`}
            data-testid="theme"
            onClick={onTheme}
          >
            <Icon name={THEMES[choice].icon} />
          </button>
        )}
        {session.links && <AccountMenu widget={widget} model={model} />}
      </div>
    </header>
  );
}

function StatusBadge({ status }: { status: Status }): ReactNode {
  return (
    <span className={`status ${status.kind}`} title={status.detail} data-testid="status" data-status={status.kind}>
      <span className="dot" aria-hidden="true" />
      {status.text}
      {status.detail && <span className="sr-only">. {status.detail}</span>}
    </span>
  );
}

function ExportMenu({ widget }: { widget: Widget }): ReactNode {
  const [saving, setSaving] = useState(false);
  const save = async (format: "csv" | "json") => {
    setSaving(true);
    try {
      const { done } = await widget.request({ action: "export", params: { filters: widget.said(), format } });
      widget.notify(done ?? "Saved.");
    } catch (error) {
      widget.notify(`Nothing was saved: ${(error as Error).message}`, true);
    }
    setSaving(false);
  };
  return (
    <Menu label="Export" icon="download" testId="export">
      {(close) => (
        <>
          <p className="menu-hint">The rows behind what is shown: one a day, project, team, agent and model.</p>
          {(["csv", "json"] as const).map((format) => (
            <button
              key={format}
              type="button"
              className="menu-item"
              disabled={saving}
              onClick={() => {
                close();
                void save(format);
              }}
            >
              {format.toUpperCase()} file
            </button>
          ))}
        </>
      )}
    </Menu>
  );
}

function AccountMenu({ widget, model }: { widget: Widget; model: Model }): ReactNode {
  const caller = model.session?.caller;
  if (!caller) return null;
  return (
    <Menu label="Account" icon="person" testId="account">
      {() => (
        <>
          <dl className="account">
            <dt>Token</dt><dd>{caller.name}</dd>
            <dt>Role</dt><dd>{caller.role}</dd>
            <dt>Sees</dt>
            <dd>{caller.org ?? "every organisation"}{caller.projects.length > 0 && `: ${caller.projects.join(", ")}`}</dd>
          </dl>
          <button type="button" className="menu-item" onClick={() => void widget.request({ action: "sign-out" })}>
            Forget the token
          </button>
        </>
      )}
    </Menu>
  );
}

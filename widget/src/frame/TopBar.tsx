/** The bar above everything: the time looked at, how fresh it is, and what can be done with the whole. */

import { useState, type FormEvent, type ReactNode } from "react";

import type { SavedView, Timeframe } from "../answers";
import { days } from "../format";
import { tidy, toQuery } from "../state";
import type { Status } from "../status";
import type { Model, Widget } from "../widget";
import { Icon } from "./icons";
import { Menu } from "./Menu";
import type { Choice } from "./theme";

interface Props {
  widget: Widget;
  model: Model;
  status: Status;
  choice: Choice;
  onTheme(): void;
}

const TIMEFRAMES: { value: Timeframe; text: string; tip: string }[] = [
  { value: "day", text: "Day", tip: "The last computed day" },
  { value: "week", text: "Week", tip: "7 days, up to the last computed one" },
  { value: "month", text: "Month", tip: "30 days, up to the last computed one" },
];

const THEMES = {
  system: { icon: "system", text: "as the system" },
  dark: { icon: "moon", text: "dark" },
  light: { icon: "sun", text: "light" },
} as const;

export function TopBar({ widget, model, status, choice, onTheme }: Props): ReactNode {
  const { session, view, board } = model;
  if (!session) return null;
  const shown = board.metrics;
  return (
    <header className="top">
      <div className="brand">
        <svg className="mark" viewBox="0 0 20 20" aria-hidden="true">
          <rect x="1" y="10" width="4" height="9" rx="1.2" /><rect x="8" y="5" width="4" height="14" rx="1.2" />
          <rect x="15" y="1" width="4" height="18" rx="1.2" />
        </svg>
        <h1>Cost</h1>
      </div>
      <div className="time">
        <div className="segmented" role="group" aria-label="Timeframe">
          {TIMEFRAMES.map(({ value, text, tip }) => (
            <button
              key={value}
              type="button"
              aria-pressed={view.timeframe === value}
              title={tip}
              onClick={() => widget.change({ type: "change", to: { timeframe: value } })}
            >
              {text}
            </button>
          ))}
        </div>
        <span className="range num" data-testid="range">
          {shown && <>{days(shown.first_day, shown.last_day)}<small> UTC</small></>}
        </span>
      </div>
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

function ViewsMenu({ widget, model }: { widget: Widget; model: Model }): ReactNode {
  const mayKeep = model.session?.may.includes("save_view") ?? false;
  const open = (saved: SavedView) => widget.change({ type: "open", filters: tidy(saved.content) });
  const load = () => {
    widget.request({ action: "views" }).catch((error: Error) => widget.notify(error.message, true));
  };
  return (
    <Menu label="Views" icon="bookmark" testId="views" onOpen={load}>
      {(close) => (
        <>
          {model.views === undefined && <p className="menu-hint">Loading…</p>}
          {model.views?.length === 0 && <p className="menu-hint">No view is saved yet.</p>}
          {!!model.views?.length && (
            <ul className="saved" aria-label="Saved views">
              {model.views.map((saved) => (
                <li key={saved.name}>
                  <button
                    type="button"
                    className="menu-item"
                    onClick={() => {
                      open(saved);
                      close();
                    }}
                  >
                    <span className="clip">{saved.name}</span>
                    <small>{saved.owner}</small>
                  </button>
                  <button
                    type="button"
                    className="btn quiet square"
                    aria-label={`Copy the link to ${saved.name}`}
                    title="Copy the link"
                    onClick={() => void copyLink(widget, toQuery(tidy(saved.content)))}
                  >
                    <Icon name="link" />
                  </button>
                </li>
              ))}
            </ul>
          )}
          <button
            type="button"
            className="menu-item"
            data-testid="copy-link"
            onClick={() => {
              close();
              void copyLink(widget, toQuery(widget.said()));
            }}
          >
            Copy the link to this view
          </button>
          {mayKeep && <SaveView widget={widget} close={close} />}
        </>
      )}
    </Menu>
  );
}

function SaveView({ widget, close }: { widget: Widget; close(): void }): ReactNode {
  const [name, setName] = useState("");
  const save = async (event: FormEvent) => {
    event.preventDefault();
    const called = name.trim();
    if (!called) return;
    try {
      const { done } = await widget.request({ action: "save-view", params: { name: called, filters: widget.said() } });
      widget.notify(done ?? "Saved.");
      close();
    } catch (error) {
      widget.notify(`The view was not saved: ${(error as Error).message}`, true);
    }
  };
  return (
    <form className="save-view" onSubmit={(event) => void save(event)}>
      <label htmlFor="view-name">Save this view as</label>
      <div>
        <input id="view-name" value={name} maxLength={200} autoComplete="off" onChange={(event) => setName(event.target.value)} />
        <button type="submit" className="btn primary" disabled={!name.trim()}>Save</button>
      </div>
      <p className="menu-hint">Everyone in your organisation sees it.</p>
    </form>
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

async function copyLink(widget: Widget, query: string): Promise<void> {
  const link = `${window.location.origin}${window.location.pathname}${query ? `?${query}` : ""}`;
  try {
    await navigator.clipboard.writeText(link);
    widget.notify("The link was copied. It shows this view to whoever has a token.");
  } catch {
    widget.notify(`The browser did not let it be copied: ${link}`, true);
  }
}

/** Views kept under a name: opened, shared by a link, saved, renamed and deleted. */

import { useState, type FormEvent, type ReactNode } from "react";

import type { SavedView } from "../answers";
import { tidy, toQuery } from "../state";
import type { Model, Widget, Wish } from "../widget";
import { Icon } from "./icons";
import { Menu } from "./Menu";

/** What is being done to which saved view. */
type Doing = { what: "rename" | "delete"; name: string } | null;

export function ViewsMenu({ widget, model }: { widget: Widget; model: Model }): ReactNode {
  const may = model.session?.may ?? [];
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
            <Saved
              views={model.views}
              widget={widget}
              mayRename={may.includes("save_view") && may.includes("delete_view")}
              mayDelete={may.includes("delete_view")}
              close={close}
            />
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
          {may.includes("save_view") && <SaveView widget={widget} close={close} />}
        </>
      )}
    </Menu>
  );
}

function Saved({ views, widget, mayRename, mayDelete, close }: {
  views: readonly SavedView[];
  widget: Widget;
  mayRename: boolean;
  mayDelete: boolean;
  close(): void;
}): ReactNode {
  const [doing, setDoing] = useState<Doing>(null);
  const attempt = async (wish: Wish) => {
    try {
      const { done } = await widget.request(wish);
      widget.notify(done ?? "Done.");
      setDoing(null);
    } catch (error) {
      widget.notify((error as Error).message, true);
    }
  };
  return (
    <ul className="saved" aria-label="Saved views">
      {views.map((saved) => {
        const { name } = saved;
        if (doing?.name === name && doing.what === "rename") {
          return (
            <li key={name}>
              <Rename
                name={name}
                onName={(to) => void attempt({ action: "rename-view", params: { name, to, content: saved.content } })}
                onKeep={() => setDoing(null)}
              />
            </li>
          );
        }
        if (doing?.name === name) {
          return (
            <li key={name} className="sure" role="group" aria-label={`Delete ${name}?`}>
              <span className="clip" title={name}>Delete “{name}”?</span>
              <button type="button" className="btn" onClick={() => setDoing(null)}>Keep</button>
              <button
                type="button"
                className="btn danger"
                autoFocus
                onClick={() => void attempt({ action: "delete-view", params: { name } })}
              >
                Delete
              </button>
            </li>
          );
        }
        return (
          <li key={name}>
            <button
              type="button"
              className="menu-item"
              title={name}
              onClick={() => {
                widget.change({ type: "open", filters: tidy(saved.content) });
                close();
              }}
            >
              <span className="clip">{name}</span>
              <small>{saved.owner}</small>
            </button>
            <Small label={`Copy the link to ${name}`} icon="link" run={() => void copyLink(widget, toQuery(tidy(saved.content)))} />
            {mayRename && <Small label={`Rename ${name}`} icon="pencil" run={() => setDoing({ what: "rename", name })} />}
            {mayDelete && <Small label={`Delete ${name}`} icon="trash" run={() => setDoing({ what: "delete", name })} />}
          </li>
        );
      })}
    </ul>
  );
}

function Small({ label, icon, run }: { label: string; icon: "link" | "pencil" | "trash"; run(): void }): ReactNode {
  return (
    <button type="button" className="btn quiet square" aria-label={label} title={label} onClick={run}><Icon name={icon} /></button>
  );
}

function Rename({ name, onName, onKeep }: { name: string; onName(to: string): void; onKeep(): void }): ReactNode {
  const [to, setTo] = useState(name);
  const called = to.trim();
  const submit = (event: FormEvent) => {
    event.preventDefault();
    if (called === name) onKeep();
    else if (called) onName(called);
  };
  return (
    <form
      className="rename"
      onSubmit={submit}
      onKeyDown={(event) => {
        if (event.key !== "Escape") return;
        // The first Escape ends the renaming, the next one closes the menu.
        event.stopPropagation();
        onKeep();
      }}
    >
      <input
        aria-label={`New name of ${name}`}
        value={to}
        maxLength={200}
        autoComplete="off"
        autoFocus
        onFocus={(event) => event.target.select()}
        onChange={(event) => setTo(event.target.value)}
      />
      <button type="submit" className="btn primary" disabled={!called}>Rename</button>
    </form>
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

async function copyLink(widget: Widget, query: string): Promise<void> {
  const link = `${window.location.origin}${window.location.pathname}${query ? `?${query}` : ""}`;
  try {
    await navigator.clipboard.writeText(link);
    widget.notify("The link was copied. It shows this view to whoever has a token.");
  } catch {
    widget.notify(`The browser did not let it be copied: ${link}`, true);
  }
}

/**
 * The host that is a plain web page: questions go to the server that sent the page, the view stands in the address, the token is
 * kept as long as the tab lives.
 */

import type { Caller, Page, SavedView } from "../answers";
import type { FromWidget, Host, Payload, Session, ToWidget } from "../protocol";
import { fromQuery, toQuery } from "../state";
import { answer, exportInputs, label, ORGANISATIONS, reason, Refusal, type Carrier } from "./answering";

/** The parts of a browser that the host needs. */
export interface Browser {
  fetch(path: string, init: RequestInit): Promise<Response>;
  location: Pick<Location, "pathname" | "search" | "hash">;
  history: Pick<History, "pushState" | "replaceState">;
  onBack(run: () => void): () => void;
  kept: Kept;
  save(name: string, type: string, text: string): void;
}

/** Where the token lies between two loads of the page. */
export interface Kept {
  read(): string | null;
  write(token: string | null): void;
}

const FIRST_TIME = "";
/** Milliseconds until a server that could not begin is asked again. */
const AGAIN = 5000;

export class PageHost implements Host, Carrier {
  readonly rows = { list: 200, few: 50, export: 200 };
  readonly known: Carrier["known"] = new Map();
  private hear: (message: ToWidget) => void = () => {};
  private readonly stopped = new AbortController();
  private orgs = 1;
  private again: ReturnType<typeof setTimeout> | undefined;

  constructor(private readonly browser: Browser) {}

  connect(hear: (message: ToWidget) => void): () => void {
    this.hear = hear;
    this.takeTokenOfAddress();
    const end = this.browser.onBack(() => hear({ type: "filter", filters: fromQuery(this.browser.location.search) }));
    hear({ type: "filter", filters: fromQuery(this.browser.location.search) });
    if (this.browser.kept.read()) void this.begin(0);
    else this.tell(0, { needsToken: FIRST_TIME });
    return () => {
      end();
      clearTimeout(this.again);
      this.stopped.abort();
      this.hear = () => {};
    };
  }

  send(message: FromWidget): void {
    if (message.type === "filter") {
      this.showInAddress(toQuery(message.filters), message.step);
      return;
    }
    const { turn } = message;
    switch (message.action) {
      case "refresh":
        void answer(this, message.params, this.orgs, (payload) => this.tell(turn, payload));
        return;
      case "sign-in":
        this.browser.kept.write(message.params.token.trim());
        void this.begin(turn);
        return;
      case "sign-out":
        this.browser.kept.write(null);
        this.tell(turn, { needsToken: "You signed out.", done: "Signed out." });
        return;
      case "export":
        void this.deed(turn, async () => {
          return { done: await this.export(exportInputs(message.params.filters, message.params.format)) };
        });
        return;
      case "views":
        void this.deed(turn, async () => ({ ...(await this.views()), done: "" }));
        return;
      case "save-view":
        void this.deed(turn, async () => {
          const { name, filters } = message.params;
          await this.call(viewAt(name), "PUT", filters);
          return { ...(await this.views()), done: `Saved the view “${name}”.` };
        });
        return;
      case "rename-view":
        void this.deed(turn, async () => {
          const { name, to, content } = message.params;
          const { views } = await this.views();
          if (views.some((one) => one.name === to)) throw new Refusal(`There is a view “${to}” already.`);
          // In this order: what breaks off in between leaves two of it, never none.
          await this.call(viewAt(to), "PUT", content);
          await this.call(viewAt(name), "DELETE");
          return { ...(await this.views()), done: `“${name}” is called “${to}” now.` };
        });
        return;
      case "delete-view":
        void this.deed(turn, async () => {
          const { name } = message.params;
          await this.call(viewAt(name), "DELETE");
          return { ...(await this.views()), done: `Deleted the view “${name}”.` };
        });
        return;
      case "label":
        void this.deed(turn, () => label(this, message.params.anomaly, message.params.verdict));
        return;
      case "acknowledge":
        void this.deed(turn, async () => {
          await this.ask("acknowledge_incident", { incidentId: message.params.incident });
          return { done: "Acknowledged." };
        });
    }
  }

  async ask<T>(name: string, inputs: Record<string, unknown>): Promise<T> {
    return (await this.call(`/api/${name}`, "POST", inputs)) as T;
  }

  private async begin(turn: number): Promise<void> {
    clearTimeout(this.again);
    this.known.clear();
    try {
      const caller = (await this.call("/api/whoami", "GET")) as Caller & { may: string[] };
      const { name, inputs } = ORGANISATIONS;
      this.orgs = caller.org === null ? (await this.ask<Page>(name, inputs)).total : 1;
      const session: Session = { caller, may: caller.may, orgs: this.orgs, links: true, ownTheme: true };
      this.tell(turn, { session, done: "Signed in." });
    } catch (error) {
      const why = reason(error);
      if (error instanceof Refusal && error.needsToken) {
        this.tell(turn, { needsToken: why, refused: why });
        return;
      }
      // Nothing is wrong with the token: it is kept, and shown again once the server can answer.
      this.tell(turn, { away: why, refused: why });
      if (!this.stopped.signal.aborted) this.again = setTimeout(() => void this.begin(0), AGAIN);
    }
  }

  private async export(inputs: Record<string, unknown>): Promise<string> {
    const response = await this.fetch("/api/dashboard_export_data/file", "POST", inputs);
    const name = /filename="([^"]+)"/.exec(response.headers.get("Content-Disposition") ?? "")?.[1] ?? "usage";
    const rows = Number(response.headers.get("X-Total-Rows"));
    const text = await response.text().catch(() => {
      throw new Refusal("The file broke off.");
    });
    this.browser.save(name, response.headers.get("Content-Type") ?? "text/plain", text);
    return `Saved ${rows.toLocaleString("en-US")} rows as ${name}.`;
  }

  private async views(): Promise<{ views: SavedView[] }> {
    return (await this.call("/api/views", "GET")) as { views: SavedView[] };
  }

  private async deed(turn: number, act: () => Promise<Payload>): Promise<void> {
    try {
      this.tell(turn, await act());
    } catch (error) {
      const needsToken = error instanceof Refusal && error.needsToken ? { needsToken: error.message } : {};
      this.tell(turn, { refused: reason(error), ...needsToken });
    }
  }

  private async call(path: string, method: string, body?: unknown): Promise<unknown> {
    const response = await this.fetch(path, method, body);
    try {
      return await response.json();
    } catch {
      throw new Refusal("The server's answer broke off.");
    }
  }

  /** A good answer, or a `Refusal`. */
  private async fetch(path: string, method: string, body?: unknown): Promise<Response> {
    let response: Response;
    try {
      response = await this.browser.fetch(path, {
        method,
        headers: {
          Authorization: `Bearer ${this.browser.kept.read() ?? ""}`,
          ...(body === undefined ? {} : { "Content-Type": "application/json" }),
        },
        body: body === undefined ? undefined : JSON.stringify(body),
        credentials: "omit",
        cache: "no-store",
        signal: this.stopped.signal,
      });
    } catch {
      throw new Refusal("The server cannot be reached. Is obs-pipeline serve still running?");
    }
    if (!response.ok) throw await this.refusal(response);
    return response;
  }

  private async refusal(response: Response): Promise<Refusal> {
    const said = await response.json().then(
      (body: unknown) => (body as { error?: string } | null)?.error,
      () => undefined,
    );
    const text = said ?? `The server answered with ${response.status}.`;
    if (response.status === 401) {
      this.browser.kept.write(null);
      return new Refusal(text, true);
    }
    const wait = Number(response.headers.get("Retry-After"));
    return new Refusal(text, false, response.status === 429 ? wait || 1 : null);
  }

  /** A token that came behind the # is taken and must not stay readable in the address. */
  private takeTokenOfAddress(): void {
    const { hash, pathname, search } = this.browser.location;
    const token = new URLSearchParams(hash.slice(1)).get("token");
    if (!token) return;
    this.browser.history.replaceState(null, "", pathname + search);
    this.browser.kept.write(token);
  }

  private showInAddress(query: string, step: boolean): void {
    const { pathname, search } = this.browser.location;
    const next = query ? `?${query}` : "";
    if (next === search) return;
    if (step) this.browser.history.pushState(null, "", pathname + next);
    else this.browser.history.replaceState(null, "", pathname + next);
  }

  private tell(turn: number, payload: Payload): void {
    this.hear({ type: "data", turn, payload });
  }
}

function viewAt(name: string): string {
  return `/api/views/${encodeURIComponent(name)}`;
}

/** The browser that the page runs in. */
export function thisBrowser(name = "obs-pipeline-token"): Browser {
  return {
    fetch: (path, init) => window.fetch(path, init),
    location: window.location,
    history: window.history,
    onBack(run) {
      window.addEventListener("popstate", run);
      return () => window.removeEventListener("popstate", run);
    },
    kept: keptIn(() => window.sessionStorage, name),
    save,
  };
}

/** In the session's storage; where that is barred, in memory. */
function keptIn(storage: () => Storage, name: string): Kept {
  let held: string | null = null;
  return {
    read() {
      try {
        return storage().getItem(name);
      } catch {
        return held;
      }
    },
    write(token) {
      held = token;
      try {
        if (token === null) storage().removeItem(name);
        else storage().setItem(name, token);
      } catch {
        // It stays in memory.
      }
    },
  };
}

export function save(name: string, type: string, text: string): void {
  const address = URL.createObjectURL(new Blob([text], { type }));
  const link = document.createElement("a");
  link.href = address;
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(address), 10_000);
}

/**
 * The widget without its looks: created with a host, updated by messages, destroyed once. What is shown is its `model`.
 *
 * Time, timers and whether anybody looks come in as `Surroundings`; nothing here touches a document, a network or a storage.
 */

import type { SavedView } from "./answers";
import { keyOf, PARTS, questionOf } from "./asking";
import type { Board } from "./contract";
import { isToWidget, type FromWidget, type Host, type Part, type Payload, type Session } from "./protocol";
import { filtersOf, reduce, viewOf, type Change, type Filters, type View } from "./state";

export interface Surroundings {
  now(): Date;
  /** Run once after a while; the answer calls it off. */
  after(milliseconds: number, run: () => void): () => void;
  hidden(): boolean;
  /** Run whenever `hidden` changed; the answer ends it. */
  onVisibility(run: () => void): () => void;
}

export interface Notice {
  text: string;
  bad: boolean;
  /** Counted up, so that the same words are said again. */
  number: number;
}

export interface Model {
  phase: "waiting" | "sign-in" | "open" | "closed";
  /** Why a token is asked for. */
  needsToken?: string;
  /** Why the host could not begin yet. */
  away?: string;
  session?: Session;
  view: View;
  board: Board;
  views?: SavedView[];
  hostTheme?: "dark" | "light";
  /** Parts that were asked for and did not come yet. */
  busy: ReadonlySet<Part>;
  /** Parts that still show the answer to the question before. */
  outdated: ReadonlySet<Part>;
  /** Lists of which a further page is on its way. */
  growing: ReadonlySet<Part>;
  /** When every part last came without a fault. */
  refreshedAt?: Date;
  notice?: Notice;
}

export const REFRESH_EVERY = 30_000;
/** Changes within this time after one that was told at once are told together; so are those of typing. */
export const DEBOUNCE = 180;

/** Of these, an answer to another question is not shown until the new one is there; all others stay. */
const OF_ONE_THING: readonly Part[] = ["explained", "why"];
const LISTS: readonly Part[] = ["entities", "anomalies", "incidents"];

interface Promised {
  resolve(payload: Payload): void;
  reject(error: Error): void;
}

export class Widget {
  private state: Model;
  private readonly hearers = new Set<() => void>();
  private readonly promised = new Map<number, Promised>();
  private readonly asked = new Map<Part, { key: string; turn: number }>();
  /** The question that each part which is shown answers. */
  private readonly shown = new Map<Part, string>();
  private readonly pages = new Map<Part, number>();
  private turn = 0;
  private round: { turn: number; parts: Set<Part>; byHand: boolean } | null = null;
  private filters: Filters = {};
  private told = "";
  private tell: (() => void) | null = null;
  private step = false;
  private beat: (() => void) | null = null;
  private lastBeat: number;
  private readonly ends: (() => void)[];

  /** Create: begins to listen and to refresh. */
  constructor(
    private readonly host: Host,
    private readonly around: Surroundings,
    private readonly every = REFRESH_EVERY,
  ) {
    this.state = {
      phase: "waiting",
      view: viewOf({}, 1),
      board: { failed: {} },
      busy: new Set(),
      outdated: new Set(),
      growing: new Set(),
    };
    this.lastBeat = around.now().getTime();
    const unwatch = around.onVisibility(() => this.looked());
    const disconnect = host.connect((message) => this.update(message));
    this.ends = [unwatch, disconnect];
    this.wind();
  }

  readonly model = (): Model => this.state;

  readonly subscribe = (hear: () => void): (() => void) => {
    this.hearers.add(hear);
    return () => this.hearers.delete(hear);
  };

  /** Update: take a message from the host. Whatever is none is not looked at. */
  readonly update = (message: unknown): void => {
    if (this.state.phase === "closed" || !isToWidget(message)) return;
    if (message.type === "filter") this.heardFilter(message.filters);
    else this.heardData(message.turn, message.payload);
  };

  /** Destroy: no timer, no request and no listener is left. */
  readonly destroy = (): void => {
    if (this.state.phase === "closed") return;
    this.tell?.();
    this.beat?.();
    this.tell = this.beat = null;
    for (const end of this.ends) end();
    for (const waiting of this.promised.values()) waiting.reject(new Error("The dashboard was closed."));
    this.promised.clear();
    this.show({ phase: "closed" });
    this.hearers.clear();
  };

  /** Change what is looked at. Typing is told when it pauses; anything else at once, unless it follows another at once. */
  readonly change = (change: Change, how: "step" | "typing" = "step"): void => {
    const view = reduce(this.state.view, change, this.orgs());
    this.look(view);
    this.step ||= how === "step";
    const leads = how === "step" && this.tell === null;
    this.tell?.();
    if (leads) this.tellNow();
    this.tell = this.around.after(DEBOUNCE, () => {
      this.tell = null;
      this.tellNow();
    });
  };

  /** Ask for everything again. What is shown stays until the new is there. */
  readonly refresh = (byHand = true): void => {
    if (this.state.phase !== "open") return;
    this.lastBeat = this.around.now().getTime();
    this.wind();
    const parts = PARTS.filter((part) => questionOf(part, this.state.view) !== null);
    this.ask(parts);
    this.round = { turn: this.turn, parts: new Set(parts), byHand };
  };

  /** The next page of a list. */
  readonly more = (part: Part): void => {
    const list = this.state.board[part];
    if (!list || !("has_more" in list) || !list.has_more || this.state.busy.has(part)) return;
    this.pages.set(part, this.pagesOf(part) + 1);
    this.show({ growing: new Set([...this.state.growing, part]) });
    this.ask([part]);
  };

  /** Ask the host for a deed. Resolves with what it has to say, rejects with a readable reason. */
  readonly request = (wish: Wish): Promise<Payload> =>
    new Promise((resolve, reject) => {
      if (this.state.phase === "closed") {
        reject(new Error("The dashboard was closed."));
        return;
      }
      this.turn += 1;
      this.promised.set(this.turn, { resolve, reject });
      this.host.send({ ...wish, type: "request", turn: this.turn } as FromWidget);
    });

  readonly notify = (text: string, bad = false): void => {
    this.show({ notice: { text, bad, number: (this.state.notice?.number ?? 0) + 1 } });
  };

  /** The view as it is told to others. */
  readonly said = (): Filters => filtersOf(this.state.view, this.orgs());

  private orgs(): number {
    return this.state.session?.orgs ?? 1;
  }

  private pagesOf(part: Part): number {
    return this.pages.get(part) ?? 1;
  }

  private look(view: View): void {
    const before = this.state.view;
    let board = this.state.board;
    for (const part of PARTS) {
      if (keyOf(part, view) === keyOf(part, before)) continue;
      this.pages.delete(part);
      if (OF_ONE_THING.includes(part)) board = { ...board, [part]: undefined };
      if (board.failed[part]) board = { ...board, failed: { ...board.failed, [part]: undefined } };
    }
    this.show({ view, board, outdated: this.outdated(view, board) });
  }

  private outdated(view: View, board: Board): ReadonlySet<Part> {
    return new Set(PARTS.filter((part) => board[part] && this.shown.get(part) !== keyOf(part, view)));
  }

  private tellNow(): void {
    if (this.state.phase !== "open") return;
    const filters = this.said();
    const text = JSON.stringify(filters);
    if (text !== this.told) {
      this.told = text;
      this.filters = filters;
      this.turn += 1;
      this.host.send({ type: "filter", turn: this.turn, filters, step: this.step });
    }
    this.step = false;
    this.askChanged();
  }

  private askChanged(): void {
    const parts = PARTS.filter((part) => {
      const key = keyOf(part, this.state.view);
      return key !== "null" && key !== this.asked.get(part)?.key;
    });
    if (parts.length) this.ask(parts);
  }

  private ask(parts: Part[]): void {
    this.turn += 1;
    for (const part of parts) this.asked.set(part, { key: keyOf(part, this.state.view), turn: this.turn });
    this.show({ busy: new Set([...this.state.busy, ...parts]) });
    const pages = Object.fromEntries(LISTS.filter((part) => parts.includes(part)).map((part) => [part, this.pagesOf(part)]));
    this.host.send({ type: "request", action: "refresh", turn: this.turn, params: { filters: this.said(), parts, pages } });
  }

  private heardFilter(filters: Filters): void {
    this.filters = filters;
    if (this.state.phase !== "open") return;
    this.tell?.();
    this.tell = null;
    this.look(reduce(this.state.view, { type: "open", filters }, this.orgs()));
    this.told = JSON.stringify(this.said());
    this.askChanged();
  }

  private heardData(turn: number, payload: Payload): void {
    if (payload.theme) this.show({ hostTheme: payload.theme });
    if (payload.needsToken !== undefined) this.signOut(payload.needsToken);
    if (payload.away !== undefined) this.show({ phase: "waiting", away: payload.away });
    if (payload.views) this.show({ views: payload.views });
    this.take(turn, payload);
    if (payload.session) this.open(payload.session);
    const waiting = this.promised.get(turn);
    if (waiting && (payload.done !== undefined || payload.refused !== undefined)) {
      this.promised.delete(turn);
      if (payload.refused === undefined) waiting.resolve(payload);
      else waiting.reject(new Error(payload.refused));
    }
  }

  private open(session: Session): void {
    this.show({ phase: "open", session, needsToken: undefined, away: undefined, view: viewOf(this.filters, session.orgs) });
    this.told = JSON.stringify(this.said());
    this.asked.clear();
    this.refresh(false);
  }

  private signOut(why: string): void {
    this.asked.clear();
    this.round = null;
    this.show({
      phase: "sign-in", needsToken: why, away: undefined, session: undefined, views: undefined, board: { failed: {} },
      busy: new Set(), outdated: new Set(), growing: new Set(), refreshedAt: undefined,
    });
  }

  private take(turn: number, payload: Payload): void {
    const busy = new Set(this.state.busy);
    const growing = new Set(this.state.growing);
    const board: Board = { ...this.state.board, failed: { ...this.state.board.failed } };
    let taken = false;
    for (const part of PARTS) {
      const fault = payload.failed?.[part];
      if (payload[part] === undefined && fault === undefined) continue;
      // An answer to a question that was put again since is late, whatever it says.
      if (turn < (this.asked.get(part)?.turn ?? 0)) continue;
      taken = true;
      const key = this.asked.get(part)?.key ?? "";
      if (fault === undefined) {
        Object.assign(board, { [part]: payload[part] });
        this.shown.set(part, key);
      } else if (this.shown.get(part) !== key) {
        // The numbers of another place must not stand where these could not be had.
        board[part] = undefined;
      }
      board.failed[part] = fault;
      busy.delete(part);
      growing.delete(part);
    }
    if (!taken) return;
    const before = this.state.board;
    this.show({ board, busy, growing, outdated: this.outdated(this.state.view, board) });
    this.finish(turn, payload, before);
  }

  private finish(turn: number, payload: Payload, before: Board): void {
    const round = this.round;
    if (!round) return;
    for (const part of PARTS) {
      const overtaken = (this.asked.get(part)?.turn ?? 0) > round.turn;
      if ((turn >= round.turn && (payload[part] || payload.failed?.[part])) || overtaken) round.parts.delete(part);
    }
    if (payload.metrics && before.metrics && changed(before.metrics.versions, payload.metrics.versions)) {
      this.notify("New data came in.");
    }
    if (round.parts.size) return;
    this.round = null;
    const fault = PARTS.map((part) => this.state.board.failed[part]).find(Boolean);
    if (!fault) this.show({ refreshedAt: this.around.now() });
    if (round.byHand) this.notify(fault ? `Not all could be refreshed: ${fault}` : "Refreshed.", Boolean(fault));
  }

  private looked(): void {
    if (this.around.hidden()) return;
    if (this.around.now().getTime() - this.lastBeat >= this.every) this.refresh(false);
  }

  private wind(): void {
    this.beat?.();
    this.beat = this.around.after(this.every, () => {
      this.wind();
      if (!this.around.hidden()) this.refresh(false);
    });
  }

  private show(change: Partial<Model>): void {
    this.state = { ...this.state, ...change };
    for (const hear of this.hearers) hear();
  }
}

type Requests = Extract<FromWidget, { type: "request" }>;
type Without<T> = T extends unknown ? Omit<T, "type" | "turn"> : never;
export type Wish = Without<Exclude<Requests, { action: "refresh" }>>;

function changed(before: Record<string, number>, after: Record<string, number>): boolean {
  return JSON.stringify(before) !== JSON.stringify(after);
}

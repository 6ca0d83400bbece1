import { beforeEach, describe, expect, it } from "vitest";

import type { Metrics } from "./answers";
import { PARTS } from "./asking";
import { isToWidget, type FromWidget, type Host, type Payload, type Session, type ToWidget } from "./protocol";
import { DEBOUNCE, REFRESH_EVERY, Widget, type Surroundings } from "./widget";

const session: Session = {
  caller: { name: "ann", role: "admin", org: null, projects: [] },
  may: ["dashboard_export_data"],
  orgs: 2,
  links: true,
  ownTheme: true,
};

class Pretended implements Host, Surroundings {
  sent: FromWidget[] = [];
  time = Date.parse("2026-03-06T12:00:00Z");
  isHidden = false;
  timers: { at: number; run: () => void }[] = [];
  connected = false;
  hear: (message: ToWidget) => void = () => {};
  watch: (() => void) | null = null;

  connect(hear: (message: ToWidget) => void) {
    this.hear = hear;
    this.connected = true;
    return () => {
      this.connected = false;
    };
  }
  send(message: FromWidget) {
    this.sent.push(message);
  }
  now() {
    return new Date(this.time);
  }
  after(milliseconds: number, run: () => void) {
    const timer = { at: this.time + milliseconds, run };
    this.timers.push(timer);
    return () => {
      this.timers = this.timers.filter((one) => one !== timer);
    };
  }
  hidden() {
    return this.isHidden;
  }
  onVisibility(run: () => void) {
    this.watch = run;
    return () => {
      this.watch = null;
    };
  }
  pass(milliseconds: number) {
    const end = this.time + milliseconds;
    for (;;) {
      const next = this.timers.filter((one) => one.at <= end).sort((a, b) => a.at - b.at)[0];
      if (!next) break;
      this.timers = this.timers.filter((one) => one !== next);
      this.time = next.at;
      next.run();
    }
    this.time = end;
  }
  refreshes() {
    return this.sent.filter((one) => one.type === "request" && one.action === "refresh");
  }
  filters() {
    return this.sent.filter((one) => one.type === "filter");
  }
  last() {
    const found = this.refreshes().at(-1);
    if (!found || found.type !== "request" || found.action !== "refresh") throw new Error("nothing was asked");
    return found;
  }
  data(turn: number, payload: Payload) {
    this.hear({ type: "data", turn, payload });
  }
}

function metrics(cost: string, version = 1): Metrics {
  return { spending: { current: cost }, versions: { mart_spend: version } } as unknown as Metrics;
}

let host: Pretended;
let widget: Widget;

beforeEach(() => {
  host = new Pretended();
  widget = new Widget(host, host);
  host.data(0, { session });
});

/** Answer everything that was asked last. */
function answerAll(cost = "1", version = 1): void {
  const { turn, params } = host.last();
  for (const part of params.parts) {
    host.data(turn, { [part]: part === "metrics" ? metrics(cost, version) : ({ of: part, has_more: true } as never) });
  }
}

describe("creating", () => {
  it("asks for nothing before it is known who looks, and then for every part of the view once", () => {
    const fresh = new Pretended();
    const other = new Widget(fresh, fresh);
    expect(fresh.sent).toEqual([]);
    expect(other.model().phase).toBe("waiting");
    fresh.data(0, { session });
    expect(fresh.refreshes()).toHaveLength(1);
    expect(fresh.last().params.parts).toEqual(PARTS.filter((part) => part !== "explained" && part !== "why"));
  });

  it("begins with the view of the address and leaves that as it is", () => {
    const fresh = new Pretended();
    const other = new Widget(fresh, fresh);
    fresh.hear({ type: "filter", filters: { agentId: "bot", timeframe: "day", anomalyId: "an-1" } });
    fresh.data(0, { session });
    expect(other.model().view.place).toEqual({ agent: "bot" });
    expect(fresh.last().params.parts).toContain("explained");
    expect(fresh.filters()).toEqual([]);
  });

  it("says why its host cannot begin, until it can", () => {
    const fresh = new Pretended();
    const other = new Widget(fresh, fresh);
    fresh.data(0, { away: "There is no usage yet." });
    expect(other.model()).toMatchObject({ phase: "waiting", away: "There is no usage yet." });
    fresh.data(0, { session });
    expect(other.model()).toMatchObject({ phase: "open", away: undefined });
  });

  it("shows the question for a token, and nothing of what was seen before", () => {
    answerAll();
    host.data(3, { needsToken: "It has expired." });
    expect(widget.model()).toMatchObject({ phase: "sign-in", needsToken: "It has expired.", board: { failed: {} } });
    const before = host.sent.length;
    host.pass(REFRESH_EVERY * 3);
    expect(host.sent.length).toBe(before);
  });
});

describe("filters", () => {
  it("are told at once for a click, and only what they change is asked for", () => {
    answerAll();
    widget.change({ type: "change", to: { metric: "tokens" } });
    expect(host.filters().at(-1)).toMatchObject({ filters: { metric: "tokens" }, step: true });
    expect(host.last().params.parts).toEqual(["trends"]);
  });

  it("are told once when typing pauses", () => {
    answerAll();
    const before = host.refreshes().length;
    for (const search of ["b", "bo", "bot"]) {
      widget.change({ type: "change", to: { search } }, "typing");
      host.pass(DEBOUNCE / 2);
    }
    expect(widget.model().view.search).toBe("bot");
    expect(host.refreshes()).toHaveLength(before);
    host.pass(DEBOUNCE);
    expect(host.refreshes()).toHaveLength(before + 1);
    expect(host.last().params).toMatchObject({ filters: { search: "bot" }, parts: ["entities"] });
    expect(host.filters().at(-1)).toMatchObject({ step: false });
  });

  it("that follow each other at once are told as the first and the last", () => {
    answerAll();
    for (const metric of ["tokens", "calls", "errors"] as const) widget.change({ type: "change", to: { metric } });
    host.pass(DEBOUNCE);
    expect(host.filters().map((one) => one.type === "filter" && one.filters.metric)).toEqual(["tokens", "errors"]);
  });

  it("that come from the host change the view and are not told back", () => {
    answerAll();
    host.hear({ type: "filter", filters: { projectId: "atlas" } });
    expect(widget.model().view.place).toEqual({ project: "atlas" });
    expect(host.filters()).toEqual([]);
    host.pass(DEBOUNCE * 2);
    expect(host.filters()).toEqual([]);
  });
});

describe("answers", () => {
  it("that were overtaken are dropped, whatever order they come in", () => {
    answerAll();
    widget.change({ type: "change", to: { timeframe: "day" } });
    const early = host.last().turn;
    host.pass(DEBOUNCE);
    widget.change({ type: "change", to: { timeframe: "month" } });
    const late = host.last().turn;
    host.data(late, { metrics: metrics("30") });
    host.data(early, { metrics: metrics("1") });
    host.data(early, { failed: { metrics: "too late" } });
    expect(widget.model().board.metrics?.spending.current).toBe("30");
    expect(widget.model().board.failed.metrics).toBeUndefined();
  });

  it("stay until newer ones are there, also when a refresh fails, which is said", () => {
    answerAll("7");
    widget.refresh();
    expect(widget.model().board.metrics?.spending.current).toBe("7");
    host.data(host.last().turn, { failed: { metrics: "The lake is away." } });
    expect(widget.model().board).toMatchObject({ failed: { metrics: "The lake is away." } });
    expect(widget.model().board.metrics?.spending.current).toBe("7");
    widget.refresh();
    host.data(host.last().turn, { metrics: metrics("8") });
    expect(widget.model().board.failed.metrics).toBeUndefined();
  });

  it("to the question before are marked until the new are there, and taken away when those fail", () => {
    answerAll("7");
    widget.change({ type: "drill", level: "org", name: "acme" });
    expect(widget.model().board.metrics?.spending.current).toBe("7");
    expect([...widget.model().outdated]).toContain("metrics");
    host.data(host.last().turn, { metrics: metrics("3") });
    expect([...widget.model().outdated]).not.toContain("metrics");
    expect([...widget.model().outdated]).toContain("trends");
    host.data(host.last().turn, { failed: { trends: "Away." } });
    expect(widget.model().board.trends).toBeUndefined();
    expect(widget.model().board.failed.trends).toBe("Away.");
  });

  it("about another anomaly are not shown for the one that is open", () => {
    answerAll();
    widget.change({ type: "change", to: { anomaly: "an-1" } });
    answerAll();
    expect(widget.model().board.explained).toBeDefined();
    host.pass(DEBOUNCE);
    widget.change({ type: "change", to: { anomaly: "an-2" } });
    expect(widget.model().board.explained).toBeUndefined();
  });

  it("that are no messages are not looked at", () => {
    const before = widget.model();
    for (const junk of [null, 7, "data", {}, { type: "data" }, { type: "data", turn: "1", payload: {} }, { type: "filter", filters: [] }]) {
      expect(isToWidget(junk)).toBe(false);
      widget.update(junk);
    }
    expect(widget.model()).toBe(before);
  });
});

describe("lists", () => {
  it("grow by a page at a time and are refreshed with as many", () => {
    answerAll();
    widget.more("entities");
    widget.more("entities");
    expect(host.last().params).toMatchObject({ parts: ["entities"], pages: { entities: 2 } });
    answerAll();
    widget.refresh();
    expect(host.last().params.pages?.entities).toBe(2);
    answerAll();
    widget.change({ type: "drill", level: "org", name: "acme" });
    expect(host.last().params.pages?.entities).toBe(1);
  });
});

describe("refreshing", () => {
  it("comes every 30 seconds, not while nobody looks, and at once when somebody looks again", () => {
    answerAll();
    const before = host.refreshes().length;
    host.pass(REFRESH_EVERY);
    expect(host.refreshes()).toHaveLength(before + 1);
    host.isHidden = true;
    host.pass(REFRESH_EVERY * 4);
    expect(host.refreshes()).toHaveLength(before + 1);
    host.isHidden = false;
    host.watch?.();
    expect(host.refreshes()).toHaveLength(before + 2);
    host.watch?.();
    expect(host.refreshes()).toHaveLength(before + 2);
  });

  it("is said to be done when it was asked for, and not when it came by itself", () => {
    answerAll();
    expect(widget.model().refreshedAt).toEqual(host.now());
    host.pass(REFRESH_EVERY);
    answerAll();
    expect(widget.model().notice).toBeUndefined();
    widget.refresh();
    answerAll();
    expect(widget.model().notice).toMatchObject({ text: "Refreshed.", bad: false });
    widget.refresh();
    host.data(host.last().turn, { failed: { trends: "No." } });
    answerAll();
    expect(widget.model().notice?.text).toBe("Refreshed.");
  });

  it("that failed in part says so and is no refresh", () => {
    answerAll();
    const first = widget.model().refreshedAt;
    host.pass(1000);
    widget.refresh();
    const { turn, params } = host.last();
    for (const part of params.parts) host.data(turn, { failed: { [part]: "The server is away." } });
    expect(widget.model().refreshedAt).toEqual(first);
    expect(widget.model().notice).toMatchObject({ bad: true });
  });

  it("that brings a new version says so", () => {
    answerAll("1", 1);
    host.pass(REFRESH_EVERY);
    answerAll("2", 2);
    expect(widget.model().notice?.text).toBe("New data came in.");
  });

  it("is not over while a part that was asked for with it is still to come", () => {
    widget.refresh();
    host.data(host.last().turn, { metrics: metrics("1") });
    expect(widget.model().refreshedAt).toBeUndefined();
    answerAll();
    expect(widget.model().refreshedAt).toBeDefined();
  });
});

describe("deeds", () => {
  it("resolve or are refused by the turn they went out with", async () => {
    const first = widget.request({ action: "acknowledge", params: { incident: "inc-1" } });
    const second = widget.request({ action: "views" });
    const [one, two] = host.sent.slice(-2);
    host.data(two?.turn ?? 0, { refused: "Not you." });
    host.data(one?.turn ?? 0, { done: "Acknowledged." });
    await expect(first).resolves.toMatchObject({ done: "Acknowledged." });
    await expect(second).rejects.toThrow("Not you.");
  });
});

describe("destroying", () => {
  it("leaves no timer, no listener and no promise, and hears nothing more", async () => {
    answerAll();
    widget.change({ type: "change", to: { metric: "tokens" } });
    const waits = widget.request({ action: "views" });
    widget.destroy();
    await expect(waits).rejects.toThrow("closed");
    expect(host.timers).toEqual([]);
    expect(host.connected).toBe(false);
    expect(host.watch).toBeNull();
    const sent = host.sent.length;
    host.data(99, { metrics: metrics("9") });
    widget.refresh();
    widget.destroy();
    expect(host.sent).toHaveLength(sent);
    expect(widget.model().phase).toBe("closed");
  });
});

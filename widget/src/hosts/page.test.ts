import { beforeEach, describe, expect, it, vi } from "vitest";

import type { Payload, ToWidget } from "../protocol";
import { PageHost, type Browser } from "./page";

type Answerer = (path: string, body: Record<string, unknown>) => { status?: number; body?: unknown; headers?: Record<string, string> };

class PretendedBrowser implements Browser {
  location = { pathname: "/", search: "", hash: "" };
  steps: string[] = [];
  token: string | null = null;
  saved: { name: string; type: string; text: string }[] = [];
  asked: { method: string; path: string; token: string | null; body: Record<string, unknown> }[] = [];
  goBack: () => void = () => {};
  answer: Answerer = () => ({});

  history = {
    pushState: (_: unknown, __: string, to?: string | URL | null) => this.go("push", String(to)),
    replaceState: (_: unknown, __: string, to?: string | URL | null) => this.go("replace", String(to)),
  };
  kept = {
    read: () => this.token,
    write: (token: string | null) => {
      this.token = token;
    },
  };

  fetch(path: string, init: RequestInit): Promise<Response> {
    const body = typeof init.body === "string" ? (JSON.parse(init.body) as Record<string, unknown>) : {};
    const header = (init.headers as Record<string, string>).Authorization ?? "";
    this.asked.push({ method: init.method ?? "GET", path, token: header.replace("Bearer ", ""), body });
    const { status = 200, body: told = {}, headers } = this.answer(path, body);
    return Promise.resolve(new Response(typeof told === "string" ? told : JSON.stringify(told), { status, headers }));
  }
  onBack(run: () => void) {
    this.goBack = run;
    return () => {
      this.goBack = () => {};
    };
  }
  save(name: string, type: string, text: string) {
    this.saved.push({ name, type, text });
  }
  private go(how: string, to: string) {
    this.steps.push(`${how} ${to}`);
    const [path = "/", search] = to.split("?");
    this.location = { pathname: path, search: search ? `?${search}` : "", hash: "" };
  }
}

let browser: PretendedBrowser;
let heard: ToWidget[];

beforeEach(() => {
  browser = new PretendedBrowser();
  browser.answer = (path) =>
    path === "/api/whoami" ? { body: { name: "ann", role: "admin", org: null, projects: [], may: ["x"] } } : { body: { total: 3 } };
  heard = [];
});

function start(): PageHost {
  const host = new PageHost(browser);
  host.connect((message) => heard.push(message));
  return host;
}

/** Until what was asked has been answered. */
async function settled(): Promise<void> {
  for (let turn = 0; turn < 20; turn += 1) await new Promise((resolve) => setTimeout(resolve, 0));
}

function payloads(): Payload[] {
  return heard.flatMap((message) => (message.type === "data" ? [message.payload] : []));
}

describe("the token", () => {
  it("is asked for when there is none, without an accusation", () => {
    start();
    expect(payloads()).toEqual([{ needsToken: "" }]);
    expect(browser.asked).toEqual([]);
  });

  it("that comes with the address is kept and at once taken out of it, the view stays", async () => {
    browser.location = { pathname: "/", search: "?agentId=bot", hash: "#token=obs_1" };
    start();
    expect(browser.steps).toEqual(["replace /?agentId=bot"]);
    expect(browser.token).toBe("obs_1");
    await settled();
    expect(browser.asked.every((one) => one.token === "obs_1")).toBe(true);
    expect(heard[0]).toEqual({ type: "filter", filters: { agentId: "bot" } });
    expect(payloads()[0]?.session).toMatchObject({ orgs: 3, may: ["x"], links: true });
  });

  it("that does not count is forgotten, and why is said", async () => {
    browser.token = "obs_old";
    browser.answer = () => ({ status: 401, body: { error: "This token has expired." } });
    start();
    await settled();
    expect(browser.token).toBeNull();
    expect(payloads().at(-1)).toMatchObject({ needsToken: "This token has expired." });
  });

  it("is kept and shown again where the server cannot answer yet", async () => {
    vi.useFakeTimers();
    browser.token = "obs_1";
    const answers = browser.answer;
    browser.answer = () => ({ status: 503, body: { error: "There is no usage yet." } });
    start();
    await vi.advanceTimersByTimeAsync(100);
    expect(payloads().at(-1)).toEqual({ away: "There is no usage yet.", refused: "There is no usage yet." });
    expect(browser.token).toBe("obs_1");
    browser.answer = answers;
    await vi.advanceTimersByTimeAsync(5000);
    expect(payloads().at(-1)?.session).toMatchObject({ orgs: 3 });
    vi.useRealTimers();
  });

  it("that is revoked while one looks is asked for again", async () => {
    browser.token = "obs_1";
    const host = start();
    await settled();
    browser.answer = () => ({ status: 401, body: { error: "Revoked." } });
    host.send({ type: "request", action: "refresh", turn: 5, params: { filters: {}, parts: ["metrics"] } });
    await settled();
    expect(payloads().at(-1)).toEqual({ needsToken: "Revoked." });
  });

  it("of one organisation needs no count of organisations", async () => {
    browser.token = "obs_1";
    browser.answer = () => ({ body: { name: "ann", role: "viewer", org: "acme", projects: [], may: [] } });
    start();
    await settled();
    expect(browser.asked.map((one) => one.path)).toEqual(["/api/whoami"]);
    expect(payloads()[0]?.session?.orgs).toBe(1);
  });
});

describe("a refusal", () => {
  it.each([
    [403, "This needs the role analyst."],
    [429, "Too many requests."],
    [503, "There is no usage in the lake yet."],
  ])("%i is told with the server's reason", async (status, error) => {
    browser.token = "obs_1";
    const host = start();
    await settled();
    browser.answer = () => ({ status, body: { error } });
    host.send({ type: "request", action: "refresh", turn: 5, params: { filters: {}, parts: ["metrics", "trends"] } });
    await settled();
    expect(payloads().slice(-2)).toEqual([{ failed: { metrics: error } }, { failed: { trends: error } }]);
    expect(browser.token).toBe("obs_1");
  });

  it("without words, and a server that is gone, are told in words of our own", async () => {
    browser.token = "obs_1";
    const host = start();
    await settled();
    browser.answer = () => ({ status: 502, body: "<html>" });
    host.send({ type: "request", action: "refresh", turn: 5, params: { filters: {}, parts: ["metrics"] } });
    await settled();
    expect(payloads().at(-1)).toEqual({ failed: { metrics: "The server answered with 502." } });
    browser.fetch = () => Promise.reject(new TypeError("Failed to fetch"));
    host.send({ type: "request", action: "refresh", turn: 6, params: { filters: {}, parts: ["metrics"] } });
    await settled();
    expect(payloads().at(-1)?.failed?.metrics).toContain("cannot be reached");
  });
});

describe("the address", () => {
  it("follows the view: a step for a click, none for typing, nothing for what it shows already", () => {
    const host = start();
    host.send({ type: "filter", turn: 1, filters: { agentId: "bot" }, step: true });
    host.send({ type: "filter", turn: 2, filters: { agentId: "bot", search: "x" }, step: false });
    host.send({ type: "filter", turn: 3, filters: { agentId: "bot", search: "x" }, step: true });
    host.send({ type: "filter", turn: 4, filters: {}, step: true });
    expect(browser.steps).toEqual(["push /?agentId=bot", "replace /?agentId=bot&search=x", "push /"]);
  });

  it("tells the widget when the reader goes back", () => {
    start();
    browser.location.search = "?timeframe=month";
    browser.goBack();
    expect(heard.at(-1)).toEqual({ type: "filter", filters: { timeframe: "month" } });
  });
});

describe("an export", () => {
  it("is the file that the server makes of the place and the days that are looked at", async () => {
    browser.token = "obs_1";
    const host = start();
    await settled();
    browser.answer = () => ({
      body: "day,cost\r\na,1\r\n",
      headers: { "Content-Type": "text/csv", "Content-Disposition": 'attachment; filename="usage.csv"', "X-Total-Rows": "1234" },
    });
    host.send({ type: "request", action: "export", turn: 8, params: { filters: { agentId: "bot", level: "model" }, format: "csv" } });
    await settled();
    expect(browser.asked.at(-1)).toMatchObject({
      path: "/api/dashboard_export_data/file",
      body: { format: "csv", timeframe: "week", agentId: "bot" },
    });
    expect(browser.saved).toEqual([{ name: "usage.csv", type: "text/csv", text: "day,cost\r\na,1\r\n" }]);
    expect(payloads().at(-1)?.done).toBe("Saved 1,234 rows as usage.csv.");
  });

  it("that may not be made says why", async () => {
    browser.token = "obs_1";
    const host = start();
    await settled();
    browser.answer = () => ({ status: 403, body: { error: "This needs the role analyst." } });
    host.send({ type: "request", action: "export", turn: 8, params: { filters: {}, format: "csv" } });
    await settled();
    expect(payloads().at(-1)).toEqual({ refused: "This needs the role analyst." });
    expect(browser.saved).toEqual([]);
  });
});

describe("views", () => {
  it("are saved under their name, whatever is in it, and read again", async () => {
    browser.token = "obs_1";
    const host = start();
    await settled();
    browser.answer = () => ({ body: { views: [{ name: "a/b", owner: "ann", content: {} }] } });
    host.send({ type: "request", action: "save-view", turn: 9, params: { name: "a/b?", filters: { agentId: "x" } } });
    await settled();
    expect(browser.asked.slice(-2).map((one) => one.path)).toEqual(["/api/views/a%2Fb%3F", "/api/views"]);
    expect(payloads().at(-1)).toMatchObject({ views: [{ name: "a/b" }], done: "Saved the view “a/b?”." });
  });

  const asked = () => browser.asked.map((one) => `${one.method} ${one.path}`);

  it("get another name by being kept under it first, with all that is in them", async () => {
    browser.token = "obs_1";
    const host = start();
    await settled();
    browser.answer = () => ({ body: { views: [{ name: "old", owner: "ann", content: {} }] } });
    const content = { agentId: "x", of_a_later_page: 7 };
    host.send({ type: "request", action: "rename-view", turn: 9, params: { name: "old", to: "new/1", content } });
    await settled();
    expect(asked().slice(-4)).toEqual(["GET /api/views", "PUT /api/views/new%2F1", "DELETE /api/views/old", "GET /api/views"]);
    expect(browser.asked.find((one) => one.method === "PUT")?.body).toEqual(content);
    expect(payloads().at(-1)).toMatchObject({ done: "“old” is called “new/1” now." });
  });

  it("do not take the name of another", async () => {
    browser.token = "obs_1";
    const host = start();
    await settled();
    browser.answer = () => ({ body: { views: [{ name: "old", owner: "a", content: {} }, { name: "taken", owner: "a", content: {} }] } });
    host.send({ type: "request", action: "rename-view", turn: 9, params: { name: "old", to: "taken", content: {} } });
    await settled();
    expect(payloads().at(-1)).toMatchObject({ refused: "There is a view “taken” already." });
    expect(asked().some((one) => /^(PUT|DELETE)/.test(one))).toBe(false);
  });

  it("are deleted", async () => {
    browser.token = "obs_1";
    const host = start();
    await settled();
    browser.answer = () => ({ body: { views: [] } });
    host.send({ type: "request", action: "delete-view", turn: 9, params: { name: "50 %" } });
    await settled();
    expect(asked().slice(-2)).toEqual(["DELETE /api/views/50%20%25", "GET /api/views"]);
    expect(payloads().at(-1)).toMatchObject({ views: [], done: "Deleted the view “50 %”." });
  });
});

it("tells nothing more once it is left", async () => {
  browser.token = "obs_1";
  const host = new PageHost(browser);
  const leave = host.connect((message) => heard.push(message));
  await settled();
  const before = heard.length;
  host.send({ type: "request", action: "refresh", turn: 5, params: { filters: {}, parts: ["metrics"] } });
  leave();
  await settled();
  browser.goBack();
  expect(heard).toHaveLength(before);
});

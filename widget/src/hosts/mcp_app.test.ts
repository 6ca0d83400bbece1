import { beforeEach, describe, expect, it } from "vitest";

import type { Payload, ToWidget } from "../protocol";
import { initialize, McpAppHost, PROTOCOL, type Frame, type Initialized } from "./mcp_app";

interface Message {
  jsonrpc: "2.0";
  id?: number;
  method?: string;
  params?: Record<string, unknown>;
  result?: unknown;
  error?: { code: number };
}

/** A chat that shows Apps: it answers as it is told to. */
class Chat implements Frame {
  posted: Message[] = [];
  answers: Record<string, (params: Record<string, unknown>) => unknown> = {
    "ui/initialize": () => this.told,
    "tools/call": () => ({ structuredContent: { total: 2 }, _meta: { "obs-pipeline/may": ["why_notified"] } }),
  };
  told: Initialized = { hostInfo: { name: "chat" }, hostCapabilities: {}, hostContext: { theme: "dark" } };
  hear: ((message: unknown) => void) | null = null;
  height: ((height: number) => void) | null = null;

  post(message: unknown) {
    const { id, method, params } = message as Message;
    this.posted.push(message as Message);
    const answer = method === undefined ? undefined : this.answers[method];
    if (id !== undefined && answer) void Promise.resolve().then(() => this.say({ id, result: answer(params ?? {}) }));
  }
  onMessage(run: (message: unknown) => void) {
    this.hear = run;
    return () => {
      this.hear = null;
    };
  }
  onHeight(run: (height: number) => void) {
    this.height = run;
    return () => {
      this.height = null;
    };
  }
  say(message: Omit<Message, "jsonrpc">) {
    this.hear?.({ jsonrpc: "2.0", ...message });
  }
  methods() {
    return this.posted.map((one) => one.method).filter(Boolean);
  }
}

let chat: Chat;
let heard: ToWidget[];
let torn: number;

beforeEach(() => {
  chat = new Chat();
  heard = [];
  torn = 0;
});

async function start(): Promise<{ host: McpAppHost; leave: () => void }> {
  const found = await initialize(chat);
  if (!found) throw new Error("no host");
  const host = new McpAppHost(found.rpc, chat, found.told, () => {
    torn += 1;
  });
  const leave = host.connect((message) => heard.push(message));
  await settled();
  return { host, leave };
}

async function settled(): Promise<void> {
  for (let turn = 0; turn < 20; turn += 1) await new Promise((resolve) => setTimeout(resolve, 0));
}

function payloads(): Payload[] {
  return heard.flatMap((message) => (message.type === "data" ? [message.payload] : []));
}

describe("the handshake", () => {
  it("names the protocol and is finished before anything else is asked", async () => {
    await start();
    expect(chat.posted[0]).toMatchObject({ method: "ui/initialize", params: { protocolVersion: PROTOCOL } });
    expect(chat.methods().slice(0, 3)).toEqual(["ui/initialize", "ui/notifications/initialized", "tools/call"]);
  });

  it("gives up on a parent that is no host", async () => {
    chat.answers = {};
    expect(await initialize(chat, 5)).toBeNull();
    expect(chat.hear).toBeNull();
  });

  it("tells the theme and who looks: no links, no theme of our own where the chat has one", async () => {
    await start();
    expect(payloads()[0]).toEqual({ theme: "dark" });
    expect(payloads()[1]?.session).toMatchObject({ orgs: 2, may: ["why_notified"], links: false, ownTheme: false });
  });
});

it("offers to read where the chat does not pass on what may be done", async () => {
  chat.answers["tools/call"] = () => ({ structuredContent: { total: 2 } });
  await start();
  expect(payloads()[1]?.session?.may).toEqual(["dashboard_export_data", "why_notified"]);
});

describe("questions", () => {
  it("are tool calls", async () => {
    const { host } = await start();
    chat.answers["tools/call"] = (params) => ({ structuredContent: { asked: params } });
    host.send({ type: "request", action: "refresh", turn: 4, params: { filters: { agentId: "bot" }, parts: ["budgets"] } });
    await settled();
    expect(heard.at(-1)).toMatchObject({
      turn: 4,
      payload: { budgets: { asked: { name: "get_budget_status", arguments: { agentId: "bot" } } } },
    });
  });

  it("that fail say what the tool or the chat says", async () => {
    const { host } = await start();
    chat.answers["tools/call"] = () => ({ isError: true, content: [{ type: "text", text: "The lake is away." }] });
    host.send({ type: "request", action: "refresh", turn: 4, params: { filters: {}, parts: ["budgets"] } });
    await settled();
    expect(payloads().at(-1)).toEqual({ failed: { budgets: "The lake is away." } });
    chat.answers = {};
    host.send({ type: "request", action: "refresh", turn: 5, params: { filters: {}, parts: ["budgets"] } });
    const id = chat.posted.at(-1)?.id;
    chat.hear?.({ jsonrpc: "2.0", id, error: { code: -32000, message: "The user said no." } });
    await settled();
    expect(payloads().at(-1)).toEqual({ failed: { budgets: "The user said no." } });
  });
});

describe("what the chat tells", () => {
  it("of the tool's input is the filter, of its result the first data", async () => {
    chat.told.hostContext = { toolInfo: { tool: { name: "dashboard_get_metrics" } } };
    await start();
    chat.say({ method: "ui/notifications/tool-input", params: { arguments: { timeframe: "month", agentId: "bot", by: "team" } } });
    chat.say({ method: "ui/notifications/tool-result", params: { content: [], structuredContent: { calls: 7 } } });
    expect(heard.slice(-2)).toEqual([
      { type: "filter", filters: { timeframe: "month", agentId: "bot" } },
      { type: "data", turn: 0, payload: { metrics: { calls: 7 } } },
    ]);
  });

  it("of its theme is heard, and nothing else of it", async () => {
    await start();
    chat.say({ method: "ui/notifications/host-context-changed", params: { theme: "light" } });
    expect(payloads().at(-1)).toEqual({ theme: "light" });
    const before = heard.length;
    chat.say({ method: "ui/notifications/host-context-changed", params: { displayMode: "fullscreen" } });
    chat.hear?.("junk");
    chat.hear?.({ jsonrpc: "2.0", id: 999, result: {} });
    expect(heard).toHaveLength(before);
  });

  it("as a request is answered, one that is not known too", async () => {
    await start();
    chat.say({ id: 7, method: "ping", params: {} });
    chat.say({ id: 8, method: "tools/list", params: {} });
    expect(chat.posted.slice(-2)).toMatchObject([
      { id: 7, result: {} },
      { id: 8, error: { code: -32601 } },
    ]);
  });

  it("as the end is answered first and then ends the widget", async () => {
    await start();
    chat.say({ id: 9, method: "ui/resource-teardown", params: {} });
    expect(chat.posted.at(-1)).toMatchObject({ id: 9, result: {} });
    await settled();
    expect(torn).toBe(1);
  });
});

describe("what is told to the chat", () => {
  it("is how high the content is", async () => {
    await start();
    chat.height?.(900);
    expect(chat.posted.at(-1)).toEqual({ jsonrpc: "2.0", method: "ui/notifications/size-changed", params: { height: 900 } });
  });

  it("is a file to save, where it can", async () => {
    chat.told.hostCapabilities = { downloadFile: {} };
    chat.answers["ui/download-file"] = () => ({});
    const { host } = await start();
    const page = { content: "a\r\n1\r\n", next_cursor: null, format: "csv", media_type: "text/csv", total: 1, first_day: "d", last_day: "e" };
    chat.answers["tools/call"] = () => ({ structuredContent: page });
    host.send({ type: "request", action: "export", turn: 4, params: { filters: {}, format: "csv" } });
    await settled();
    expect(chat.posted.at(-1)).toMatchObject({
      method: "ui/download-file",
      params: { contents: [{ type: "resource", resource: { mimeType: "text/csv", text: "a\r\n1\r\n" } }] },
    });
    chat.answers["ui/download-file"] = () => ({ isError: true });
    host.send({ type: "request", action: "export", turn: 5, params: { filters: {}, format: "csv" } });
    await settled();
    expect(payloads().at(-1)?.refused).toContain("did not save");
  });
});

it("refuses what needs an address, and leaves nothing behind", async () => {
  const { host, leave } = await start();
  host.send({ type: "request", action: "views", turn: 6 });
  expect(payloads().at(-1)?.refused).toContain("chat");
  leave();
  expect(chat.hear).toBeNull();
  expect(chat.height).toBeNull();
});

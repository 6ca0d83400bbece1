/**
 * The host that is a chat client: the widget is an MCP App in its frame, and every question a tool call through it. JSON-RPC 2.0
 * by `postMessage`, as the Apps extension of 2026-01-26 says.
 */

import type { Page } from "../answers";
import type { FromWidget, Host, Part, Payload, Session, ToWidget } from "../protocol";
import { tidy } from "../state";
import { answer, exportName, label, ORGANISATIONS, reason, Refusal, wholeExport, type Carrier } from "./answering";
import { save } from "./page";

export const PROTOCOL = "2026-01-26";

/** The frame's ends: what comes in from the parent, what goes out to it, and how high the content is. */
export interface Frame {
  post(message: unknown): void;
  onMessage(run: (message: unknown) => void): () => void;
  onHeight(run: (height: number) => void): () => void;
}

/** Beside every answer of the server: what its caller may ask and do. */
const MAY = "obs-pipeline/may";

/** What is offered where a chat does not pass that on: a question that may not be asked is refused with its reason. */
const READING = ["dashboard_export_data", "why_notified"];

interface HostContext {
  theme?: "dark" | "light";
  toolInfo?: { tool?: { name?: string } };
}

export interface Initialized {
  hostInfo?: { name?: string };
  hostCapabilities?: { downloadFile?: object; serverTools?: object };
  hostContext?: HostContext;
}

interface ToolResult {
  isError?: boolean;
  content?: { type: string; text?: string }[];
  structuredContent?: unknown;
  _meta?: { [MAY]?: string[] };
}

const ANSWERED_BY: Record<string, Part> = {
  dashboard_get_metrics: "metrics",
  dashboard_get_trends: "trends",
  dashboard_get_anomalies: "anomalies",
  get_budget_status: "budgets",
  list_incidents: "incidents",
  list_entities: "entities",
};

/** Requests out, answers and requests in. */
export class Rpc {
  private next = 1;
  private readonly open = new Map<number, { resolve(result: unknown): void; reject(error: Error): void }>();
  private handle: (method: string, params: Record<string, unknown>) => unknown = () => undefined;
  private readonly end: () => void;

  constructor(private readonly frame: Frame) {
    this.end = frame.onMessage((message) => this.take(message));
  }

  request(method: string, params: object): Promise<unknown> {
    const id = this.next++;
    return new Promise((resolve, reject) => {
      this.open.set(id, { resolve, reject });
      this.frame.post({ jsonrpc: "2.0", id, method, params });
    });
  }

  notify(method: string, params: object = {}): void {
    this.frame.post({ jsonrpc: "2.0", method, params });
  }

  /** What the host asks or tells goes here; undefined means that the method is not known. */
  serve(handle: (method: string, params: Record<string, unknown>) => unknown): void {
    this.handle = handle;
  }

  close(): void {
    this.end();
    for (const waiting of this.open.values()) waiting.reject(new Refusal("The chat closed the dashboard."));
    this.open.clear();
  }

  private take(message: unknown): void {
    if (typeof message !== "object" || message === null || !("jsonrpc" in message)) return;
    const { id, method, params, result, error } = message as {
      id?: number; method?: string; params?: Record<string, unknown>; result?: unknown; error?: { message?: string };
    };
    if (method === undefined) {
      const waiting = id === undefined ? undefined : this.open.get(id);
      if (id === undefined || !waiting) return;
      this.open.delete(id);
      if (error) waiting.reject(new Refusal(error.message ?? "The chat refused without a reason."));
      else waiting.resolve(result);
      return;
    }
    const answered = this.handle(method, params ?? {});
    if (id === undefined) return;
    if (answered === undefined) {
      this.frame.post({ jsonrpc: "2.0", id, error: { code: -32601, message: `There is no ${method} here.` } });
    } else this.frame.post({ jsonrpc: "2.0", id, result: answered });
  }
}

/** Ask the parent whether it is a host of Apps; null when it does not answer in time. */
export async function initialize(frame: Frame, patience = 2000): Promise<{ rpc: Rpc; told: Initialized } | null> {
  const rpc = new Rpc(frame);
  const asked = rpc.request("ui/initialize", {
    protocolVersion: PROTOCOL,
    appInfo: { name: "cost-dashboard", title: "Cost dashboard", version: "0.1.0" },
    appCapabilities: {},
  });
  const late = new Promise<null>((resolve) => setTimeout(() => resolve(null), patience));
  const told = await Promise.race([asked.catch(() => null), late]);
  if (told === null) {
    asked.catch(() => undefined);
    rpc.close();
    return null;
  }
  return { rpc, told: told as Initialized };
}

export class McpAppHost implements Host, Carrier {
  readonly rows = { list: 100, few: 50, export: 200 };
  readonly known: Carrier["known"] = new Map();
  private hear: (message: ToWidget) => void = () => {};
  private orgs = 1;
  private tool: string | undefined;

  constructor(
    private readonly rpc: Rpc,
    private readonly frame: Frame,
    private readonly told: Initialized,
    private readonly onTeardown: () => void,
  ) {
    this.tool = told.hostContext?.toolInfo?.tool?.name;
  }

  connect(hear: (message: ToWidget) => void): () => void {
    this.hear = hear;
    this.rpc.serve((method, params) => this.serve(method, params));
    const end = this.frame.onHeight((height) => this.rpc.notify("ui/notifications/size-changed", { height }));
    this.theme(this.told.hostContext);
    this.rpc.notify("ui/notifications/initialized");
    void this.begin();
    return () => {
      end();
      this.hear = () => {};
      this.rpc.close();
    };
  }

  send(message: FromWidget): void {
    // There is no address in a chat: a filter that changed is told by the refresh that follows it.
    if (message.type === "filter") return;
    const { turn } = message;
    switch (message.action) {
      case "refresh":
        void answer(this, message.params, this.orgs, (payload) => this.tell(turn, payload));
        return;
      case "export":
        void this.deed(turn, async () => {
          const exported = await wholeExport(this, message.params.filters, message.params.format);
          await this.download(exportName(exported), exported.media_type, exported.content);
          return { done: `${exported.total.toLocaleString("en-US")} rows went to ${exportName(exported)}.` };
        });
        return;
      case "acknowledge":
        void this.deed(turn, async () => {
          await this.ask("acknowledge_incident", { incidentId: message.params.incident });
          return { done: "Acknowledged." };
        });
        return;
      case "label":
        void this.deed(turn, () => label(this, message.params.anomaly, message.params.verdict));
        return;
      default:
        this.tell(turn, { refused: "This cannot be done inside a chat." });
    }
  }

  async ask<T>(name: string, inputs: Record<string, unknown>): Promise<T> {
    return (await this.call(name, inputs)).structuredContent as T;
  }

  private async call(name: string, inputs: Record<string, unknown>): Promise<ToolResult> {
    const result = (await this.rpc.request("tools/call", { name, arguments: inputs })) as ToolResult;
    if (result.isError || result.structuredContent === undefined) {
      throw new Refusal(result.content?.find((one) => one.text)?.text ?? `${name} gave no answer.`);
    }
    return result;
  }

  private async begin(): Promise<void> {
    let may = READING;
    try {
      const found = await this.call(ORGANISATIONS.name, ORGANISATIONS.inputs);
      this.orgs = (found.structuredContent as Page).total;
      may = found._meta?.[MAY] ?? READING;
    } catch {
      // The parts say themselves why they cannot be shown.
    }
    const caller = { name: this.told.hostInfo?.name ?? "chat", role: "viewer" as const, org: null, projects: [] };
    const session: Session = { caller, may, orgs: this.orgs, links: false, ownTheme: !this.told.hostContext?.theme };
    this.tell(0, { session });
  }

  private serve(method: string, params: Record<string, unknown>): unknown {
    switch (method) {
      case "ui/notifications/tool-input":
        this.hear({ type: "filter", filters: tidy((params.arguments as Record<string, unknown>) ?? {}) });
        return {};
      case "ui/notifications/tool-result":
        this.shown(params as ToolResult);
        return {};
      case "ui/notifications/host-context-changed":
        this.theme(params as HostContext);
        return {};
      case "ui/resource-teardown":
        // The answer goes out before the end.
        queueMicrotask(this.onTeardown);
        return {};
      case "ping":
        return {};
      default:
        return method.startsWith("ui/notifications/") || method.startsWith("notifications/") ? {} : undefined;
    }
  }

  /** What the model asked for is there before the widget's own questions are answered. */
  private shown(result: ToolResult): void {
    const part = this.tool === undefined ? undefined : ANSWERED_BY[this.tool];
    if (part && !result.isError && result.structuredContent) this.tell(0, { [part]: result.structuredContent });
  }

  private async download(name: string, type: string, text: string): Promise<void> {
    if (!this.told.hostCapabilities?.downloadFile) {
      save(name, type, text);
      return;
    }
    const contents = [{ type: "resource", resource: { uri: `file:///${name}`, mimeType: type, text } }];
    const result = (await this.rpc.request("ui/download-file", { contents })) as { isError?: boolean };
    if (result.isError) throw new Refusal("The chat did not save the file.");
  }

  private theme(context: HostContext | undefined): void {
    if (context?.theme === "dark" || context?.theme === "light") this.tell(0, { theme: context.theme });
  }

  private async deed(turn: number, act: () => Promise<Payload>): Promise<void> {
    try {
      this.tell(turn, await act());
    } catch (error) {
      this.tell(turn, { refused: reason(error) });
    }
  }

  private tell(turn: number, payload: Payload): void {
    this.hear({ type: "data", turn, payload });
  }
}

/** The frame that the document is in. */
export function thisFrame(): Frame {
  const parent = window.parent;
  return {
    // The host's origin is not known beforehand; what is posted holds no secret.
    post: (message) => parent.postMessage(message, "*"),
    onMessage(run) {
      const take = (event: MessageEvent) => {
        if (event.source === parent) run(event.data);
      };
      window.addEventListener("message", take);
      return () => window.removeEventListener("message", take);
    },
    onHeight(run) {
      const seen = new ResizeObserver(() => run(Math.ceil(document.body.getBoundingClientRect().height)));
      seen.observe(document.body);
      return () => seen.disconnect();
    },
  };
}

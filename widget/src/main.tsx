/** Where the widget is created: a host is found, the widget is bound to it, and drawn. */

import { createRoot } from "react-dom/client";

import { App } from "./App";
import { initialize, McpAppHost, thisFrame } from "./hosts/mcp_app";
import { PageHost, thisBrowser } from "./hosts/page";
import type { Host } from "./protocol";
import "./styles.css";
import { Widget, type Surroundings } from "./widget";

const surroundings: Surroundings = {
  now: () => new Date(),
  after(milliseconds, run) {
    const timer = setTimeout(run, milliseconds);
    return () => clearTimeout(timer);
  },
  hidden: () => document.hidden,
  onVisibility(run) {
    document.addEventListener("visibilitychange", run);
    return () => document.removeEventListener("visibilitychange", run);
  },
};

async function chooseHost(close: () => void): Promise<Host> {
  if (window.parent !== window) {
    const frame = thisFrame();
    const found = await initialize(frame);
    if (found) return new McpAppHost(found.rpc, frame, found.told, close);
  }
  return new PageHost(thisBrowser());
}

async function start(place: HTMLElement): Promise<void> {
  let widget: Widget | undefined;
  const host = await chooseHost(() => widget?.destroy());
  widget = new Widget(host, surroundings);
  const root = createRoot(place);
  root.render(<App widget={widget} />);
  window.addEventListener("pagehide", (event) => {
    if (!event.persisted) widget.destroy();
  });
}

const place = document.getElementById("root");
if (place) void start(place);

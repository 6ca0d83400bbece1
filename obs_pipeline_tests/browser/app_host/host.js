// A chat client as small as can be: the official AppBridge around one sandboxed frame. What the app asks for goes to `callTool`,
// which the test puts on the page; what else it says is kept in `heard`.
import { AppBridge, PostMessageTransport } from "@modelcontextprotocol/ext-apps/app-bridge";

// What the specification gives an app that asks for nothing.
const POLICY = "default-src 'none'; script-src 'self' 'unsafe-inline'; style-src 'self' 'unsafe-inline'; "
  + "img-src 'self' data:; media-src 'self' data:; connect-src 'none'";

window.heard = { calls: [], files: [], heights: [] };

window.startApp = async ({ html, theme, tool, inputs }) => {
  const frame = document.createElement("iframe");
  frame.setAttribute("sandbox", "allow-scripts");
  document.body.append(frame);
  const context = { theme, toolInfo: { tool: { name: tool, inputSchema: { type: "object" } } } };
  const bridge = new AppBridge(
    null, { name: "A chat", version: "1" }, { serverTools: {}, downloadFile: {}, logging: {} }, { hostContext: context },
  );
  bridge.oncalltool = async (params) => {
    window.heard.calls.push(params);
    return JSON.parse(await window.callTool(JSON.stringify(params)));
  };
  bridge.onsizechange = ({ height }) => {
    if (!height) return;
    window.heard.heights.push(height);
    frame.style.height = `${height}px`;
  };
  bridge.ondownloadfile = async (params) => {
    window.heard.files.push(params);
    return {};
  };
  const ready = new Promise((resolve) => { bridge.oninitialized = resolve; });
  await bridge.connect(new PostMessageTransport(frame.contentWindow, frame.contentWindow));
  frame.srcdoc = html.replace("<head>", `<head><meta http-equiv="Content-Security-Policy" content="${POLICY}">`);
  await ready;
  await bridge.sendToolInput({ arguments: inputs });
  await bridge.sendToolResult(JSON.parse(await window.callTool(JSON.stringify({ name: tool, arguments: inputs }))));
  window.bridge = bridge;
};

// Bundles host.js into one script: `node build.mjs <folder of the packages> <where vite is> <folder to write to>`.
import { fileURLToPath } from "node:url";

const [packages, vite, to] = process.argv.slice(2);
const { build } = await import(vite);
const inside = (name, path) => ({ find: name, replacement: `${packages}/${path}` });
await build({
  root: to,
  configFile: false,
  logLevel: "warn",
  resolve: { alias: [inside("@modelcontextprotocol/ext-apps/app-bridge", "@modelcontextprotocol/ext-apps/dist/src/app-bridge.js")] },
  build: {
    outDir: to,
    emptyOutDir: false,
    target: "es2022",
    rollupOptions: {
      input: fileURLToPath(new URL("host.js", import.meta.url)),
      output: { entryFileNames: "host.js", format: "iife" },
    },
  },
});

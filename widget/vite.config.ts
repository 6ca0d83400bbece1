import { readFileSync } from "node:fs";

import { defineConfig, type Plugin } from "vite";
import { viteSingleFile } from "vite-plugin-singlefile";

interface Described {
  dependencies?: Record<string, string>;
}

export default defineConfig({
  plugins: [viteSingleFile({ removeViteModuleLoader: true }), licences()],
  // `npm run dev` asks a server that runs beside it.
  server: { proxy: { "/api": { target: "http://127.0.0.1:8770", changeOrigin: true } } },
  build: {
    outDir: "../obs_pipeline/dashboard/widget",
    emptyOutDir: true,
    target: "es2022",
    reportCompressedSize: false,
  },
});

/** The licences of the packages that are in the page ask to go with every copy of it. */
function licences(): Plugin {
  return {
    name: "licences",
    apply: "build",
    transformIndexHtml: {
      order: "post",
      handler(html) {
        const texts = [...bundled("package.json")].sort().map((name) => `${name}\n\n${read(`node_modules/${name}/LICENSE`).trim()}`);
        return html.replace("<head>", () => `<!--\n${texts.join("\n\n\n").replaceAll("--", "- -")}\n-->\n  <head>`);
      },
    },
  };
}

function bundled(description: string, found = new Set<string>()): Set<string> {
  const { dependencies = {} } = JSON.parse(read(description)) as Described;
  for (const name of Object.keys(dependencies)) {
    if (!found.has(name)) bundled(`node_modules/${name}/package.json`, found.add(name));
  }
  return found;
}

function read(path: string): string {
  return readFileSync(new URL(path, import.meta.url), "utf8");
}

/** Dark or light: the host's wish, else the reader's choice, else the system's. */

import { useEffect, useState, useSyncExternalStore } from "react";

export type Theme = "dark" | "light";
export type Choice = Theme | "system";

const NAME = "obs-pipeline-theme";
const NEXT: Record<Choice, Choice> = { system: "dark", dark: "light", light: "system" };

export function useTheme(hostTheme: Theme | undefined): { theme: Theme; choice: Choice; turn(): void } {
  const [choice, choose] = useState<Choice>(kept);
  const system = useSyncExternalStore(onSystemChange, systemTheme);
  const theme = hostTheme ?? (choice === "system" ? system : choice);
  useEffect(() => {
    document.documentElement.dataset.theme = theme;
  }, [theme]);
  return {
    theme,
    choice,
    turn() {
      const next = NEXT[choice];
      choose(next);
      keep(next);
    },
  };
}

function systemTheme(): Theme {
  return window.matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light";
}

function onSystemChange(run: () => void): () => void {
  const query = window.matchMedia("(prefers-color-scheme: dark)");
  query.addEventListener("change", run);
  return () => query.removeEventListener("change", run);
}

// Inside a sandboxed frame there is no storage: the choice then lasts as long as the page.
function kept(): Choice {
  try {
    const found = window.localStorage.getItem(NAME);
    return found === "dark" || found === "light" ? found : "system";
  } catch {
    return "system";
  }
}

function keep(choice: Choice): void {
  try {
    window.localStorage.setItem(NAME, choice);
  } catch {
    // See above.
  }
}

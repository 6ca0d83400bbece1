/** Asks for the token, and says why when one was refused. */

import { useRef, useState, type FormEvent, type ReactNode } from "react";

interface Props {
  why: string;
  onToken(token: string): Promise<unknown>;
}

export function SignIn({ why, onToken }: Props): ReactNode {
  const [token, setToken] = useState("");
  const [asking, setAsking] = useState(false);
  const input = useRef<HTMLInputElement>(null);

  const submit = async (event: FormEvent) => {
    event.preventDefault();
    if (!token.trim()) return;
    setAsking(true);
    // Why it was refused comes back as the reason of the next question for a token.
    await onToken(token).catch(() => undefined);
    setAsking(false);
    input.current?.select();
  };

  return (
    <main className="sign-in">
      <form className="card" onSubmit={(event) => void submit(event)} data-testid="sign-in">
        <h1>Cost dashboard</h1>
        <p className="muted">Paste your access token to see the numbers that it opens.</p>
        <label htmlFor="token">Access token</label>
        <input
          ref={input}
          id="token"
          type="password"
          value={token}
          onChange={(event) => setToken(event.target.value)}
          placeholder="obs_…"
          autoComplete="off"
          spellCheck={false}
          autoFocus
          aria-invalid={why !== ""}
          aria-describedby="token-why token-how"
        />
        <p id="token-why" role="alert" className={why ? "refused" : "sr-only"}>{why}</p>
        <button type="submit" className="btn primary" disabled={asking || !token.trim()}>
          {asking ? "Checking…" : "Open"}
        </button>
        <p id="token-how" className="hint">
          <code>obs-pipeline tokens create NAME</code> makes one. It is kept in this tab only and forgotten when you close it.
        </p>
      </form>
    </main>
  );
}

/** The frame of every panel: heading, what stands beside it, and the states before and without an answer. No data of its own. */

import { type ReactNode, useEffect, useState } from "react";

import type { Moment } from "../answers";
import { ago, exact } from "../format";

export function Panel({ name, title, note, aside, failed, ready, children }: {
  /** Names the panel to CSS and to the heading's id. */
  name: string;
  title: string;
  /** A few words after the title: how many, since when. */
  note?: ReactNode;
  aside?: ReactNode;
  /** Why there is no newer answer. */
  failed?: string;
  /** Whether there is an answer to draw. Before the first one the panel keeps its place with a skeleton. */
  ready: boolean;
  children: ReactNode;
}) {
  const heading = `panel-${name}`;
  return (
    <section className={`panel panel-${name}`} aria-labelledby={heading} aria-busy={!ready && !failed}>
      <header className="panel-head">
        <h2 id={heading}>{title}</h2>
        {note && <span className="panel-note">{note}</span>}
        {aside && <div className="panel-aside">{aside}</div>}
      </header>
      {failed && <Failed why={failed} old={ready} />}
      {ready ? children : !failed && <Skeleton />}
    </section>
  );
}

/** Says that there is nothing, and what to do about it. */
export function Empty({ title, children }: { title: string; children?: ReactNode }) {
  return (
    <div className="empty">
      <p className="empty-title">{title}</p>
      {children && <p className="empty-what">{children}</p>}
    </div>
  );
}

/** A moment as a distance from now; the exact UTC time is its title. */
export function Ago({ time }: { time: Moment }) {
  return <time dateTime={time} title={exact(time)}>{ago(time, useNow())}</time>;
}

/** Text of any length on one line, whole in its title. */
export function Clipped({ text, className = "" }: { text: string; className?: string }) {
  return <span className={`clipped ${className}`} title={text}>{text}</span>;
}

/** A choice of few, of which one holds. */
export function Switch<Choice extends string>({ label, choices, value, onChoose }: {
  label: string;
  choices: readonly { value: Choice; text: string; unless?: string }[];
  value: Choice;
  onChoose: (value: Choice) => void;
}) {
  return (
    <div className="segmented tight" role="group" aria-label={label}>
      {choices.map((choice) => (
        <button
          key={choice.value}
          type="button"
          aria-pressed={choice.value === value}
          disabled={choice.unless !== undefined}
          title={choice.unless}
          onClick={() => onChoose(choice.value)}
        >
          {choice.text}
        </button>
      ))}
    </div>
  );
}

/** The clock, in milliseconds, looked at again every half minute. */
export function useNow(): number {
  const [now, setNow] = useState(() => Date.now());
  useEffect(() => {
    const timer = setInterval(() => setNow(Date.now()), 30_000);
    return () => clearInterval(timer);
  }, []);
  return now;
}

function Failed({ why, old }: { why: string; old: boolean }) {
  return (
    <div className="failed" role="status">
      <p><strong>{old ? "These are the last numbers; newer ones failed." : "This could not be loaded."}</strong> {why}</p>
      <p className="muted">It is tried again by itself.</p>
    </div>
  );
}

function Skeleton() {
  return (
    <div className="skeleton" role="status">
      <span className="visually-hidden">Loading</span>
      <span className="bone wide" /><span className="bone" /><span className="bone" /><span className="bone short" />
    </div>
  );
}

/** Which days are looked at: how many, and back and forth in time from the newest. */

import { useState, type FormEvent, type ReactNode } from "react";

import type { Metrics, Timeframe } from "../answers";
import { dayOf, isDay, LENGTH, stepped } from "../days";
import { counted, days } from "../format";
import type { View } from "../state";
import { Icon } from "./icons";
import { Menu } from "./Menu";

const TIMEFRAMES: { value: Timeframe; text: string; tip: string }[] = [
  { value: "day", text: "Day", tip: "One day" },
  { value: "week", text: "Week", tip: "7 days" },
  { value: "month", text: "Month", tip: "30 days" },
];

interface Props {
  view: View;
  shown: Metrics | undefined;
  change(to: Partial<View>): void;
}

export function Period({ view, shown, change }: Props): ReactNode {
  const newest = useNewest(view, shown);
  const end = view.end ?? newest;
  const step = (way: -1 | 1) => end && newest && change({ end: stepped(end, view.timeframe, way, newest) });
  const length = counted(LENGTH[view.timeframe], "day");
  return (
    <div className="time">
      <div className="segmented" role="group" aria-label="Timeframe">
        {TIMEFRAMES.map(({ value, text, tip }) => (
          <button
            key={value}
            type="button"
            aria-pressed={view.timeframe === value}
            title={tip}
            onClick={() => change({ timeframe: value })}
          >
            {text}
          </button>
        ))}
      </div>
      <div className="walk" role="group" aria-label="Days looked at">
        <button type="button" className="btn quiet square" aria-label="Earlier" title={`${length} earlier`} onClick={() => step(-1)}>
          <Icon name="back" />
        </button>
        <Menu
          label={shown ? `${days(shown.first_day, shown.last_day)} UTC. Choose other days` : "Choose the days"}
          icon="calendar"
          testId="period"
          side="start"
          face={<span className="range num" data-testid="range">{shown && <>{days(shown.first_day, shown.last_day)}<small> UTC</small></>}</span>}
        >
          {(close) => (
            <Choose
              end={end ?? ""}
              newest={newest}
              length={length}
              onChoose={(day) => {
                change({ end: day });
                close();
              }}
            />
          )}
        </Menu>
        <button
          type="button"
          className="btn quiet square"
          aria-label="Later"
          title={view.end ? `${length} later` : "These are the newest days"}
          disabled={!view.end}
          onClick={() => step(1)}
        >
          <Icon name="chevron" />
        </button>
        {view.end && (
          <button type="button" className="btn newest" title="Back to the newest days" onClick={() => change({ end: undefined })}>
            Newest
          </button>
        )}
      </div>
    </div>
  );
}

function Choose({ end, newest, length, onChoose }: {
  end: string;
  newest: string | undefined;
  length: string;
  onChoose(day: string | undefined): void;
}): ReactNode {
  const [day, setDay] = useState(end);
  const submit = (event: FormEvent) => {
    event.preventDefault();
    if (isDay(day)) onChoose(newest !== undefined && day >= newest ? undefined : day);
  };
  return (
    <form className="choose" onSubmit={submit}>
      <label htmlFor="last-day">Last day</label>
      <div>
        <input id="last-day" type="date" value={day} max={newest} onChange={(event) => setDay(event.target.value)} />
        <button type="submit" className="btn primary" disabled={!isDay(day)}>Show</button>
      </div>
      <p className="menu-hint">{length} are shown, up to and with it, in UTC.</p>
    </form>
  );
}

/** The last computed day, as far as it was told: by the answer about the newest days, else by the newest event. */
function useNewest(view: View, shown: Metrics | undefined): string | undefined {
  const [told, setTold] = useState<string>();
  const isNewest = view.end === undefined && shown !== undefined;
  if (isNewest && shown.last_day !== told && shown.last_day >= (told ?? "")) setTold(shown.last_day);
  return told ?? (shown?.as_of ? dayOf(shown.as_of) : shown?.last_day);
}

/** The frame's few icons, drawn on a grid of 16. */

import type { ReactNode } from "react";

const PATHS = {
  refresh: "M13.5 8a5.5 5.5 0 1 1-1.7-4M13.5 1.8v3h-3",
  sun: "M8 5.2a2.8 2.8 0 1 0 0 5.6 2.8 2.8 0 0 0 0-5.6ZM8 1v1.4M8 13.6V15M1 8h1.4M13.6 8H15M3 3l1 1M12 12l1 1M3 13l1-1M12 4l1-1",
  moon: "M13.6 9.7A6 6 0 0 1 6.3 2.4a6 6 0 1 0 7.3 7.3Z",
  system: "M2 3h12v8H2zM5.5 13.5h5M8 11v2.5",
  bookmark: "M4 2h8v12l-4-3-4 3z",
  download: "M8 2v8M4.8 7 8 10.2 11.2 7M2.5 13.5h11",
  person: "M8 8.2a2.8 2.8 0 1 0 0-5.6 2.8 2.8 0 0 0 0 5.6ZM2.8 14c.5-2.6 2.6-4 5.2-4s4.7 1.4 5.2 4",
  close: "M3.5 3.5l9 9M12.5 3.5l-9 9",
  chevron: "M6 3.5 10.5 8 6 12.5",
  back: "M10 3.5 5.5 8 10 12.5",
  calendar: "M2.5 3.5h11v10h-11zM2.5 6.5h11M5.5 2v3M10.5 2v3",
  trash: "M3 4.5h10M6.5 4.5v-2h3v2M4.5 4.5l.6 9h5.8l.6-9M6.8 7v4M9.2 7v4",
  pencil: "M3 13l.7-3L10.8 3l2.2 2.2L6 12.3zM9.5 4.3l2.2 2.2",
  link: "M6.8 9.2a2.6 2.6 0 0 0 3.7 0l2.2-2.2a2.6 2.6 0 0 0-3.7-3.7l-.8.8M9.2 6.8a2.6 2.6 0 0 0-3.7 0L3.3 9a2.6 2.6 0 0 0 3.7 3.7l.8-.8",
  warning: "M8 2 14.5 13.5h-13zM8 6.5v3.2M8 11.6v.2",
  check: "M3 8.5 6.5 12 13 4.5",
} as const;

export function Icon({ name }: { name: keyof typeof PATHS }): ReactNode {
  return (
    <svg className="icon" viewBox="0 0 16 16" aria-hidden="true" focusable="false">
      <path d={PATHS[name]} />
    </svg>
  );
}

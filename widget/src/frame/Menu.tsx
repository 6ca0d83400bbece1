/** A button that opens a small panel below itself. Escape and a click beside it close it; focus returns to the button. */

import { useEffect, useId, useRef, useState, type ReactNode } from "react";

import { Icon } from "./icons";

interface Props {
  label: string;
  icon: Parameters<typeof Icon>[0]["name"];
  testId: string;
  /** What the button shows beside its icon, where that is more than its label. */
  face?: ReactNode;
  /** On which side of the button the panel begins. */
  side?: "start" | "end";
  onOpen?(): void;
  children(close: () => void): ReactNode;
}

export function Menu({ label, icon, testId, face, side = "end", onOpen, children }: Props): ReactNode {
  const [open, setOpen] = useState(false);
  const id = useId();
  const around = useRef<HTMLDivElement>(null);
  const button = useRef<HTMLButtonElement>(null);

  const close = () => {
    setOpen(false);
    button.current?.focus();
  };

  useEffect(() => {
    if (!open) return;
    const beside = (event: Event) => {
      if (!around.current?.contains(event.target as Node)) setOpen(false);
    };
    document.addEventListener("pointerdown", beside);
    document.addEventListener("focusin", beside);
    return () => {
      document.removeEventListener("pointerdown", beside);
      document.removeEventListener("focusin", beside);
    };
  }, [open]);

  return (
    <div
      className={`menu ${side}`}
      ref={around}
      onKeyDown={(event) => {
        if (event.key === "Escape" && open) {
          event.stopPropagation();
          close();
        }
      }}
    >
      <button
        ref={button}
        type="button"
        className="btn quiet"
        aria-label={label}
        aria-expanded={open}
        aria-controls={id}
        data-testid={testId}
        onClick={() => {
          if (!open) onOpen?.();
          setOpen(!open);
        }}
      >
        <Icon name={icon} />
        {face ?? <span className="btn-label">{label}</span>}
      </button>
      <div id={id} className="menu-panel" hidden={!open} role="group" aria-label={label}>
        {open && children(close)}
      </div>
    </div>
  );
}

/** Parts of a whole as one bar. What it says stands beside it in words or in a table; it is hidden from screen readers. */

export interface BarPart {
  name: string;
  value: number;
  /** The class that colours it. */
  tone: string;
}

export function StackedBar({ parts, height = 12 }: { parts: readonly BarPart[]; height?: number }) {
  const whole = parts.reduce((all, part) => all + Math.max(part.value, 0), 0);
  if (whole === 0) return <div className="bar-empty" style={{ height }} aria-hidden="true" />;
  let start = 0;
  return (
    <svg className="stacked-bar" width="100%" height={height} aria-hidden="true">
      {parts.filter((part) => part.value > 0).map((part) => {
        const [x, width] = [(start / whole) * 100, (part.value / whole) * 100];
        start += part.value;
        return (
          <rect key={part.name} className={`fill-${part.tone}`} x={`${x}%`} width={`${width}%`} height={height}>
            <title>{part.name}</title>
          </rect>
        );
      })}
    </svg>
  );
}

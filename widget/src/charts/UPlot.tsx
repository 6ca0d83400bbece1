/** uPlot as a component: made once for its options, fed with new data in place, as large as its box, destroyed when it goes. */

import "uplot/dist/uPlot.min.css";

import { useEffect, useRef } from "react";
import uPlot from "uplot";

export function UPlot({ options, data, onPlot }: {
  /** A new object makes a new plot: keep it while nothing but the data changes. */
  options: Omit<uPlot.Options, "width" | "height">;
  data: uPlot.AlignedData;
  onPlot: (plot: uPlot | null) => void;
}) {
  const box = useRef<HTMLDivElement>(null);
  const plot = useRef<uPlot>(null);
  const newest = useRef(data);
  newest.current = data;

  useEffect(() => {
    const node = box.current;
    if (!node) return;
    const size = () => ({ width: Math.max(node.clientWidth, 120), height: Math.max(node.clientHeight, 120) });
    const made = new uPlot({ ...options, ...size() }, newest.current, node);
    plot.current = made;
    onPlot(made);
    const watcher = new ResizeObserver(() => made.setSize(size()));
    watcher.observe(node);
    return () => {
      watcher.disconnect();
      onPlot(null);
      made.destroy();
      plot.current = null;
    };
  }, [options, onPlot]);

  useEffect(() => {
    if (plot.current && plot.current.data !== data) plot.current.setData(data);
  }, [data]);

  return <div ref={box} className="plot" aria-hidden="true" />;
}

/**
 * How numbers and times read. Pure: no clock, no locale of the machine, no zone but the one passed in.
 *
 * Money arrives as exact decimal text and is formatted from that text; it never passes through a float. What is shown is rounded
 * half to even, like the command line does. Floats come in only where the answer itself holds floats (anomalies, baselines).
 */

import type { Metric, Moment, Money } from "./answers";

export const NONE = "—";

const NANO_DIGITS = 9;
const NANO = 10n ** 9n;
const DECIMAL = /^([+-]?)(\d*)(?:\.(\d*))?(?:e([+-]?\d{1,3}))?$/i;

/** Exact decimal text as whole nano units; digits beyond the ninth are rounded half to even. Throws on what is no number. */
export function nano(text: string): bigint {
  const found = DECIMAL.exec(text.trim());
  const [, sign = "", whole = "", fraction = "", exponent = "0"] = found ?? [];
  if (!found || whole + fraction === "") throw new RangeError(`${JSON.stringify(text)} is no decimal number`);
  const digits = BigInt(whole + fraction);
  const shift = NANO_DIGITS - fraction.length + Number(exponent);
  const size = shift >= 0 ? digits * 10n ** BigInt(shift) : divideEven(digits, 10n ** BigInt(-shift));
  return sign === "-" ? -size : size;
}

/** Whole nano units as decimal text. */
export function fromNano(amount: bigint): Money {
  const size = amount < 0n ? -amount : amount;
  return `${amount < 0n ? "-" : ""}${size / NANO}.${String(size % NANO).padStart(NANO_DIGITS, "0")}`;
}

/** Amounts added exactly. */
export function sum(amounts: Iterable<Money>): Money {
  let total = 0n;
  for (const amount of amounts) total += nano(amount);
  return fromNano(total);
}

/** An amount shared among a count, to the nano-dollar; null for nobody. */
export function per(amount: Money, count: number): Money | null {
  return count > 0 ? fromNano(divideEven(nano(amount), BigInt(Math.trunc(count)))) : null;
}

/** `$1,234.56`. Below ten cents up to six decimals, `$0.0042`; what is less than they can show is `< $0.000001`. */
export function money(amount: Money | null | undefined): string {
  return amount == null ? NONE : amountText(nano(amount), "$");
}

/** A mean: as money, but below ten cents no further than three digits that say something, `$0.0879`. */
export function rate(amount: Money | null | undefined): string {
  if (amount == null) return NONE;
  const size = nano(amount);
  const places = String(size < 0n ? -size : size).length - 3;
  if (size >= NANO / 10n || places <= 0) return money(amount);
  const step = 10n ** BigInt(places);
  return money(fromNano(divideEven(size, step) * step));
}

/** Money in any currency, its code in front where it has no sign of its own here: `EUR 1,234.56`. */
export function moneyIn(currency: string, amount: Money | null | undefined): string {
  if (amount == null) return NONE;
  return amountText(nano(amount), currency === "USD" ? "$" : `${currency} `);
}

/** `$1,234.56` where both ends read the same, else `$1,234.56 – $1,288.00`; an unknown upper end is `$1,234.56 or more`. */
export function moneyBetween(low: Money, high: Money | null): string {
  if (high === null) return `${money(low)} or more`;
  const [from, to] = [money(low), money(high)];
  return from === to ? from : `${from} – ${to}`;
}

/** A length in pixels or percent only: floats are good enough to draw with. */
export function share(part: Money, whole: Money): number {
  const all = nano(whole);
  return all === 0n ? 0 : Number((nano(part) * 1_000_000n) / all) / 1_000_000;
}

/** `1,234,567`. */
export function count(value: number): string {
  return grouped(Math.round(value));
}

/** `999`, `12.3K`, `1.2M`, `45B`: three digits at most. */
export function short(value: number): string {
  const size = Math.abs(value);
  if (size < 1000) return String(Math.round(value * 100) / 100).replace("-", "−");
  const units = ["K", "M", "B", "T", "Q"];
  let step = Math.min(Math.floor(Math.log10(size) / 3), units.length);
  if (step < units.length && Number((size / 1000 ** step).toPrecision(3)) >= 1000) step += 1;
  const scaled = value / 1000 ** step;
  return `${shortest(scaled)}${units[step - 1]}`.replace("-", "−");
}

/** `42%`, `4.2%`, `0.42%`; less than that is `< 0.01%`. */
export function percent(part: number | null | undefined): string {
  if (part == null || !Number.isFinite(part)) return NONE;
  const hundred = part * 100;
  const size = Math.abs(hundred);
  if (size === 0) return "0%";
  if (size < 0.01) return "< 0.01%";
  const shown = hundred.toFixed(size < 1 ? 2 : size < 10 ? 1 : 0);
  return `${grouped(Number(shown), decimalsOf(Number(shown).toString()))}%`;
}

/** A change with its sign: `+12%`, `−4.0%`, `±0%`; very large ones as a factor, `34×`. */
export function change(part: number | null | undefined): string {
  if (part == null || !Number.isFinite(part)) return "no comparison";
  if (Math.abs(part) < 0.0005) return "±0%";
  if (part >= 9.995) return `${grouped(Math.round(part + 1))}×`;
  return `${part > 0 ? "+" : "−"}${percent(Math.abs(part))}`;
}

/** A value of a metric as detection gives it, a float. */
export function measured(metric: Metric | string, value: number | null | undefined): string {
  if (value == null || !Number.isFinite(value)) return NONE;
  if (metric === "cost") return money(plain(value));
  if (metric === "errors") return percent(value);
  if (metric === "latency") return duration(value);
  return value < 10_000 ? count(value) : short(value);
}

/** Milliseconds as `420 ms`, `3.2 s`, `4 min 10 s`. */
export function duration(milliseconds: number): string {
  if (milliseconds < 1000) return `${Math.round(milliseconds)} ms`;
  if (milliseconds < 60_000) return `${shortest(milliseconds / 1000)} s`;
  const seconds = Math.round(milliseconds / 1000);
  return `${Math.floor(seconds / 60)} min${seconds % 60 ? ` ${seconds % 60} s` : ""}`;
}

/** `just now`, `5 min ago`, `3 h ago`, `2 d ago`, `7 months ago`; `in 3 h` for what lies ahead. `now` in milliseconds. */
export function ago(moment: Moment, now: number): string {
  const minutes = Math.round((now - Date.parse(moment)) / 60_000);
  const size = Math.abs(minutes);
  if (size < 1) return "just now";
  const [value, unit] =
    size < 60 ? [size, "min"]
    : size < 36 * 60 ? [Math.round(size / 60), "h"]
    : size < 60 * 1440 ? [Math.round(size / 1440), "d"]
    : size < 730 * 1440 ? [Math.round(size / 43_830), "months"]
    : [Math.round(size / 525_960), "years"];
  return minutes > 0 ? `${value} ${unit} ago` : `in ${value} ${unit}`;
}

/** `2026-04-25 13:00:00 UTC`: what a title says where a relative time is shown. */
export function exact(moment: Moment): string {
  return `${new Date(moment).toISOString().slice(0, 19).replace("T", " ")} UTC`;
}

/** `25 Apr 2026, 13:00`, in an IANA zone. */
export function when(moment: Moment | number, zone: string): string {
  return `${day(moment, zone)}, ${clock(moment, zone)}`;
}

/** `25 Apr 2026`, in an IANA zone. */
export function day(moment: Moment | number, zone: string): string {
  return parts(moment, zone, { day: "numeric", month: "short", year: "numeric" });
}

/** `25 Apr`, in an IANA zone. */
export function shortDay(moment: Moment | number, zone: string): string {
  return parts(moment, zone, { day: "numeric", month: "short" });
}

/** `13:00`, in an IANA zone. */
export function clock(moment: Moment | number, zone: string): string {
  return parts(moment, zone, { hour: "2-digit", minute: "2-digit", hourCycle: "h23" });
}

/** `19 – 25 Apr 2026` for two UTC days (`2026-04-19`, `2026-04-25`), without what both have in common. */
export function days(first: string, last: string): string {
  const to = day(last, "UTC");
  if (first === last) return to;
  const [year, month] = [first.slice(0, 4) === last.slice(0, 4), first.slice(0, 7) === last.slice(0, 7)];
  const from = month ? String(Number(first.slice(8))) : year ? shortDay(first, "UTC") : day(first, "UTC");
  return `${from} – ${to}`;
}

/** `1 call`, `2 calls`. */
export function counted(value: number, one: string, many = `${one}s`): string {
  return `${count(value)} ${value === 1 ? one : many}`;
}

function amountText(amount: bigint, sign: string): string {
  const size = amount < 0n ? -amount : amount;
  const minus = amount < 0n ? "−" : "";
  if (size === 0n || size >= NANO / 10n) return `${minus}${sign}${fixed(size, 2)}`;
  if (size < 500n) return `${minus}< ${sign}0.000001`;
  const shown = fixed(size, 6).replace(/0+$/, "");
  return `${minus}${sign}${shown.padEnd(4, "0")}`;
}

function fixed(size: bigint, decimals: number): string {
  const scaled = divideEven(size, 10n ** BigInt(NANO_DIGITS - decimals));
  const unit = 10n ** BigInt(decimals);
  return `${grouped(scaled / unit)}.${String(scaled % unit).padStart(decimals, "0")}`;
}

function divideEven(value: bigint, by: bigint): bigint {
  const size = value < 0n ? -value : value;
  const whole = size / by;
  const twice = (size % by) * 2n;
  const rounded = twice > by || (twice === by && whole % 2n === 1n) ? whole + 1n : whole;
  return value < 0n ? -rounded : rounded;
}

function grouped(value: bigint | number, decimals = 0): string {
  const text = typeof value === "bigint" ? value.toString() : value.toFixed(decimals);
  const [whole = "", fraction] = text.split(".");
  const spaced = whole.replace(/\B(?=(\d{3})+$)/g, ",").replace("-", "−");
  return fraction ? `${spaced}.${fraction}` : spaced;
}

function shortest(value: number): string {
  return String(Number(value.toPrecision(Math.abs(value) >= 100 ? 3 : 2 + Number(Math.abs(value) >= 10))));
}

function decimalsOf(text: string): number {
  return text.split(".")[1]?.length ?? 0;
}

/** A float without exponent, to nine decimals. */
function plain(value: number): Money {
  return Math.abs(value) < 1e21 ? value.toFixed(NANO_DIGITS) : BigInt(Math.trunc(value)).toString();
}

const formats = new Map<string, Intl.DateTimeFormat>();

function parts(moment: Moment | number, zone: string, wanted: Intl.DateTimeFormatOptions): string {
  const key = `${zone}|${JSON.stringify(wanted)}`;
  let format = formats.get(key);
  if (!format) formats.set(key, (format = new Intl.DateTimeFormat("en-GB", { ...wanted, timeZone: zone })));
  return format.format(new Date(moment));
}

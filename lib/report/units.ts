/** Figures as people read them: thousands separated, with a unit, and a dash for what was not measured. */

export const NONE = '–';
/** Between a figure and its unit: no break. */
const GAP = '\u00a0';

type Measured = number | null | undefined;

const usable = (value: Measured): value is number => typeof value === 'number' && Number.isFinite(value);

/** A number of things. */
export function count(value: Measured): string {
  return usable(value) ? Math.round(value).toLocaleString('en-US') : NONE;
}

/** `3 rounds`, `1 round`. */
export function plural(value: number, thing: string): string {
  return `${count(value)} ${thing}${value === 1 ? '' : 's'}`;
}

/** Three digits that say something, never an exponent. */
function significant(value: number): string {
  const size = Math.abs(value);
  const digits = size >= 100 || size === 0 ? 0 : size >= 10 ? 1 : size >= 0.1 ? 2 : 3;
  return value.toLocaleString('en-US', { minimumFractionDigits: digits, maximumFractionDigits: digits });
}

function scaled(value: Measured, step: number, units: readonly string[]): string {
  if (!usable(value)) return NONE;
  let at = 0;
  let left = value;
  while (Math.abs(left) >= step && at < units.length - 1) {
    left /= step;
    at++;
  }
  return `${at === 0 ? count(left) : significant(left)}${GAP}${units[at]}`;
}

export function bytes(value: Measured): string {
  return scaled(value, 1024, ['bytes', 'KiB', 'MiB', 'GiB', 'TiB', 'PiB']);
}

export function bytesPerSecond(value: Measured): string {
  return scaled(value, 1000, ['B/s', 'kB/s', 'MB/s', 'GB/s', 'TB/s']);
}

export function pagesPerSecond(value: Measured): string {
  return usable(value) ? `${count(value)}${GAP}pages/s` : NONE;
}

/** A length of time given in milliseconds. */
export function duration(ms: Measured): string {
  if (!usable(ms)) return NONE;
  if (Math.abs(ms) < 1000) return `${significant(ms)}${GAP}ms`;
  const seconds = ms / 1000;
  if (Math.abs(seconds) < 120) return `${significant(seconds)}${GAP}s`;
  const minutes = Math.floor(seconds / 60);
  return minutes < 120
    ? `${minutes}${GAP}min ${Math.floor(seconds % 60)}${GAP}s`
    : `${count(Math.floor(minutes / 60))}${GAP}h ${minutes % 60}${GAP}min`;
}

export function share(part: Measured, whole: Measured): string {
  if (!usable(part) || !usable(whole) || whole === 0) return NONE;
  return `${significant((part / whole) * 100)}${GAP}%`;
}

export function address(value: Measured): string {
  return usable(value) && value >= 0 ? `0x${Math.floor(value).toString(16)}` : NONE;
}

/** An ISO time as UTC to the second; what is no time stays as it is. */
export function moment(iso: string): string {
  const at = new Date(iso);
  return Number.isNaN(at.getTime()) ? iso : `${at.toISOString().slice(0, 19).replace('T', ' ')} UTC`;
}

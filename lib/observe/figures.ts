/** Figures as words for people: the same in progress, reasons and reports. */

/** 12,400 */
export const grouped = (count: number): string => Math.round(count).toLocaleString('en-US');

/** One and several: `1 page`, `12,400 pages`. */
export const pagesText = (pages: number): string => `${grouped(pages)} ${Math.round(pages) === 1 ? 'page' : 'pages'}`;

/** Bytes a second as megabytes a second: `31.2 MB/s`. */
export const rateText = (bytesPerSecond: number): string => `${megabytes(bytesPerSecond)} MB/s`;

/** Bytes as megabytes: `31.2 MB`. */
export const bytesText = (bytes: number): string => `${megabytes(bytes)} MB`;

/** 92 % */
export const shareText = (part: number, whole: number): string =>
  `${whole === 0 ? 0 : Math.round((100 * part) / whole)} %`;

/** Milliseconds, with a decimal where it says something. */
export function msText(ms: number): string {
  if (!Number.isFinite(ms)) return 'an unknown time';
  return `${ms < 100 ? Number(ms.toFixed(1)) : grouped(ms)} ms`;
}

function megabytes(bytes: number): string {
  const digits = Math.abs(bytes) < 100_000 ? 3 : 1;
  return (bytes / 1e6).toLocaleString('en-US', { minimumFractionDigits: digits, maximumFractionDigits: digits });
}

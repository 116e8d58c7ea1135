/** Order statistics of a handful of measurements, by linear interpolation between the two nearest. */

/** Throws RangeError on an empty list. */
export function quantile(values: readonly number[], fraction: number): number {
  if (values.length === 0) throw new RangeError('no values');
  const sorted = [...values].sort((a, b) => a - b);
  const at = fraction * (sorted.length - 1);
  const below = Math.floor(at);
  const low = sorted[below]!;
  return low + (sorted[Math.min(below + 1, sorted.length - 1)]! - low) * (at - below);
}

export function median(values: readonly number[]): number {
  return quantile(values, 0.5);
}

/** From the first quartile to the third. */
export function interquartileRange(values: readonly number[]): number {
  return quantile(values, 0.75) - quantile(values, 0.25);
}

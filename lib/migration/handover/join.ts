/**
 * The join of one stream of frames that reached both taps. The source's tap had `before` and, after the cut, `after`; the destination's tap was
 * opened while `before` came in and had `kept`. The guest is given `before` and then what of `kept` comes behind it, so the question is how many
 * of the first kept frames are the last of `before`: a number for which everything beyond agrees with `after`, as far as both go.
 */

export interface Join {
  /** How many of the first kept frames the source's tap had before the cut. */
  readonly matched: number;
  /**
   * Another number fits too, and the frames by which they differ are of contents that came more than once: they may be the ones or the others.
   * Or what is taken for new came before, and nothing else shows where the two taps meet. A content seen once is taken for unique.
   */
  readonly ambiguous: boolean;
  /** No number fits: the taps did not see the same frames in the same order, and frames were told apart by content alone. */
  readonly disagrees: boolean;
  /** By kept frame: whether the source's tap had it before the cut. */
  readonly isMatched: (index: number) => boolean;
}

/** The first `certain` of `after` are known to have reached the destination's tap before it was read last. */
export function join(
  before: readonly bigint[],
  after: readonly bigint[],
  kept: readonly bigint[],
  certain = after.length,
): Join {
  const fitting = overlaps(before, kept).filter((length) => agrees(kept, length, after));
  const [largest] = fitting;
  if (largest === undefined) return byContent(before, kept);
  const covering = fitting.findIndex((length) => kept.length - length >= certain);
  const chosen = Math.max(0, covering);
  const matched = fitting[chosen]!;
  const fresh = kept.slice(matched);
  const repeats = repeatedOf(before, fresh.length > after.length ? fresh : after);
  // The others lie beyond the neighbours: where those are out of the question, they are too.
  const otherwise = [fitting[chosen - 1], fitting[chosen + 1]].some(
    (other) => other !== undefined && kept.slice(Math.min(matched, other), Math.max(matched, other)).every(repeats),
  );
  const shown = fitting.length === 1 && matched > 0 && after.length > 0;
  const ambiguous = !shown && (otherwise || comesAgain(before, fresh));
  return { matched, ambiguous, disagrees: false, isMatched: (index) => index < matched };
}

/** Whether a frame that is taken for a new one looks like one before: it repeats, or the taps differ in order. */
function comesAgain(before: readonly bigint[], fresh: readonly bigint[]): boolean {
  const known = new Set(before);
  return fresh.some((digest) => known.has(digest));
}

/** Which contents came more than once. */
function repeatedOf(...lists: readonly (readonly bigint[])[]): (digest: bigint) => boolean {
  const seen = new Set<bigint>();
  const repeated = new Set<bigint>();
  for (const digest of lists.flat()) {
    if (seen.has(digest)) repeated.add(digest);
    else seen.add(digest);
  }
  return (digest) => repeated.has(digest);
}

/** Every length, largest first, for which the end of `before` is the beginning of `kept`; 0 is always one. Linear time. */
function overlaps(before: readonly bigint[], kept: readonly bigint[]): number[] {
  const borders = borderLengths(kept);
  let length = 0;
  for (const digest of before) {
    while (length > 0 && (length === kept.length || kept[length] !== digest)) length = borders[length - 1]!;
    if (length < kept.length && kept[length] === digest) length++;
  }
  const found: number[] = [];
  for (; length > 0; length = borders[length - 1]!) found.push(length);
  return [...found, 0];
}

/** For each prefix the longest proper prefix of it that is its end too. */
function borderLengths(list: readonly bigint[]): number[] {
  const borders = new Array<number>(list.length).fill(0);
  for (let at = 1, length = 0; at < list.length; at++) {
    while (length > 0 && list[at] !== list[length]) length = borders[length - 1]!;
    if (list[at] === list[length]) length++;
    borders[at] = length;
  }
  return borders;
}

function agrees(kept: readonly bigint[], from: number, after: readonly bigint[]): boolean {
  const length = Math.min(kept.length - from, after.length);
  for (let at = 0; at < length; at++) if (kept[from + at] !== after[at]) return false;
  return true;
}

function byContent(before: readonly bigint[], kept: readonly bigint[]): Join {
  const left = new Map<bigint, number>();
  for (const digest of before) left.set(digest, (left.get(digest) ?? 0) + 1);
  const matches = kept.map((digest) => {
    const count = left.get(digest) ?? 0;
    if (count > 0) left.set(digest, count - 1);
    return count > 0;
  });
  return {
    matched: matches.filter((matched) => matched).length,
    ambiguous: false,
    disagrees: true,
    isMatched: (index) => matches[index]!,
  };
}

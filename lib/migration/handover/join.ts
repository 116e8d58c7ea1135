/**
 * The join of one stream of frames that reached both taps. The source's tap had `before` and, after the cut, `after`; the destination's tap was
 * opened while `before` came in and had `kept`. The guest is given `before` and then what of `kept` comes behind it, so the question is how many
 * of the first kept frames are the last of `before`: a number for which everything beyond agrees with `after`, as far as both go.
 */

export interface Join {
  /** How many of the first kept frames the source's tap had before the cut. */
  readonly matched: number;
  /** Several numbers fit, and contents repeat so that it matters which is taken; the largest was. */
  readonly ambiguous: boolean;
  /** No number fits: the taps did not see the same frames in the same order, and frames were told apart by content alone. */
  readonly disagrees: boolean;
  /** By kept frame: whether the source's tap had it before the cut. */
  readonly isMatched: (index: number) => boolean;
}

export function join(before: readonly bigint[], after: readonly bigint[], kept: readonly bigint[]): Join {
  const fitting = overlaps(before, kept).filter((length) => agrees(kept, length, after));
  const [largest] = fitting;
  if (largest === undefined) return byContent(before, kept);
  const repeats = (): boolean => {
    const contents = [...before.slice(before.length - largest), ...kept.slice(largest), ...after.slice(0, kept.length)];
    return hasRepeated(before.slice(-kept.length)) || hasRepeated(kept) || contents.length === 0;
  };
  return {
    matched: largest,
    ambiguous: fitting.length > 1 && repeats(),
    disagrees: false,
    isMatched: (index) => index < largest,
  };
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

function hasRepeated(list: readonly bigint[]): boolean {
  return new Set(list).size !== list.length;
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

/** A token bucket in the boot block: how many frames of the pair's flow are due. */
import { type BootBlock, Field } from './boot-block';

const MICROS = 1e6;

export class Pace {
  readonly #block: BootBlock;
  readonly #fields: Float64Array;

  constructor(block: BootBlock) {
    this.#block = block;
    this.#fields = block.fields;
  }

  /** Frames due now, `most` at most. Writes nothing while none is. */
  due(nowMicros: number, most: number): number {
    const fields = this.#fields;
    const refilled = fields[Field.REFILLED]!;
    // Begins now; and again on a host whose clock stands elsewhere.
    if (refilled < 0 || nowMicros < refilled) {
      fields[Field.REFILLED] = nowMicros;
      this.#block.mark();
      return 0;
    }
    const tokens = this.#tokens(nowMicros);
    if (tokens < 1) return 0;
    fields[Field.TOKENS] = tokens;
    fields[Field.REFILLED] = nowMicros;
    this.#block.mark();
    const limit = fields[Field.LIMIT]!;
    const left = limit === 0 ? most : Math.min(most, limit - fields[Field.SEQUENCE]!);
    return Math.min(left, Math.floor(tokens));
  }

  /** Takes what was sent out of the bucket. */
  spend(frames: number): void {
    this.#fields[Field.TOKENS]! -= frames;
    this.#block.mark();
  }

  /** Microseconds until a frame is due. */
  dueIn(nowMicros: number): number {
    const fields = this.#fields;
    const rate = fields[Field.RATE]!;
    const limit = fields[Field.LIMIT]!;
    if (rate === 0 || (limit !== 0 && fields[Field.SEQUENCE]! >= limit)) return Number.POSITIVE_INFINITY;
    if (fields[Field.REFILLED]! < 0) return 0;
    return Math.max(0, ((1 - this.#tokens(nowMicros)) * MICROS) / rate);
  }

  #tokens(nowMicros: number): number {
    const fields = this.#fields;
    const elapsed = Math.max(0, nowMicros - fields[Field.REFILLED]!);
    return Math.min(fields[Field.BURST]!, fields[Field.TOKENS]! + (elapsed * fields[Field.RATE]!) / MICROS);
  }
}

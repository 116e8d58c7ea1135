/** Frames that reached a tap although they were not for the guest alone, by stream, in the order in which the tap's queue had them. */
import { ProtocolError } from '../../errors';

/** u32 0 for frames before the cut, 1 for those after it, 2 for those that the destination's tap may not have had yet; u32 zero. */
const HEADER_SIZE = 8;
/** u64 stream, u64 digest. */
const ENTRY_SIZE = 16;
const SIDES = ['before', 'after', 'late'] as const;
/** Entries after which they are sent: far below what a frame of the migration's may hold. */
const FULL = 65_536;
/** Of the cut. */
export type CutSide = (typeof SIDES)[number];

export class GroupRecord {
  readonly #streams = new Map<bigint, bigint[]>();
  #length = 0;

  /** Frames of all streams. */
  get length(): number {
    return this.#length;
  }

  get streams(): Iterable<bigint> {
    return this.#streams.keys();
  }

  add(stream: bigint, digest: bigint): void {
    const digests = this.#streams.get(stream);
    if (digests === undefined) this.#streams.set(stream, [digest]);
    else digests.push(digest);
    this.#length++;
  }

  /** One such frame, if there is any. */
  remove(stream: bigint, digest: bigint): void {
    const digests = this.#streams.get(stream);
    const at = digests?.indexOf(digest) ?? -1;
    if (at < 0) return;
    digests!.splice(at, 1);
    this.#length--;
  }

  of(stream: bigint): readonly bigint[] {
    return this.#streams.get(stream) ?? [];
  }
}

/** Entries as they travel. */
export class GroupEntries {
  readonly #side: CutSide;
  #bytes = Buffer.alloc(HEADER_SIZE + 1024 * ENTRY_SIZE);
  #length = 0;

  constructor(side: CutSide) {
    this.#side = side;
  }

  get length(): number {
    return this.#length;
  }

  get full(): boolean {
    return this.#length >= FULL;
  }

  add(stream: bigint, digest: bigint): void {
    const at = HEADER_SIZE + this.#length * ENTRY_SIZE;
    if (at + ENTRY_SIZE > this.#bytes.length)
      this.#bytes = Buffer.concat([this.#bytes, Buffer.alloc(this.#bytes.length)]);
    this.#bytes.writeBigUInt64LE(stream, at);
    this.#bytes.writeBigUInt64LE(digest, at + 8);
    this.#length++;
  }

  /** What was added since the last time. */
  take(): Buffer {
    this.#bytes.writeUInt32LE(SIDES.indexOf(this.#side), 0);
    const taken = Buffer.from(this.#bytes.subarray(0, HEADER_SIZE + this.#length * ENTRY_SIZE));
    this.#length = 0;
    return taken;
  }
}

/** `offset` is where the payload began in the stream. */
export function decodeGroup(
  payload: Buffer,
  offset: number,
  onEntry: (side: CutSide, stream: bigint, digest: bigint) => void,
): void {
  if (payload.length < HEADER_SIZE || (payload.length - HEADER_SIZE) % ENTRY_SIZE !== 0) {
    throw new ProtocolError(
      `GROUP of ${payload.length} bytes`,
      offset,
      `${HEADER_SIZE} and a multiple of ${ENTRY_SIZE}`,
    );
  }
  const side = SIDES[payload.readUInt32LE(0)];
  if (side === undefined) throw new ProtocolError(`GROUP of kind ${payload.readUInt32LE(0)}`, offset, '0 to 2');
  for (let at = HEADER_SIZE; at < payload.length; at += ENTRY_SIZE) {
    onEntry(side, payload.readBigUInt64LE(at), payload.readBigUInt64LE(at + 8));
  }
}

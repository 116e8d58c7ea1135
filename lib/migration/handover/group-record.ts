/** Frames that reached a tap although they were not for the guest alone, by stream, in the order in which the tap's queue had them. */
import { ProtocolError } from '../../errors';

/** u64 stream, u64 digest. */
export const GROUP_ENTRY_SIZE = 16;

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

  of(stream: bigint): readonly bigint[] {
    return this.#streams.get(stream) ?? [];
  }
}

/** Entries as they travel. */
export class GroupEntries {
  #bytes = Buffer.alloc(1024 * GROUP_ENTRY_SIZE);
  #length = 0;

  get length(): number {
    return this.#length;
  }

  add(stream: bigint, digest: bigint): void {
    const at = this.#length * GROUP_ENTRY_SIZE;
    if (at === this.#bytes.length) this.#bytes = Buffer.concat([this.#bytes, Buffer.alloc(this.#bytes.length)]);
    this.#bytes.writeBigUInt64LE(stream, at);
    this.#bytes.writeBigUInt64LE(digest, at + 8);
    this.#length++;
  }

  /** What was added since the last time. */
  take(): Buffer {
    const taken = Buffer.from(this.#bytes.subarray(0, this.#length * GROUP_ENTRY_SIZE));
    this.#length = 0;
    return taken;
  }
}

/** `offset` is where the payload began in the stream. */
export function decodeGroup(payload: Buffer, offset: number, onEntry: (stream: bigint, digest: bigint) => void): void {
  if (payload.length % GROUP_ENTRY_SIZE !== 0) {
    throw new ProtocolError(`GROUP of ${payload.length} bytes`, offset, `a multiple of ${GROUP_ENTRY_SIZE}`);
  }
  for (let at = 0; at < payload.length; at += GROUP_ENTRY_SIZE) {
    onEntry(payload.readBigUInt64LE(at), payload.readBigUInt64LE(at + 8));
  }
}

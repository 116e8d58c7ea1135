/**
 * The page audit over the wire. The destination hashes every page as it arrives, which is what its guest begins with; the source hashes
 * its memory after the guest has gone, which still is what the guest left. A page that nobody logged differs. Neither costs downtime.
 *
 * AUDIT frames: one u64 little-endian hash for every page of every region, ascending, in pieces.
 */
import { check, ProtocolError } from '../errors';
import { PAGE_SIZE } from '../memory/address';
import type { GuestMemory } from '../memory/guest-memory';
import { native } from '../native';
import { differingPages, encodeHashes, MOST_NAMED } from '../observe/page-audit';
import type { Channel } from './channel';
import { FRAME_HEADER_SIZE, FrameType } from './frame';
import type { AuditResult } from './messages';

const HASH_BYTES = 8;
/** Guest memory that is hashed at a time: 1 MiB of hashes. */
const PIECE_BYTES = 512 * 1024 * 1024;
/** Bytes of one AUDIT frame at most; a larger guest has several. */
export const AUDIT_PIECE = 4 * 1024 * 1024;

/** Of pages as they arrived: PageStore fits. */
export interface PageHashes {
  /** How many there are. */
  readonly pages: number;
  hashes(first: number, count: number): BigUint64Array;
}

/** In pieces: a guest's hashes are not in memory twice. */
export async function sendHashes(channel: Channel, received: PageHashes): Promise<void> {
  const piece = AUDIT_PIECE / HASH_BYTES;
  for (let first = 0; first < received.pages; first += piece) {
    const hashes = received.hashes(first, Math.min(piece, received.pages - first));
    await channel.send(FrameType.AUDIT, encodeHashes(hashes));
  }
}

/** Hashes as they come, in whatever pieces. */
class HashReader {
  readonly #channel: Channel;
  #left: Uint8Array = new Uint8Array(0);
  /** Bytes that are still to come, of the whole. */
  #expected: number;

  constructor(channel: Channel, expected: number) {
    this.#channel = channel;
    this.#expected = expected;
  }

  /** The next `length` bytes. Throws ProtocolError for more than there are pages. */
  async read(length: number): Promise<Uint8Array> {
    const bytes = new Uint8Array(length);
    for (let at = 0; at < length; ) {
      if (this.#left.byteLength === 0) this.#left = await this.#next();
      const part = this.#left.subarray(0, length - at);
      bytes.set(part, at);
      at += part.byteLength;
      this.#left = this.#left.subarray(part.byteLength);
    }
    return bytes;
  }

  async #next(): Promise<Uint8Array> {
    const { payload, offset } = await this.#channel.receive([FrameType.AUDIT]);
    if (payload.byteLength === 0 || payload.byteLength > this.#expected) {
      throw new ProtocolError(
        `AUDIT of ${payload.byteLength} bytes`,
        offset + FRAME_HEADER_SIZE,
        `1 to ${this.#expected}: 8 for each page that is left`,
      );
    }
    this.#expected -= payload.byteLength;
    return payload;
  }
}

/** Hashes guest memory and compares it with the hashes that come, piece by piece: it takes no more memory for a larger guest. */
export async function compareWithHashes(channel: Channel, memory: GuestMemory): Promise<AuditResult> {
  const reader = new HashReader(channel, memory.pages * HASH_BYTES);
  const result: AuditResult = { total: memory.pages, differing: 0, pages: [] };
  for (const region of memory.regions) {
    for (let at = 0; at < region.size; at += PIECE_BYTES) {
      const length = Math.min(PIECE_BYTES, region.size - at);
      const mine = new BigUint64Array(length / PAGE_SIZE);
      check(await native().pageHashes(region.fd, at, length, mine), 'pread');
      const theirs = await reader.read(mine.byteLength);
      const found = differingPages(mine, theirs, region.gpa + at, MOST_NAMED - result.pages.length);
      result.differing += found.differing;
      result.pages.push(...found.pages);
    }
  }
  return result;
}

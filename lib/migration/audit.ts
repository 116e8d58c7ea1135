/**
 * The page audit over the wire. The destination hashes every page as it arrives, which is what its guest begins with; the source hashes
 * its memory after the guest has gone, which still is what the guest left. A page that nobody logged differs. Neither costs downtime.
 *
 * AUDIT frames: one u64 little-endian hash for every page of every region, ascending, in pieces.
 */
import { ProtocolError } from '../errors';
import type { GuestMemory } from '../memory/guest-memory';
import { comparePages, decodeHashes, encodeHashes } from '../observe/page-audit';
import type { Channel } from './channel';
import { FRAME_HEADER_SIZE, FrameType } from './frame';
import type { AuditResult } from './messages';

/** Bytes of one AUDIT frame at most; a larger guest has several. */
export const AUDIT_PIECE = 4 * 1024 * 1024;

export async function sendHashes(channel: Channel, hashes: BigUint64Array): Promise<void> {
  const bytes = encodeHashes(hashes);
  for (let at = 0; at < bytes.byteLength; at += AUDIT_PIECE) {
    await channel.send(FrameType.AUDIT, bytes.subarray(at, at + AUDIT_PIECE));
  }
}

/** Exactly `length` bytes of hashes. Throws ProtocolError for more. */
export async function receiveHashes(channel: Channel, length: number): Promise<Uint8Array> {
  const bytes = new Uint8Array(length);
  for (let at = 0; at < length; ) {
    const { payload, offset } = await channel.receive([FrameType.AUDIT]);
    if (payload.byteLength === 0 || payload.byteLength > length - at) {
      throw new ProtocolError(
        `AUDIT of ${payload.byteLength} bytes`,
        offset + FRAME_HEADER_SIZE,
        `1 to ${length - at}: 8 for each page that is left`,
      );
    }
    bytes.set(payload, at);
    at += payload.byteLength;
  }
  return bytes;
}

/** Compares the source's hashes with those that came. */
export function compareHashes(memory: GuestMemory, mine: BigUint64Array, theirs: Uint8Array): AuditResult {
  return comparePages(memory, mine, decodeHashes(theirs, mine.length));
}

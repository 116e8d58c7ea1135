/**
 * The page audit over the wire. The destination hashes every page as it arrives, which is what its guest begins with; the source hashes
 * its memory after the guest has gone, which still is what the guest left. A page that nobody logged differs. Neither costs downtime.
 *
 * AUDIT frame: one u64 little-endian hash for every page of every region, in the order of SETUP.
 */
import { ProtocolError } from '../errors';
import type { GuestMemory } from '../memory/guest-memory';
import { comparePages, decodeHashes } from '../observe/page-audit';
import type { Frame } from './channel';
import { FRAME_HEADER_SIZE } from './frame';
import type { AuditResult } from './messages';

/** Compares the source's hashes with those of an AUDIT frame. */
export function compareHashes(memory: GuestMemory, mine: BigUint64Array, frame: Frame): AuditResult {
  if (frame.payload.byteLength !== mine.byteLength) {
    throw new ProtocolError(
      `AUDIT of ${frame.payload.byteLength} bytes`,
      frame.offset + FRAME_HEADER_SIZE,
      `${mine.byteLength}: 8 for each of ${mine.length} pages`,
    );
  }
  return comparePages(memory, mine, decodeHashes(frame.payload, mine.length));
}

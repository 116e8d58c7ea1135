/** Numbered test frames: Ethernet, local experimental EtherType, a sequence number, padding. */
export const FRAME_LENGTH = 60;
export const ETHERTYPE = 0x88b5;
const MACS = { guest: [0x52, 0x54, 0, 0, 0, 1], peer: [0x52, 0x54, 0, 0, 0, 2] } as const;

/** Writes frame number `sequence` at `offset`. */
export function writeFrame(bytes: Uint8Array, offset: number, to: 'guest' | 'peer', sequence: number): void {
  bytes.set(MACS[to], offset);
  bytes.set(MACS[to === 'guest' ? 'peer' : 'guest'], offset + 6);
  bytes[offset + 12] = ETHERTYPE >> 8;
  bytes[offset + 13] = ETHERTYPE & 0xff;
  bytes[offset + 14] = sequence >>> 24;
  bytes[offset + 15] = sequence >>> 16;
  bytes[offset + 16] = sequence >>> 8;
  bytes[offset + 17] = sequence;
  bytes.fill(0x5a, offset + 18, offset + FRAME_LENGTH);
}

/** The number of the frame at `offset`, -1 when it is none of ours. */
export function frameNumber(bytes: Uint8Array, offset: number): number {
  if (bytes[offset + 12] !== ETHERTYPE >> 8 || bytes[offset + 13] !== (ETHERTYPE & 0xff)) return -1;
  return (
    ((bytes[offset + 14]! << 24) | (bytes[offset + 15]! << 16) | (bytes[offset + 16]! << 8) | bytes[offset + 17]!) >>> 0
  );
}

/** What came of frames numbered from 0. */
export class FrameTally {
  received = 0;
  reordered = 0;
  duplicated = 0;
  foreign = 0;
  #highest = -1;
  readonly #seen = new Set<number>();

  note(sequence: number): void {
    if (sequence < 0) {
      this.foreign++;
      return;
    }
    if (this.#seen.has(sequence)) {
      this.duplicated++;
      return;
    }
    this.#seen.add(sequence);
    this.received++;
    if (sequence < this.#highest) this.reordered++;
    else this.#highest = sequence;
  }

  has(sequence: number): boolean {
    return this.#seen.has(sequence);
  }

  report(sent: number): { sent: number; lost: number; reordered: number; duplicated: number; foreign: number } {
    let lost = 0;
    for (let sequence = 0; sequence < sent; sequence++) if (!this.#seen.has(sequence)) lost++;
    return { sent, lost, reordered: this.reordered, duplicated: this.duplicated, foreign: this.foreign };
  }
}

/** What `report` answers when nothing went wrong. */
export const clean = (sent: number) => ({ sent, lost: 0, reordered: 0, duplicated: 0, foreign: 0 });

/**
 * Reads descriptor chains of a packed ring (virtio 1.4 section 2.8): descriptors stand one behind the other in ring order, those of an
 * indirect table too. Every word is read once; every length and address is checked in `ChainBuffers`.
 */
import {
  VRING_DESC_F_INDIRECT,
  VRING_DESC_F_NEXT,
  VRING_DESC_F_WRITE,
  VRING_DESC_SIZE,
} from '../constants/virtio-ring';
import { ChainBuffers, tableWord } from './chain-buffers';
import { advance, availFlags, OWNER_FLAGS, slotOf } from './packed-position';
import { type RingMemory, u32At } from './ring-memory';

export class PackedChain extends ChainBuffers {
  /** Descriptors of the ring that the chain read last takes. */
  descriptors = 0;

  readonly #ring: Uint32Array;
  readonly #size: number;

  constructor(memory: RingMemory, descRing: number, size: number, indirect: boolean) {
    super('packed', memory, descRing, size, indirect);
    this.#size = size;
    this.#ring = u32At(memory, descRing, size * 4);
  }

  /**
   * The chain at `position`, whose first id and flags are `head`, read before; of `most` descriptors at most. Answers its id, which is not
   * checked. Throws VHOST_ERR_RING for anything section 2.8 of virtio 1.4 forbids, and for buffers outside guest memory.
   */
  read(position: number, head: number, most: number): number {
    this.begin();
    const ring = this.#ring;
    const size = this.#size;
    const start = slotOf(position, size);
    let at = position;
    let idAndFlags = head;
    for (let steps = 1; ; steps++) {
      if (steps > most) throw this.broken(`the chain at ${start} is longer than the ${most} descriptors not in flight`);
      const slot = slotOf(at, size);
      const word = slot * 4;
      if (steps > 1) {
        // Written before the first descriptor became available, so a plain read is new enough.
        idAndFlags = ring[word + 3]!;
        if (((idAndFlags >>> 16) & OWNER_FLAGS) !== availFlags(at, size)) {
          throw this.broken(`descriptor ${slot} of the chain at ${start} is not available`);
        }
      }
      const flags = idAndFlags >>> 16;
      if ((flags & VRING_DESC_F_INDIRECT) !== 0) {
        // Unlike in a split ring a table is the whole chain: the driver may not link it to other descriptors (section 2.8.19).
        if (steps > 1 || (flags & VRING_DESC_F_NEXT) !== 0)
          throw this.broken(`descriptor ${slot} is INDIRECT in a chain`);
        this.#readTable(slot, ring[word]!, ring[word + 1]!, ring[word + 2]!);
      } else {
        this.add(ring[word]!, ring[word + 1]!, ring[word + 2]!, (flags & VRING_DESC_F_WRITE) !== 0);
      }
      if ((flags & VRING_DESC_F_NEXT) === 0) {
        this.descriptors = steps;
        // Only the last descriptor is sure to carry the id (section 2.8.6).
        return idAndFlags & 0xffff;
      }
      at = advance(at, 1, size);
    }
  }

  /** All of the table is the chain; WRITE is the only flag in it that means anything, the ids mean nothing (section 2.8.7). */
  #readTable(holder: number, low: number, high: number, bytes: number): void {
    const start = this.openTable(holder, low, high, bytes);
    const u8 = this.table;
    for (let entry = start; entry < start + bytes; entry += VRING_DESC_SIZE) {
      const writable = (u8[entry + 14]! & VRING_DESC_F_WRITE) !== 0;
      this.add(tableWord(u8, entry), tableWord(u8, entry + 4), tableWord(u8, entry + 8), writable);
    }
  }
}

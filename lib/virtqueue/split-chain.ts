/**
 * Reads descriptor chains of a split ring (virtio 1.4 section 2.7.5): every word once, every index checked here, every length and address
 * in `ChainBuffers`.
 */
import {
  VRING_DESC_F_INDIRECT,
  VRING_DESC_F_NEXT,
  VRING_DESC_F_WRITE,
  VRING_DESC_SIZE,
} from '../constants/virtio-ring';
import { ChainBuffers, tableWord } from './chain-buffers';
import { type RingMemory, u32At } from './ring-memory';

export class SplitChain extends ChainBuffers {
  readonly #descriptors: Uint32Array;
  readonly #size: number;

  constructor(memory: RingMemory, descTable: number, size: number, indirect: boolean) {
    super('split', memory, descTable, size, indirect);
    this.#size = size;
    this.#descriptors = u32At(memory, descTable, size * 4);
  }

  /** Throws VHOST_ERR_RING for anything section 2.7 of virtio 1.4 forbids, and for buffers outside guest memory. */
  read(head: number): void {
    this.begin();
    if (head >= this.#size) throw this.broken(`head ${head} of a queue of ${this.#size}`);
    const descriptors = this.#descriptors;
    let at = head;
    for (let steps = 0; ; steps++) {
      if (steps >= this.#size) throw this.broken(`the chain at ${head} does not end`);
      const word = at * 4;
      const low = descriptors[word]!;
      const high = descriptors[word + 1]!;
      const length = descriptors[word + 2]!;
      const flagsAndNext = descriptors[word + 3]!;
      if ((flagsAndNext & VRING_DESC_F_INDIRECT) !== 0) {
        // A table may only be the whole chain's last step; descriptors before it are allowed as the kernel allows them.
        if ((flagsAndNext & VRING_DESC_F_NEXT) !== 0) throw this.broken(`descriptor ${at} has INDIRECT and NEXT`);
        this.#readTable(at, low, high, length);
        return;
      }
      this.add(low, high, length, (flagsAndNext & VRING_DESC_F_WRITE) !== 0);
      if ((flagsAndNext & VRING_DESC_F_NEXT) === 0) return;
      at = flagsAndNext >>> 16;
      if (at >= this.#size) throw this.broken(`next ${at} in a queue of ${this.#size}`);
    }
  }

  #readTable(holder: number, low: number, high: number, bytes: number): void {
    const start = this.openTable(holder, low, high, bytes);
    const entries = bytes / VRING_DESC_SIZE;
    const u8 = this.table;
    let at = 0;
    for (let steps = 0; ; steps++) {
      if (steps >= entries) throw this.broken(`the chain in the indirect table of descriptor ${holder} does not end`);
      const entry = start + at * VRING_DESC_SIZE;
      const flagsAndNext = tableWord(u8, entry + 12);
      if ((flagsAndNext & VRING_DESC_F_INDIRECT) !== 0)
        throw this.broken(`indirect table within that of descriptor ${holder}`);
      const writable = (flagsAndNext & VRING_DESC_F_WRITE) !== 0;
      this.add(tableWord(u8, entry), tableWord(u8, entry + 4), tableWord(u8, entry + 8), writable);
      if ((flagsAndNext & VRING_DESC_F_NEXT) === 0) return;
      at = flagsAndNext >>> 16;
      if (at >= entries) throw this.broken(`next ${at} in an indirect table of ${entries}`);
    }
  }
}

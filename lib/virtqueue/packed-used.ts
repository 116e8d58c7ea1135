/**
 * The used descriptors of a packed ring as its driver reads them: each once, in the order of the ring, until they are taken back. Where
 * the next one stands follows from the length of the chain that the one before names, so all of them are checked here. Nothing of this
 * is worth keeping: whoever attaches to the queue reads them again.
 */
import { VRING_DESC_F_WRITE } from '../constants/virtio-ring';
import { IN_FLIGHT } from './driver-state';
import { advance, distance, OWNER_FLAGS, slotOf, usedFlags } from './packed-position';

export class PackedUsed {
  readonly #ring: Int32Array;
  /** Chain words by id, see packed-driver-state.ts. */
  readonly #chains: Uint32Array;
  readonly #size: number;
  /** Read and not dropped: a ring that begins at #first. */
  readonly #ids: Uint16Array;
  readonly #lengths: Uint32Array;
  /** By id: 1 when it stands in #ids. */
  readonly #read: Uint8Array;
  #first = 0;
  /** Chains read and not dropped. */
  count = 0;
  /** Where the next used descriptor will stand: a position. */
  end: number;
  /** What is wrong with the descriptor there, or null. */
  fault: string | null = null;

  constructor(ring: Int32Array, chains: Uint32Array, size: number, end: number) {
    this.#ring = ring;
    this.#chains = chains;
    this.#size = size;
    this.#ids = new Uint16Array(size);
    this.#lengths = new Uint32Array(size);
    this.#read = new Uint8Array(size);
    this.end = end;
  }

  /** Reads on, to the first descriptor that is not used or is a lie; the device was given those before `published`. */
  read(published: number): void {
    const size = this.#size;
    this.fault = null;
    while (this.fault === null) {
      const word = slotOf(this.end, size) * 4;
      // An acquire load: the length, further used descriptors and buffers read after it are at least as new as these flags.
      const idAndFlags = Atomics.load(this.#ring, word + 3);
      const flags = idAndFlags >>> 16;
      if ((flags & OWNER_FLAGS) !== usedFlags(this.end, size)) return;
      const id = idAndFlags & 0xffff;
      const chain = id < size ? this.#chains[id]! : 0;
      const descriptors = chain & 0xffff;
      if ((chain & IN_FLIGHT) === 0 || this.#read[id] !== 0) {
        this.fault = `used id ${id} is not in flight`;
      } else if (descriptors > distance(this.end, published, size)) {
        this.fault = `used id ${id} is ahead of everything made available`;
      } else {
        const last = this.#first + this.count;
        const at = last < size ? last : last - size;
        this.#ids[at] = id;
        // Without WRITE the length means nothing (section 2.8.4).
        this.#lengths[at] = (flags & VRING_DESC_F_WRITE) === 0 ? 0 : this.#ring[word + 2]! >>> 0;
        this.#read[id] = 1;
        this.count++;
        this.end = advance(this.end, descriptors, size);
      }
    }
  }

  /** Of the `position`th chain read, 0 <= position < count. */
  id(position: number): number {
    const at = this.#first + position;
    return this.#ids[at < this.#size ? at : at - this.#size]!;
  }

  length(position: number): number {
    const at = this.#first + position;
    return this.#lengths[at < this.#size ? at : at - this.#size]!;
  }

  /** Forgets the first chain read and answers its id. */
  drop(): number {
    const id = this.#ids[this.#first]!;
    this.#read[id] = 0;
    this.#first = this.#first + 1 < this.#size ? this.#first + 1 : 0;
    this.count--;
    return id;
  }

  /** Whether the descriptor at `position` is used. */
  isUsed(position: number): boolean {
    const idAndFlags = Atomics.load(this.#ring, slotOf(position, this.#size) * 4 + 3);
    return ((idAndFlags >>> 16) & OWNER_FLAGS) === usedFlags(position, this.#size);
  }
}

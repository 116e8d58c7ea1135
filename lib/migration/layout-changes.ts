/**
 * Regions of guest memory that come and go while pages are sent. The destination is told between two rounds: of a region that comes before any
 * page of it, and one that goes stays mapped here until then, since the round under way may still read it.
 */
import { VhostError } from '../errors';
import { PAGE_SIZE } from '../memory/address';
import { type DataRange, dataRangesOf } from '../memory/data-ranges';
import type { GuestMemory, GuestRegion } from '../memory/guest-memory';
import type { LayoutMessage } from './messages';

interface Pending {
  readonly message: LayoutMessage;
  readonly region: GuestRegion;
  readonly told: () => void;
}

export class LayoutChanges {
  readonly #memory: GuestMemory;
  readonly #onGrown: (end: number) => void;
  #pending: Pending[] = [];
  #frozen = false;
  #over = false;
  readonly #stopListening: () => void;

  /** `onGrown` hears of the end of guest memory whenever a region comes. */
  constructor(memory: GuestMemory, onGrown: (end: number) => void) {
    this.#memory = memory;
    this.#onGrown = onGrown;
    this.#stopListening = memory.onChange(({ kind, region }) => this.#changed(kind, region));
  }

  async #changed(kind: 'add' | 'remove', region: GuestRegion): Promise<void> {
    if (this.#over) return;
    if (this.#frozen) {
      throw new VhostError('VHOST_ERR_STATE', 'guest memory cannot change while the guest is handed over');
    }
    const { gpa, size } = region;
    if (kind === 'add') this.#onGrown(this.#memory.end);
    const told = new Promise<void>((resolve) => {
      this.#pending.push({ message: { kind, gpa, size }, region, told: resolve });
    });
    // A region that comes can be used at once: its pages are logged, and sent after it was told of.
    if (kind === 'remove') await told;
  }

  /**
   * Tells of what has changed, in its order, by `send`. Nothing is pending when this resolves, and until somebody waits for something else.
   * Answers the pages with data of the regions that have come.
   */
  async tell(send: (message: LayoutMessage) => Promise<void>): Promise<DataRange[]> {
    const ranges: DataRange[] = [];
    for (let change = this.#pending.shift(); change !== undefined; change = this.#pending.shift()) {
      const { message, region, told } = change;
      await send(message);
      if (message.kind === 'add') ranges.push(...dataRangesOf(region));
      told();
    }
    return ranges;
  }

  /** From now on a change is refused; what is pending can still be told of. */
  freeze(): void {
    this.#frozen = true;
  }

  /** Changes go on without anybody being told. Idempotent. */
  end(): void {
    this.#over = true;
    this.#stopListening();
    for (const { told } of this.#pending.splice(0)) told();
  }

  /** Pages of guest memory, holes between regions included. */
  static pages(memory: GuestMemory): number {
    return Math.ceil(memory.end / PAGE_SIZE);
  }
}

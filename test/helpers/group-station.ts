/** A station that sends several flows, each in its turn, and accounts for what comes. */
import { IFF_NO_PI, IFF_TAP } from '../../lib/constants/if-tun';
import { check } from '../../lib/errors';
import type { Netns } from '../../lib/host/netns';
import { Tap } from '../../lib/host/tap';
import { native, type PollHandle } from '../../lib/native';
import { frameArea } from '../../lib/net/test-frame';
import { type FlowPlan, FlowSource, Pace } from './flow-plan';
import { FrameBook } from './frame-book';

const READABLE = 1;
const BATCH = 64;
const STRIDE = 2048;
const TX_QUEUE_LENGTH = 16_384;
/** Frames sent at once after this process did not get to run. */
const MOST_DUE = 128;

export class GroupStation {
  readonly sources: readonly FlowSource[];
  readonly book: FrameBook;
  readonly tap: Tap;
  readonly #outgoing = frameArea(new Uint8Array(BATCH * STRIDE));
  readonly #incoming = frameArea(new Uint8Array(BATCH * STRIDE));
  readonly #lengths = new Int32Array(BATCH);
  readonly #poll: PollHandle;
  #pace: Pace | null = null;
  #timer: NodeJS.Timeout | null = null;
  #turn = 0;

  private constructor(tap: Tap, macs: readonly string[], plans: readonly FlowPlan[]) {
    this.tap = tap;
    this.book = new FrameBook(macs);
    this.sources = plans.map((plan) => new FlowSource(plan));
    this.#poll = check<PollHandle>(
      native().pollStart(tap.handle, READABLE, () => this.#read()),
      'epoll_ctl',
    );
  }

  /** On a bridge of the namespace. `macs` are its own addresses. */
  static async open(
    netns: Netns,
    name: string,
    macs: readonly string[],
    plans: readonly FlowPlan[],
  ): Promise<GroupStation> {
    const tap = await Tap.open({ name, netns: netns.path, flags: IFF_TAP | IFF_NO_PI });
    await tap.setTxQueueLen(TX_QUEUE_LENGTH);
    await netns.attach('br0', name);
    return new GroupStation(tap, macs, plans);
  }

  /** Frames a second, of all flows together. */
  start(rate: number): void {
    this.#pace = new Pace(rate);
    this.#timer = setInterval(() => this.#send(this.#pace!.take(MOST_DUE)), 1);
  }

  hush(): void {
    if (this.#timer !== null) clearInterval(this.#timer);
    this.#timer = null;
  }

  /** One frame of each flow, or as many in all. */
  burst(frames = this.sources.length): void {
    this.#send(frames);
  }

  #send(due: number): void {
    for (let left = due; left > 0; ) {
      const count = Math.min(left, BATCH);
      for (let slot = 0; slot < count; slot++) {
        const source = this.sources[this.#turn++ % this.sources.length]!;
        this.#lengths[slot] = source.next(this.#outgoing, slot * STRIDE);
      }
      const written = this.tap.writeFrames(this.#outgoing.u8, STRIDE, count, this.#lengths);
      if (written !== count) throw new Error(`a station wrote ${written} of ${count} frames`);
      left -= count;
    }
  }

  #read(): void {
    for (;;) {
      const lengths = new Int32Array(BATCH);
      const count = this.tap.readFrames(this.#incoming.u8, STRIDE, BATCH, lengths);
      if (count <= 0) return;
      for (let index = 0; index < count; index++) {
        this.book.account(this.#incoming.u8.subarray(index * STRIDE, index * STRIDE + lengths[index]!));
      }
    }
  }

  async close(): Promise<void> {
    this.hush();
    native().pollStop(this.#poll);
    await this.tap.close();
  }
}

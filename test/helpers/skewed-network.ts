/**
 * Two places whose frames a test forwards itself, at different speeds: what a bridge does, with the time between its ports in view. What is for
 * the guest goes where it was heard last; everything else goes to both places. What the guest sends takes no time at all.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import { IFF_NO_PI, IFF_TAP } from '../../lib/constants/if-tun';
import { check } from '../../lib/errors';
import type { Netns } from '../../lib/host/netns';
import { Tap } from '../../lib/host/tap';
import { native, type PollHandle } from '../../lib/native';
import { ETHER_SOURCE, formatMac } from '../../lib/net/ethernet';
import { type FlowPlan, FlowSource, Pace } from './flow-plan';
import { FrameBook } from './frame-book';

const READABLE = 1;
const BATCH = 64;
const STRIDE = 2048;
const MOST_DUE = 64;

/** A cable to one place, on which a frame takes a while. */
class Cable {
  readonly tap: Tap;
  readonly #poll: PollHandle;
  readonly #queue: { at: number; frame: Uint8Array }[] = [];
  /** Milliseconds towards the place. */
  delay = 0;

  constructor(tap: Tap, onFrame: (frame: Uint8Array) => void) {
    this.tap = tap;
    const incoming = new Uint8Array(BATCH * STRIDE);
    const lengths = new Int32Array(BATCH);
    this.#poll = check<PollHandle>(
      native().pollStart(tap.handle, READABLE, () => {
        for (let count = 1; count > 0; ) {
          count = tap.readFrames(incoming, STRIDE, BATCH, lengths);
          for (let index = 0; index < count; index++) {
            onFrame(incoming.slice(index * STRIDE, index * STRIDE + lengths[index]!));
          }
        }
      }),
      'epoll_ctl',
    );
  }

  /** Ahead of all that is on its way. */
  write(frame: Uint8Array): void {
    this.tap.writeFrames(frame, frame.length, 1, Int32Array.of(frame.length));
  }

  send(frame: Uint8Array): void {
    this.#queue.push({ at: performance.now() + this.delay, frame });
    this.deliver();
  }

  /** What has been on its way for long enough. */
  deliver(now = performance.now()): void {
    while (this.#queue.length > 0 && this.#queue[0]!.at <= now) {
      this.write(this.#queue.shift()!.frame);
    }
  }

  async close(): Promise<void> {
    native().pollStop(this.#poll);
    await this.tap.close();
  }
}

export class SkewedNetwork {
  readonly sources: readonly FlowSource[];
  /** What the guest sends. */
  readonly book: FrameBook;
  readonly #guests: ReadonlySet<string>;
  readonly #cables: Cable[] = [];
  #at = 0;
  #pace: Pace | null = null;
  #turn = 0;
  readonly #timer: NodeJS.Timeout;

  private constructor(guests: readonly string[], station: string, flows: readonly FlowPlan[]) {
    this.sources = flows.map((flow) => new FlowSource(flow));
    this.#guests = new Set(guests);
    this.book = new FrameBook([station]);
    this.#timer = setInterval(() => this.#tick(), 1);
  }

  /** Cables to the first two places of a namespace, each on a bridge of its own: `br0` and `br1`. */
  static async open(
    netns: Netns,
    guests: readonly string[],
    station: string,
    flows: readonly FlowPlan[],
  ): Promise<SkewedNetwork> {
    const network = new SkewedNetwork(guests, station, flows);
    for (const index of [0, 1]) {
      const tap = await Tap.open({ name: `cable${index}`, netns: netns.path, flags: IFF_TAP | IFF_NO_PI });
      await tap.setTxQueueLen(16_384);
      await netns.attach(`br${index}`, tap.name);
      network.#cables.push(new Cable(tap, (frame) => network.#forward(index, frame)));
    }
    return network;
  }

  /** Milliseconds that a frame takes to each place. */
  delays(first: number, second: number): void {
    this.#cables[0]!.delay = first;
    this.#cables[1]!.delay = second;
  }

  start(rate: number): void {
    this.#pace = new Pace(rate);
  }

  hush(): void {
    this.#pace = null;
  }

  #forward(from: number, frame: Uint8Array): void {
    if (this.#guests.has(formatMac(frame, ETHER_SOURCE))) this.#at = from;
    this.book.account(frame);
    if ((frame[0]! & 1) !== 0) this.#cables[1 - from]!.write(frame);
  }

  #tick(): void {
    for (const cable of this.#cables) cable.deliver();
    for (let due = this.#pace?.take(MOST_DUE) ?? 0; due > 0; due--) {
      const frame = this.sources[this.#turn++ % this.sources.length]!.take();
      if (this.#guests.has(formatMac(frame))) this.#cables[this.#at]!.send(frame);
      else for (const cable of this.#cables) cable.send(frame);
    }
  }

  /** What is on its way arrives. */
  async settled(): Promise<void> {
    await sleep(Math.max(...this.#cables.map(({ delay }) => delay)) + 50);
  }

  async close(): Promise<void> {
    clearInterval(this.#timer);
    for (const cable of this.#cables) await cable.close();
  }
}

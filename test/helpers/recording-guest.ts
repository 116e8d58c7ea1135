/**
 * A guest whose driver is a test: its rings, buffers and their driver's state lie in guest memory and move with it, while what it has received and
 * sent is written down in one book outside, which all its lives share.
 */
import type { QueueNotifiers } from '../../lib/backend/backend';
import { VIRTIO_NET_F_MRG_RXBUF } from '../../lib/constants/virtio-net';
import { attachQueue, formatQueue, planQueue, type QueuePlan } from '../../lib/guest/rings';
import type { EventFdWatch } from '../../lib/host/event-fd';
import { PAGE_SIZE } from '../../lib/memory/address';
import { GuestWriteLog } from '../../lib/memory/dirty-log';
import type { GuestMemory } from '../../lib/memory/guest-memory';
import type { MigratableGuest } from '../../lib/migration/options';
import { hasBit } from '../../lib/net/features';
import { headerLength } from '../../lib/net/header';
import type { DriverQueue } from '../../lib/virtqueue/driver-queue';
import { alignUp } from '../../lib/virtqueue/layout';
import type { QueueState } from '../../lib/virtqueue/queue-state';
import { NO_WRITE_LOG } from '../../lib/virtqueue/ring-memory';
import { type FlowPlan, FlowSource, Pace } from './flow-plan';
import { FrameBook } from './frame-book';

const FIRST_GPA = 0x10_0000;
const TX_BUFFER = 2048;
/** Offset of num_buffers in virtio_net_hdr. */
const NUM_BUFFERS = 10;
const MOST_DUE = 64;

export interface GuestPlan {
  readonly features: bigint;
  /** Entries of each ring. */
  readonly ringSize: number;
  readonly rxBuffer?: number;
  /** Those the guest listens and sends with. */
  readonly macs: readonly string[];
  readonly flows: readonly FlowPlan[];
}

interface Ring {
  readonly plan: QueuePlan;
  readonly buffers: number;
  readonly bufferSize: number;
}

/** What all lives of a guest share. */
export class GuestRecord {
  readonly plan: GuestPlan;
  readonly book: FrameBook;
  readonly sources: readonly FlowSource[];
  readonly rx: Ring;
  readonly tx: Ring;
  /** Frames a second, over all flows; 0 is silent. */
  rate = 0;
  pace: Pace | null = null;
  /** The driver leaves its receive queue alone. */
  deaf = false;
  turn = 0;
  readonly queues: QueueState[];

  /** Formats the rings in `memory`, which has room from 1 MiB on. */
  constructor(memory: GuestMemory, plan: GuestPlan) {
    this.plan = plan;
    this.book = new FrameBook(plan.macs);
    this.sources = plan.flows.map((flow) => new FlowSource(flow));
    let next = FIRST_GPA;
    const take = (bytes: number, alignment: number): number => {
      const at = alignUp(next, alignment);
      next = at + bytes;
      return at;
    };
    const ring = (bufferSize: number): Ring => {
      const queue = planQueue(plan.features, plan.ringSize, false, take);
      formatQueue(memory, queue, NO_WRITE_LOG);
      return { plan: queue, buffers: take(plan.ringSize * bufferSize, PAGE_SIZE), bufferSize };
    };
    this.rx = ring(plan.rxBuffer ?? 2048);
    this.tx = ring(TX_BUFFER);
    this.queues = [this.rx, this.tx].map((of) => attachQueue(memory, of.plan.state, NO_WRITE_LOG).queueState());
  }

  speak(rate: number): void {
    this.rate = rate;
    this.pace = rate === 0 ? null : new Pace(rate);
  }
}

export class RecordingGuest implements MigratableGuest {
  readonly record: GuestRecord;
  readonly memory: GuestMemory;
  readonly dirtySource: GuestWriteLog;
  readonly #notifiers: readonly QueueNotifiers[];
  readonly #rx: DriverQueue;
  readonly #tx: DriverQueue;
  readonly #header: number;
  readonly #merged: boolean;
  #watches: EventFdWatch[] = [];
  #timer: NodeJS.Timeout | null = null;
  running = false;
  failure: unknown = null;
  /** Waited for before it stands still. */
  beforePause: () => Promise<void> = async () => undefined;

  constructor(memory: GuestMemory, record: GuestRecord, notifiers: readonly QueueNotifiers[]) {
    this.memory = memory;
    this.record = record;
    this.#notifiers = notifiers;
    this.dirtySource = new GuestWriteLog(memory.end / PAGE_SIZE);
    this.#rx = attachQueue(memory, record.rx.plan.state, this.dirtySource);
    this.#tx = attachQueue(memory, record.tx.plan.state, this.dirtySource);
    this.#header = headerLength(record.plan.features);
    this.#merged = hasBit(record.plan.features, VIRTIO_NET_F_MRG_RXBUF);
  }

  /** All receive buffers of a ring that was never used. */
  postAll(): void {
    const { buffers, bufferSize } = this.record.rx;
    while (this.#rx.free > 0) this.#rx.post(buffers + this.#rx.nextId * bufferSize, 0, bufferSize, true);
    this.#rx.publish();
  }

  resume(): void {
    if (this.running) return;
    this.running = true;
    this.#watches = this.#notifiers.slice(0, 2).map(({ call }) => call.onSignal(() => this.#guarded()));
    this.#timer = setInterval(() => this.#guarded(), 1);
    this.#guarded();
  }

  async pause(): Promise<void> {
    await this.beforePause();
    this.running = false;
    for (const watch of this.#watches.splice(0)) watch.close();
    if (this.#timer !== null) clearInterval(this.#timer);
    this.#timer = null;
  }

  #guarded(): void {
    if (!this.running || this.failure !== null) return;
    try {
      this.#receive();
      this.#send();
    } catch (error) {
      this.failure = error;
    }
  }

  #receive(): void {
    if (this.record.deaf) return;
    const rx = this.#rx;
    do {
      rx.disableCalls();
      for (let pending = rx.pending(); pending > 0; pending = rx.pending()) {
        let taken = 0;
        while (taken < pending) {
          const pieces = this.#pieces(taken);
          if (taken + pieces > pending) break;
          const parts = Array.from({ length: pieces }, (_, piece) => this.#piece(taken + piece));
          this.record.book.account(new Uint8Array(Buffer.concat(parts)).slice(this.#header));
          taken += pieces;
        }
        rx.repost(taken);
        if (rx.publish()) this.#notifiers[0]!.kick.signal();
      }
    } while (rx.enableCalls());
  }

  #pieces(position: number): number {
    if (!this.#merged) return 1;
    const head = this.#piece(position);
    return head[NUM_BUFFERS]! | (head[NUM_BUFFERS + 1]! << 8);
  }

  #piece(position: number): Uint8Array {
    const { buffers, bufferSize } = this.record.rx;
    return this.memory.view(buffers + this.#rx.usedId(position) * bufferSize, this.#rx.usedLength(position));
  }

  #send(): void {
    const { pace, sources } = this.record;
    const tx = this.#tx;
    tx.release(tx.pending());
    if (pace === null) return;
    let due = Math.min(pace.take(MOST_DUE), tx.free);
    for (; due > 0; due--) this.#post(sources[this.record.turn++ % sources.length]!.take());
    if (tx.publish()) this.#notifiers[1]!.kick.signal();
  }

  #post(frame: Uint8Array): void {
    const { buffers, bufferSize } = this.record.tx;
    const at = buffers + this.#tx.nextId * bufferSize;
    const whole = new Uint8Array(this.#header + frame.length);
    whole.set(frame, this.#header);
    this.memory.write(at, whole);
    this.dirtySource.mark(at, whole.length);
    this.#tx.post(at, 0, whole.length, false);
  }

  startDirtyLog(): void {
    this.dirtySource.enabled = true;
  }

  stopDirtyLog(): void {
    this.dirtySource.enabled = false;
  }

  save(): Record<string, unknown> {
    return {};
  }
}

/**
 * Driver and device of one virtqueue against a model, in any order of their calls: every chain is used exactly once, with the buffers it
 * was posted with, nobody sleeps on work that was not announced, and guest memory alone carries either side on.
 */
import * as fc from 'fast-check';
import type { DeviceQueue } from '../../lib/virtqueue/device-queue';
import type { DriverQueue } from '../../lib/virtqueue/driver-queue';
import { alignUp } from '../../lib/virtqueue/layout';
import { attachDriver, openDeviceQueue } from '../../lib/virtqueue/open-queue';
import { highWord, lowWord } from '../../lib/virtqueue/ring-memory';
import type { RingFormat } from './ring-formats';
import { ByteLog, TestMemory } from './ring-memory';

export const RINGS = 5 * 2 ** 30;
export const BUFFERS = 0x100000;
const BUFFER_BYTES = 2 ** 16;
/** Descriptors of an indirect table. */
const ENTRIES = 4;

export interface Setup {
  format: RingFormat;
  size: number;
  eventIdx: boolean;
  indirect: boolean;
  /** Where the ring begins, so that it wraps soon. */
  start: number;
}

export interface Buffer {
  address: number;
  length: number;
  writable: boolean;
}

interface Posted {
  id: number;
  buffers: Buffer[];
}

/** As expect(...).toBe, which is too slow for a million comparisons. */
export function same<T>(actual: T, expected: T): void {
  if (actual !== expected) throw new Error(`${String(actual)} instead of ${String(expected)}`);
}

/** The ring, and what it must be doing. */
export class RingModel {
  readonly memory: TestMemory;
  readonly log: ByteLog;
  readonly #stateAt: number;
  /** Ids that somebody holds. */
  readonly #held = new Set<number>();
  readonly #popped: Posted[] = [];
  driver: DriverQueue;
  device: DeviceQueue;
  /** Chains in the order of their posting, until the device takes them. */
  readonly posted: Posted[] = [];
  /** How many of these are published. */
  visible = 0;
  readonly taken: Posted[] = [];
  /** Pushed, with the length; how many of these are published. */
  readonly used: { chain: Posted; length: number }[] = [];
  shown = 0;
  /** The device stands until it is kicked; a kick has arrived. */
  deviceSleeps = false;
  kicked = false;
  driverSleeps = false;
  called = false;
  free: number;

  constructor(readonly setup: Setup) {
    const { format, size, eventIdx, indirect, start } = setup;
    this.#stateAt = format.stateAt(RINGS, size);
    const tables = alignUp(RINGS + format.bytes(size), 16);
    this.memory = new TestMemory([
      { gpa: BUFFERS, size: BUFFER_BYTES },
      { gpa: RINGS, size: alignUp(tables + size * ENTRIES * 16 - RINGS, 4096) },
    ]);
    this.log = new ByteLog(this.memory);
    const options = { size, eventIdx, ...(indirect ? { indirect: { tables, entries: ENTRIES } } : {}) };
    format.format(this.memory, RINGS, options, this.log);
    expect(this.log.takeMissed()).toEqual([]);
    format.begin(this.memory, RINGS, options, start);
    // A driver attaches to the ring as it stands; so does the device.
    this.driver = attachDriver(this.memory, this.#stateAt, this.log);
    this.device = openDeviceQueue(this.memory, this.driver.queueState(), { eventIdx, indirect, log: this.log });
    this.log.forget();
    this.free = size;
  }

  descriptors(chain: Posted): number {
    return this.setup.indirect && chain.buffers.length > 1 && chain.buffers.length <= ENTRIES
      ? 1
      : chain.buffers.length;
  }

  post(buffers: Buffer[]): void {
    const chain: Posted = { id: -1, buffers };
    const needed = this.descriptors(chain);
    if (buffers.length > Math.max(this.setup.size, this.setup.indirect ? ENTRIES : 0)) {
      expect(() => this.driver.chainBegin(buffers.length)).toThrow('chain of');
      return;
    }
    const only = buffers.length === 1 ? buffers[0]! : null;
    if (only !== null)
      chain.id = this.driver.post(lowWord(only.address), highWord(only.address), only.length, only.writable);
    else chain.id = this.driver.chainBegin(buffers.length);
    if (needed > this.free) {
      same(chain.id, -1);
      return;
    }
    if (only === null) {
      for (const { address, length, writable } of buffers) {
        this.driver.chainAdd(lowWord(address), highWord(address), length, writable);
      }
      this.driver.chainEnd();
    }
    same(chain.id >= 0 && chain.id < this.setup.size, true);
    same(this.#held.has(chain.id), false);
    this.#held.add(chain.id);
    this.free -= needed;
    this.posted.push(chain);
    same(this.driver.free, this.free);
  }

  publish(): void {
    const fresh = this.posted.length > this.visible;
    const kick = this.driver.publish();
    if (!fresh) same(kick, false);
    this.visible = this.posted.length;
    if (kick) this.kicked = true;
    if (this.deviceSleeps && fresh) same(this.kicked, true);
  }

  pop(): void {
    const id = this.device.pop();
    if (this.visible === 0) {
      same(id, -1);
      return;
    }
    const chain = this.posted.shift()!;
    this.visible--;
    same(id, chain.id);
    const seen = this.device.chain;
    same(seen.buffers, chain.buffers.length);
    same(seen.firstWritable, chain.buffers.filter(({ writable }) => !writable).length);
    for (const [index, buffer] of chain.buffers.entries()) {
      same(seen.addresses[index], buffer.address);
      same(seen.lengths[index], buffer.length);
    }
    this.taken.push(chain);
    this.#popped.push(chain);
  }

  unpop(max: number): void {
    let count = 0;
    // What was pushed cannot be given back untouched.
    for (let last = this.#popped.at(-1); count < max && last !== undefined; last = this.#popped.at(-1)) {
      const at = this.taken.indexOf(last);
      if (at < 0) break;
      this.posted.unshift(last);
      this.taken.splice(at, 1);
      this.#popped.pop();
      this.visible++;
      count++;
    }
    this.device.unpop(count);
  }

  push(pick: number, length: number): void {
    if (this.taken.length === 0) return;
    const [chain] = this.taken.splice(pick % this.taken.length, 1);
    this.device.push(chain!.id, length);
    this.used.push({ chain: chain!, length });
  }

  show(): void {
    const fresh = this.used.length > this.shown;
    const call = this.device.publish();
    if (!fresh) same(call, false);
    this.shown = this.used.length;
    if (call) this.called = true;
    if (this.driverSleeps && fresh) same(this.called, true);
  }

  reap(max: number): void {
    const ids = new Uint16Array(Math.max(1, max));
    const lengths = new Uint32Array(ids.length);
    const count = this.driver.reap(max, ids, lengths);
    same(count, Math.min(max, this.shown));
    for (let at = 0; at < count; at++) {
      const { chain, length } = this.used.shift()!;
      same(ids[at], chain.id);
      same(lengths[at], length);
      this.free += this.descriptors(chain);
      this.#held.delete(chain.id);
    }
    this.shown -= count;
    same(this.driver.free, this.free);
  }

  repost(max: number): void {
    const count = Math.min(max, this.driver.pending());
    this.driver.repost(count);
    for (let at = 0; at < count; at++) this.posted.push(this.used.shift()!.chain);
    this.shown -= count;
  }

  deviceSleep(): void {
    this.kicked = false;
    const more = this.device.enableKicks();
    same(more, this.visible > 0);
    this.deviceSleeps = !more;
  }

  /** A device that wants more than there is: what is there does not keep it awake. */
  deviceSleepForMore(): void {
    this.kicked = false;
    same(this.device.enableKicksForMore(), false);
    this.deviceSleeps = true;
  }

  deviceWake(): void {
    this.deviceSleeps = false;
    this.device.disableKicks();
  }

  driverSleep(): void {
    this.called = false;
    const more = this.driver.enableCalls();
    same(more, this.shown > 0);
    this.driverSleeps = !more;
  }

  driverWake(): void {
    this.driverSleeps = false;
    this.driver.disableCalls();
  }

  attachDriver(): void {
    this.driver = attachDriver(this.memory, this.#stateAt, this.log);
  }

  /** A device stops in good order and another begins. */
  replaceDevice(): void {
    while (this.taken.length > 0) this.push(0, 0);
    this.show();
    same(this.device.usedIdx, this.device.nextAvail);
    const state = this.device.state();
    expect(this.driver.queueState()).toEqual(state);
    this.device = openDeviceQueue(this.memory, state, { ...this.setup, log: this.log });
    this.deviceSleeps = false;
  }

  check(): void {
    expect(this.log.takeMissed()).toEqual([]);
    same(this.driver.inFlight, this.posted.length + this.taken.length + this.used.length);
  }
}

const buffer = fc.record({ at: fc.nat(BUFFER_BYTES - 256), length: fc.integer({ min: 1, max: 256 }) });
const chain = fc
  .tuple(fc.array(buffer, { minLength: 1, maxLength: 6 }), fc.nat(6))
  .map(([buffers, readable]) =>
    buffers.map(({ at, length }, index) => ({ address: BUFFERS + at, length, writable: index >= readable })),
  );

export type Step = (model: RingModel) => void;
export const step: fc.Arbitrary<Step> = fc.oneof(
  {
    weight: 6,
    arbitrary: chain.map(
      (buffers): Step =>
        (model) =>
          model.post(buffers),
    ),
  },
  { weight: 4, arbitrary: fc.constant<Step>((model) => model.publish()) },
  { weight: 6, arbitrary: fc.constant<Step>((model) => model.pop()) },
  {
    weight: 1,
    arbitrary: fc.nat(4).map(
      (max): Step =>
        (model) =>
          model.unpop(max),
    ),
  },
  {
    weight: 5,
    arbitrary: fc.tuple(fc.nat(64), fc.nat(2 ** 31)).map(
      ([pick, length]): Step =>
        (model) =>
          model.push(pick, length),
    ),
  },
  { weight: 4, arbitrary: fc.constant<Step>((model) => model.show()) },
  {
    weight: 4,
    arbitrary: fc.nat(70).map(
      (max): Step =>
        (model) =>
          model.reap(max),
    ),
  },
  {
    weight: 2,
    arbitrary: fc.nat(70).map(
      (max): Step =>
        (model) =>
          model.repost(max),
    ),
  },
  { weight: 2, arbitrary: fc.constant<Step>((model) => model.deviceSleep()) },
  { weight: 1, arbitrary: fc.constant<Step>((model) => model.deviceSleepForMore()) },
  { weight: 1, arbitrary: fc.constant<Step>((model) => model.deviceWake()) },
  { weight: 2, arbitrary: fc.constant<Step>((model) => model.driverSleep()) },
  { weight: 1, arbitrary: fc.constant<Step>((model) => model.driverWake()) },
  { weight: 1, arbitrary: fc.constant<Step>((model) => model.attachDriver()) },
  { weight: 1, arbitrary: fc.constant<Step>((model) => model.replaceDevice()) },
  // Marks count for what was written before them: a log may be read and emptied between any two calls.
  { weight: 3, arbitrary: fc.constant<Step>((model) => model.check()) },
);

/**
 * Driver and device of one split virtqueue against a model, in any order of their calls: every chain is used exactly once, with the
 * buffers it was posted with, nobody sleeps on work that was not announced, and guest memory alone carries either side on.
 */
import * as fc from 'fast-check';
import { alignUp, splitLayout } from '../../lib/virtqueue/layout';
import { HIGH_WORD, highWord, lowWord } from '../../lib/virtqueue/ring-memory';
import { SplitDevice } from '../../lib/virtqueue/split-device';
import { SplitDriver } from '../../lib/virtqueue/split-driver';
import { driverStateBytes } from '../../lib/virtqueue/split-driver-state';
import { ByteLog, TestMemory } from '../helpers/ring-memory';

const RINGS = 5 * 2 ** 30;
const BUFFERS = 0x100000;
const BUFFER_BYTES = 2 ** 16;
const ENTRIES = 4;

interface Setup {
  size: number;
  eventIdx: boolean;
  indirect: boolean;
  /** Both indexes begin here, so that they wrap soon. */
  start: number;
}

interface Buffer {
  address: number;
  length: number;
  writable: boolean;
}

interface Posted {
  id: number;
  buffers: Buffer[];
}

/** The ring, and what it must be doing. */
/** As expect(...).toBe, which is too slow for a million comparisons. */
function same<T>(actual: T, expected: T): void {
  if (actual !== expected) throw new Error(`${String(actual)} instead of ${String(expected)}`);
}

class Model {
  readonly memory: TestMemory;
  readonly log: ByteLog;
  readonly #stateAt: number;
  /** Ids that somebody holds. */
  readonly #held = new Set<number>();
  readonly #popped: Posted[] = [];
  driver: SplitDriver;
  device: SplitDevice;
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
    const { size, eventIdx, indirect, start } = setup;
    const { desc, avail, used, bytes } = splitLayout(RINGS, size, eventIdx);
    this.#stateAt = alignUp(RINGS + bytes, 16);
    const tablesAt = alignUp(this.#stateAt + driverStateBytes(size), 16);
    this.memory = new TestMemory([
      { gpa: BUFFERS, size: BUFFER_BYTES },
      { gpa: RINGS, size: alignUp(tablesAt + size * ENTRIES * 16 - RINGS, 4096) },
    ]);
    const tables = indirect ? { indirect: { tables: tablesAt, entries: ENTRIES } } : {};
    this.log = new ByteLog(this.memory);
    this.driver = SplitDriver.format(
      this.memory,
      this.#stateAt,
      { size, desc, avail, used, eventIdx, ...tables },
      this.log,
    );
    expect(this.log.takeMissed()).toEqual([]);
    const state = this.memory.view(this.#stateAt, 64);
    for (const at of [52, 54, 56]) state.setUint16(at, start, true);
    this.memory.view(avail, 4).setUint16(2, start, true);
    this.memory.view(used, 4).setUint16(2, start, true);
    // A driver attaches to the indexes as they stand; so does the device.
    this.driver = SplitDriver.attach(this.memory, this.#stateAt, this.log);
    this.device = new SplitDevice(this.memory, this.driver.queueState(), { eventIdx, indirect, log: this.log });
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

  unpop(): void {
    // What was pushed cannot be given back untouched.
    const last = this.#popped.at(-1);
    const at = last === undefined ? -1 : this.taken.indexOf(last);
    if (at < 0) return;
    this.device.unpop(1);
    this.posted.unshift(last!);
    this.taken.splice(at, 1);
    this.#popped.pop();
    this.visible++;
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
    this.driver = SplitDriver.attach(this.memory, this.#stateAt, this.log);
  }

  /** A device stops in good order and another begins. */
  replaceDevice(): void {
    while (this.taken.length > 0) this.push(0, 0);
    this.show();
    this.device = new SplitDevice(this.memory, this.device.state(), { ...this.setup, log: this.log });
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

type Step = (model: Model) => void;
const step: fc.Arbitrary<Step> = fc.oneof(
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
  { weight: 1, arbitrary: fc.constant<Step>((model) => model.unpop()) },
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
  { weight: 1, arbitrary: fc.constant<Step>((model) => model.deviceWake()) },
  { weight: 2, arbitrary: fc.constant<Step>((model) => model.driverSleep()) },
  { weight: 1, arbitrary: fc.constant<Step>((model) => model.driverWake()) },
  { weight: 1, arbitrary: fc.constant<Step>((model) => model.attachDriver()) },
  { weight: 1, arbitrary: fc.constant<Step>((model) => model.replaceDevice()) },
);

const setup = fc.record({
  size: fc.oneof(
    { weight: 8, arbitrary: fc.integer({ min: 0, max: 6 }).map((power) => 2 ** power) },
    { weight: 1, arbitrary: fc.constantFrom(256, 1024, 32768) },
  ),
  eventIdx: fc.boolean(),
  indirect: fc.boolean(),
  start: fc.constantFrom(0, 1, 32767, 65500, 65535),
});

test('any order of calls', () => {
  void fc.assert(
    fc.property(setup, fc.array(step, { maxLength: 120, size: 'max' }), (parameters, steps) => {
      const model = new Model(parameters);
      for (const run of steps) run(model);
      model.check();
      model.publish();
      while (model.visible > 0) model.pop();
      model.replaceDevice();
      while (model.shown > 0) model.reap(70);
      expect(model.driver.free).toBe(parameters.size);
      expect(model.driver.inFlight).toBe(0);
      model.check();
    }),
    { numRuns: 500 },
  );
});

test('the index wraps many times in a queue of every size', () => {
  for (let power = 0; power <= 15; power++) {
    const size = 2 ** power;
    const model = new Model({ size, eventIdx: power % 2 === 0, indirect: false, start: 65000 });
    const lap = Math.min(size, 64);
    for (let round = 0; round < Math.ceil(1200 / lap); round++) {
      for (let at = 0; at < lap; at++) {
        model.post([{ address: BUFFERS + at, length: 1 + (round % 9), writable: round % 2 === 0 }]);
      }
      model.publish();
      for (let at = 0; at < lap; at++) model.pop();
      for (let at = 0; at < lap; at++) model.push(at * 7, at);
      model.show();
      if (round % 3 === 0) model.repost(lap);
      model.publish();
      while (model.visible > 0) model.pop();
      while (model.taken.length > 0) model.push(0, 9);
      model.show();
      model.reap(70);
    }
    model.check();
  }
});

test('a whole queue of 32768 is in flight at once', () => {
  const model = new Model({ size: 32768, eventIdx: true, indirect: false, start: 40000 });
  const { driver, device } = model;
  let posted = 0;
  while (driver.post(BUFFERS, 0, 1, false) === posted) posted++;
  expect(posted).toBe(32768);
  driver.publish();
  for (let at = 0; at < 32768; at++) device.push(device.pop(), at);
  expect(device.pop()).toBe(-1);
  device.publish();
  expect(driver.pending()).toBe(32768);
  driver.repost(32768);
  driver.publish();
  for (let at = 0; at < 32768; at++) device.push(device.pop(), at);
  device.publish();
  expect(driver.pending()).toBe(32768);
  driver.release(32768);
  expect(driver.free).toBe(32768);
  expect(model.log.takeMissed()).toEqual([]);
});

test('addresses above 4 GiB arrive whole', () => {
  void fc.assert(
    fc.property(fc.integer({ min: 0, max: 2 ** 21 - 1 }), fc.integer({ min: 0, max: 2 ** 20 - 1 }), (high, page) => {
      const address = high * HIGH_WORD + page * 4096;
      const memory = new TestMemory([
        { gpa: address, size: 4096 },
        { gpa: address >= RINGS ? 0 : RINGS, size: 2 ** 16 },
      ]);
      const rings = memory.regions[1]!.gpa;
      const driver = SplitDriver.format(memory, rings + 4096, { size: 4, ...splitLayout(rings, 4, false) });
      driver.post(lowWord(address), highWord(address), 4096, true);
      driver.publish();
      const device = new SplitDevice(memory, driver.queueState());
      expect(device.pop()).toBe(0);
      expect(device.chain.addresses[0]).toBe(address);
      expect(device.chain.regions[0]!.gpa).toBe(address);
    }),
  );
});

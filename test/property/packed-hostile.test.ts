/**
 * Whatever the other side writes anywhere in the ring, at any time: a device or a driver either goes on inside guest memory or says
 * VHOST_ERR_RING, always comes to an end, and writes to nothing that is not its own.
 */
import * as fc from 'fast-check';
import type { PackedDevice } from '../../lib/virtqueue/packed-device';
import { PackedDriver } from '../../lib/virtqueue/packed-driver';
import { AVAIL, DATA, HandRing, TABLE, USED } from '../helpers/packed-ring';
import type { TestMemory } from '../helpers/ring-memory';

/** Mostly plausible, so that chains get far before they break; now and then anything at all. */
const rarely = <T>(plausible: fc.Arbitrary<T>, anything: fc.Arbitrary<T>, weight = 15): fc.Arbitrary<T> =>
  fc.oneof({ weight, arbitrary: plausible }, { weight: 1, arbitrary: anything });

const address = rarely<number | bigint>(
  fc.integer({ min: DATA, max: DATA + 0xf000 }),
  fc.oneof(fc.constant(TABLE), fc.integer({ min: 0xff00, max: 0x30100 }), fc.bigInt({ min: 0n, max: 2n ** 64n - 1n })),
  60,
);
const length = rarely(fc.constantFrom(1, 16, 32, 64), fc.oneof(fc.constant(0), fc.nat(2 ** 32 - 1)), 60);
/** NEXT, WRITE and INDIRECT beside the owner flags. */
const flags = rarely(fc.constantFrom(0, 0, 0, 0, 1, 2, 3), fc.nat(65535 ^ (AVAIL | USED)), 60);

interface Written {
  address: number | bigint;
  length: number;
  /** Undefined: the number of the slot, which is never in flight twice. */
  id: number | undefined;
  flags: number;
}

/** Memory as it must be outside what the side under test may write: whatever the test itself writes goes to both. */
class Mirror {
  readonly #memory: TestMemory;
  readonly #expected: TestMemory;

  constructor(memory: TestMemory) {
    this.#memory = memory;
    this.#expected = memory.clone();
  }

  /** The test wrote these bytes, or the side under test may have. */
  allow(gpa: number, length: number): void {
    this.#expected.bytes(gpa, length).set(this.#memory.bytes(gpa, length));
  }

  check(): void {
    for (const [index, { u8 }] of this.#expected.regions.entries()) {
      if (Buffer.compare(u8, this.#memory.regions[index]!.u8) !== 0) throw new Error('written outside');
    }
  }
}

/** The answer, or undefined when the ring was said to be broken; nothing else may be thrown. */
function ringErrorsOnly<T>(run: () => T): T | undefined {
  try {
    return run();
  } catch (error) {
    if ((error as { code?: string }).code !== 'VHOST_ERR_RING') throw error;
    return undefined;
  }
}

interface Chain {
  id: number;
}

class DeviceTrial {
  readonly ring: HandRing;
  readonly device: PackedDevice;
  readonly #mirror: Mirror;
  readonly #popped: Chain[] = [];
  readonly #taken: Chain[] = [];
  chains = 0;

  constructor(
    readonly size: number,
    eventIdx: boolean,
  ) {
    this.ring = new HandRing(size);
    this.#mirror = new Mirror(this.ring.memory);
    this.device = this.ring.device({ eventIdx });
  }

  scribble(offset: number, bytes: Uint8Array): void {
    const at = this.ring.layout.desc + (offset % this.ring.layout.bytes);
    this.ring.memory.regions[0]!.u8.set(bytes, at - this.ring.layout.desc);
    this.#mirror.allow(at, bytes.length);
  }

  describe(table: number, index: number, { address, length, id, flags }: Written): void {
    this.ring.describe(index, address, length, id ?? index, flags, table);
    this.#mirror.allow(table + 16 * index, 16);
  }

  /** Descriptors from the one the device takes next on, with the flags that make them available. */
  offer(descriptors: Written[]): void {
    const { nextAvail, packed } = this.device.state();
    for (const [ahead, descriptor] of descriptors.entries()) {
      const at = nextAvail + ahead;
      const wrap = packed!.availWrap === (Math.floor(at / this.size) % 2 === 0);
      // A chain that goes on behind all that is offered would end almost every trial at its first one.
      const meant = ahead + 1 < descriptors.length ? descriptor.flags : descriptor.flags & ~1;
      const flags = (meant & ~(AVAIL | USED)) | (wrap ? AVAIL : USED);
      this.describe(this.ring.layout.desc, at % this.size, { ...descriptor, flags });
    }
  }

  pop(): void {
    const id = ringErrorsOnly(() => this.device.pop());
    if (id === undefined || id < 0) return;
    this.chains++;
    if (id >= this.size || this.#taken.some((chain) => chain.id === id)) throw new Error(`id ${id} is taken twice`);
    const taken = { id };
    this.#taken.push(taken);
    this.#popped.push(taken);
    const { chain } = this.device;
    let bytes = 0;
    for (let at = 0; at < chain.buffers; at++) {
      const region = this.ring.memory.regionOf(chain.addresses[at]!, chain.lengths[at]!);
      if (region !== chain.regions[at] || chain.lengths[at] === 0) throw new Error('a buffer outside its region');
      bytes += chain.lengths[at]!;
    }
    if (chain.buffers === 0 || bytes !== chain.readableBytes + chain.writableBytes)
      throw new Error('bytes do not add up');
  }

  push(pick: number, length: number): void {
    if (this.#taken.length === 0) return;
    const [chain] = this.#taken.splice(pick % this.#taken.length, 1);
    this.device.push(chain!.id, length);
  }

  unpop(): void {
    const last = this.#popped.at(-1);
    if (last === undefined || last !== this.#taken.at(-1)) return;
    this.#popped.pop();
    this.#taken.pop();
    this.device.unpop(1);
  }

  /** Of memory the device may have written only its descriptors and its event suppression structure. */
  check(): void {
    const { desc, deviceEvent } = this.ring.layout;
    this.#mirror.allow(desc, 16 * this.size);
    this.#mirror.allow(deviceEvent, 4);
    this.#mirror.check();
  }
}

const descriptor = (size: number): fc.Arbitrary<Written> =>
  fc.record({
    address,
    length,
    id: rarely<number | undefined>(fc.constant(undefined), fc.oneof(fc.nat(size - 1), fc.nat(65535))),
    flags,
  });

type DeviceStep = (trial: DeviceTrial) => void;
const step = <T>(weight: number, arbitrary: fc.Arbitrary<T>, run: (trial: DeviceTrial, value: T) => void) => ({
  weight,
  arbitrary: arbitrary.map(
    (value): DeviceStep =>
      (trial) =>
        run(trial, value),
  ),
});
const plain = (weight: number, run: DeviceStep) => step(weight, fc.constant(null), run);

const deviceSteps = (size: number): fc.Arbitrary<DeviceStep[]> =>
  fc.array(
    fc.oneof(
      step(6, fc.array(descriptor(size), { minLength: 1, maxLength: Math.min(4, size + 1) }), (trial, offered) =>
        trial.offer(offered),
      ),
      step(1, fc.tuple(fc.nat(), fc.uint8Array({ minLength: 1, maxLength: 24 })), (trial, [at, bytes]) =>
        trial.scribble(at, bytes),
      ),
      step(2, fc.tuple(fc.nat(3), descriptor(size)), (trial, [index, entry]) => trial.describe(TABLE, index, entry)),
      plain(8, (trial) => trial.pop()),
      step(5, fc.tuple(fc.nat(64), fc.nat(2 ** 32 - 1)), (trial, [pick, bytes]) => trial.push(pick, bytes)),
      plain(1, (trial) => trial.unpop()),
      plain(4, (trial) => void trial.device.publish()),
      plain(1, (trial) => void trial.device.enableKicks()),
      plain(1, (trial) => void trial.device.enableKicksForMore()),
      plain(1, (trial) => trial.device.disableKicks()),
    ),
    { maxLength: 100, size: 'max' },
  );

test('a driver that writes anything at any time', () => {
  let chains = 0;
  let broken = 0;
  const trials = fc
    .integer({ min: 1, max: 16 })
    .chain((size) => fc.tuple(fc.constant(size), fc.boolean(), deviceSteps(size)));
  void fc.assert(
    fc.property(trials, ([size, eventIdx, steps]) => {
      const trial = new DeviceTrial(size, eventIdx);
      for (const run of steps) run(trial);
      trial.check();
      chains += trial.chains;
      if (trial.device.error !== null) broken++;
    }),
    { numRuns: 1500 },
  );
  expect(chains).toBeGreaterThan(2000);
  expect(broken).toBeGreaterThan(300);
  expect(broken).toBeLessThan(1500);
});

const STATE = TABLE;

class DriverTrial {
  readonly ring: HandRing;
  driver: PackedDriver;
  readonly #mirror: Mirror;
  /** Descriptors of the chains in flight, by id. */
  readonly #out = new Map<number, number>();
  taken = 0;
  lies = 0;

  constructor(
    readonly size: number,
    readonly eventIdx: boolean,
  ) {
    this.ring = new HandRing(size);
    this.driver = PackedDriver.format(this.ring.memory, STATE, { size, ...this.ring.layout, eventIdx });
    this.#mirror = new Mirror(this.ring.memory);
  }

  scribble(offset: number, bytes: Uint8Array): void {
    const at = this.ring.layout.desc + (offset % this.ring.layout.bytes);
    this.ring.memory.regions[0]!.u8.set(bytes, at - this.ring.layout.desc);
    this.#mirror.allow(at, bytes.length);
  }

  /** A used descriptor where the driver looks for it, of a chain that is out or any other. */
  use(pick: number, written: number, lie: boolean): void {
    const state = ringErrorsOnly(() => this.driver.queueState());
    if (state === undefined) return;
    const ids = [...this.#out.keys()];
    const id = lie || ids.length === 0 ? pick % (this.size + 1) : ids[pick % ids.length]!;
    this.ring.describe(state.nextAvail, 0, written, id, state.packed!.usedWrap ? AVAIL | USED | 2 : 2);
    this.#mirror.allow(this.ring.layout.desc + 16 * state.nextAvail, 16);
  }

  post(buffers: number): void {
    if (buffers > this.size) return;
    const id = this.driver.chainBegin(buffers);
    if (id < 0) return;
    for (let buffer = 0; buffer < buffers; buffer++) this.driver.chainAdd(DATA, 0, 64, true);
    this.driver.chainEnd();
    if (this.#out.has(id)) throw new Error(`id ${id} is given twice`);
    this.#out.set(id, buffers);
  }

  takeBack(max: number, again: boolean): void {
    const pending = ringErrorsOnly(() => this.driver.pending());
    if (pending === undefined) {
      this.lies++;
      return;
    }
    const count = Math.min(max, pending);
    for (let position = 0; position < count; position++) {
      const id = this.driver.usedId(position);
      if (!this.#out.has(id)) throw new Error(`id ${id} is not out`);
      if (!again) this.#out.delete(id);
    }
    if (again) this.driver.repost(count);
    else this.driver.release(count);
    this.taken += count;
  }

  /** Everything is free or in flight, and nothing but the driver's own was written. */
  check(): void {
    const out = [...this.#out.values()].reduce((sum, descriptors) => sum + descriptors, 0);
    expect([this.driver.free, this.driver.inFlight]).toEqual([this.size - out, this.#out.size]);
    const { desc, driverEvent } = this.ring.layout;
    this.#mirror.allow(desc, 16 * this.size);
    this.#mirror.allow(driverEvent, 4);
    const state = this.driver.ranges('').find(({ name }) => name.endsWith('state'))!;
    this.#mirror.allow(state.gpa, state.length);
    this.#mirror.check();
  }
}

type DriverStep = (trial: DriverTrial) => void;

const driverSteps = (size: number): fc.Arbitrary<DriverStep[]> =>
  fc.array(
    fc
      .tuple(fc.nat(99), fc.nat(), fc.uint8Array({ minLength: 1, maxLength: 24 }))
      .map(([kind, value, bytes]): DriverStep => {
        if (kind < 3) return (trial) => trial.scribble(value, bytes);
        if (kind < 30) return (trial) => trial.use(value, value, kind === 5);
        if (kind < 50) return (trial) => trial.post(1 + (value % 3));
        if (kind < 70) return (trial) => void trial.driver.publish();
        if (kind < 90) return (trial) => trial.takeBack(value % (size + 1), kind < 80);
        if (kind < 94) return (trial) => void trial.driver.enableCalls();
        if (kind < 97) return (trial) => trial.driver.disableCalls();
        return (trial) => {
          trial.driver = PackedDriver.attach(trial.ring.memory, STATE);
        };
      }),
    { maxLength: 100, size: 'max' },
  );

test('a device that writes anything at any time', () => {
  let taken = 0;
  let lies = 0;
  const trials = fc
    .integer({ min: 1, max: 16 })
    .chain((size) => fc.tuple(fc.constant(size), fc.boolean(), driverSteps(size)));
  void fc.assert(
    fc.property(trials, ([size, eventIdx, steps]) => {
      const trial = new DriverTrial(size, eventIdx);
      for (const run of steps) run(trial);
      trial.check();
      taken += trial.taken;
      lies += trial.lies;
    }),
    { numRuns: 1500 },
  );
  expect(taken).toBeGreaterThan(2000);
  expect(lies).toBeGreaterThan(300);
});

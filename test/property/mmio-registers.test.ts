/**
 * Whatever a driver writes to the registers of a device, in whatever order and whatever lies in its memory: no access throws, and a driver
 * that behaves gets a working device back. On a real tap, with a station on the other side that never stops sending.
 */
import * as fc from 'fast-check';
import type { Backend } from '../../lib/backend/backend';
import { VirtioMmio } from '../../lib/device/virtio-mmio';
import { VirtioNetDevice } from '../../lib/device/virtio-net-device';
import { GuestRunner } from '../../lib/guest/guest-runner';
import { NetDriver } from '../../lib/guest/net-driver';
import { PAGE_SIZE } from '../../lib/memory/address';
import { GuestWriteLog } from '../../lib/memory/dirty-log';
import { DeviceRig, EVERYTHING, STATION_MAC } from '../helpers/device-rig';
import { StubBackend } from '../helpers/stub-backend';
import { until } from '../helpers/vhost-wait';

const PAIRS = 2;
const BOOT = 0x10_0000;
/** Where sequences put their rings. */
const RINGS = 0x200_0000;
/** One for each queue: descriptors, available ring and used ring at these offsets. */
const SLOT = 0x2000;
const PARTS = [0, 0x800, 0x1000];
const STATUS = 0x70;
const VERSION_1 = 1n << 32n;
const PACKED = 1n << 34n;
const FRAMES = 20;
const KNOWN_STATUS = 1 | 2 | 4 | 8 | 64 | 128;

let rig: DeviceRig;
let runner: GuestRunner | null = null;

beforeAll(async () => {
  rig = await DeviceRig.create({ pairs: PAIRS, rate: 4000 });
  rig.station.start();
});

afterAll(async () => {
  await runner?.pause();
  await rig.close();
});

const later = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));
const heard = (): number => rig.station.ledgers.reduce((sum, one) => sum + one.received + one.duplicated, 0);

/** A driver as it should be finds the device, whatever state it is in, and passes frames both ways. */
async function works(wanted = EVERYTHING & ~PACKED): Promise<NetDriver> {
  await runner?.pause();
  const log = new GuestWriteLog(rig.memory.end / PAGE_SIZE);
  const driver = await NetDriver.start(rig.mmio, rig.memory, {
    wanted,
    log,
    gpa: BOOT,
    program: 'traffic',
    peerMac: STATION_MAC,
    rate: 4000,
    flow: 1,
    receiveFlow: 101,
    shape: 'udp',
    rxSize: 64,
    txSize: 64,
    ledgerCapacity: 1024,
  });
  await rig.device.settled();
  expect([driver.mmio.status, rig.device.running]).toEqual([15, true]);
  runner = new GuestRunner(driver.guest, rig.device, log);
  runner.resume();
  const before = heard();
  const { guest } = driver;
  const received = (): number => guest.counters.received;
  await until('frames go both ways', () => received() >= FRAMES && heard() >= before + FRAMES);
  expect([driver.mmio.needsReset, runner.failure]).toEqual([false, null]);
  return driver;
}

/** What must hold whatever was written. */
function sane(): void {
  const { mmio, device } = rig;
  const status = mmio.read(STATUS, 4);
  expect(status & ~KNOWN_STATUS).toBe(0);
  // Nothing that a driver has not set a queue up for can break the device.
  if ((status & 64) !== 0) expect(status & 8).toBe(8);
  if ((status & 4) !== 0) expect(status & 8).toBe(8);
  if ((status & 8) !== 0) expect(status & 2).toBe(2);
  if ((status & 8) === 0) expect(device.features).toBe(0n);
  expect(device.features & ~device.offeredFeatures).toBe(0n);
  if (device.running) expect(status & 4).toBe(4);
  // A device without DRIVER_OK stands; one with it runs, unless it could not be started.
  if ((status & (4 | 64)) === 4) expect(device.running).toBe(true);
  expect(mmio.interruptStatus & ~3).toBe(0);
}

const seen = (mmio: VirtioMmio): number[] => {
  const selected = mmio.save().queueSel as number;
  const found = [STATUS, 0x60, 0x10, 0xfc, 0x106].map((at) => mmio.read(at, at < 0x100 ? 4 : 2));
  for (let queue = 0; queue < 6; queue++) {
    mmio.write(0x30, 4, queue);
    found.push(...[0x34, 0x44, 0xc0].map((at) => mmio.read(at, 4)));
  }
  mmio.write(0x30, 4, selected);
  return found;
};

/** Wherever the driver has brought the device, a migration can take it away, and the driver finds the same registers. */
async function movable(): Promise<void> {
  const { device, mmio, memory } = rig;
  await device.stop();
  const state = JSON.parse(JSON.stringify(device.save())) as unknown;
  const other = VirtioNetDevice.restore(state, { memory, backend: new StubBackend(), properties: device.properties });
  const moved = new VirtioMmio(other, { watchCalls: false });
  expect(JSON.parse(JSON.stringify(other.save()))).toEqual(state);
  expect(seen(moved)).toEqual(seen(mmio));
  moved.close();
  await other.close();
}

type Step =
  | { kind: 'write'; offset: number; size: number; value: number }
  | { kind: 'read'; offset: number; size: number }
  | { kind: 'turn' }
  | { kind: 'settle' }
  | { kind: 'negotiate'; features: bigint }
  | { kind: 'queue'; queue: number; at: number; size: number }
  | { kind: 'boot'; features: bigint; size: number }
  | { kind: 'garbage'; at: number; bytes: Uint8Array };

const REGISTERS = [
  0x14, 0x20, 0x24, 0x30, 0x34, 0x38, 0x44, 0x50, 0x60, 0x64, 0x70, 0x80, 0x84, 0x90, 0x94, 0xa0, 0xa4, 0xac, 0xc0,
  0xfc, 0x100, 0x106,
];
const often = <T>(weight: number, likely: fc.Arbitrary<T>, anything: fc.Arbitrary<T>): fc.Arbitrary<T> =>
  fc.oneof({ weight, arbitrary: likely }, { weight: 1, arbitrary: anything });
const offset = often(12, fc.constantFrom(...REGISTERS), fc.nat(0x220));
const size = often(15, fc.constant(4), fc.constantFrom(1, 2, 8));
const address = fc.oneof(
  fc.nat(15).map((slot) => RINGS + slot * 0x1000),
  fc.constantFrom(0, BOOT, 64 * 2 ** 20 - 16, 64 * 2 ** 20, 0xffffffff),
);
const value = fc.oneof(
  fc.constantFrom(0, 1, 2, 3, 4, 5, 8, 11, 15, 16, 64, 128, 256, 0x8000, 0x10000, 2 ** 32 - 1),
  address,
  fc.integer({ min: 0, max: 2 ** 32 - 1 }),
);
const features = fc.oneof(
  fc.constantFrom(EVERYTHING, EVERYTHING & ~PACKED, VERSION_1, VERSION_1 | PACKED, VERSION_1 | (1n << 17n), 0n),
  fc.bigInt({ min: 0n, max: EVERYTHING }),
);
const step: fc.Arbitrary<Step> = fc.oneof(
  { weight: 8, arbitrary: fc.record({ kind: fc.constant('write' as const), offset, size, value }) },
  {
    weight: 3,
    arbitrary: fc.record({
      kind: fc.constant('write' as const),
      offset: fc.constant(STATUS),
      size: fc.constant(4),
      value: fc.constantFrom(0, 3, 11, 15, 15, 128, 255),
    }),
  },
  { weight: 2, arbitrary: fc.record({ kind: fc.constant('read' as const), offset, size }) },
  { weight: 2, arbitrary: fc.constant({ kind: 'turn' as const }) },
  { weight: 1, arbitrary: fc.constant({ kind: 'settle' as const }) },
  { weight: 2, arbitrary: fc.record({ kind: fc.constant('negotiate' as const), features }) },
  {
    weight: 4,
    arbitrary: fc.record({ kind: fc.constant('boot' as const), features, size: fc.constantFrom(1, 4, 16, 64) }),
  },
  {
    weight: 5,
    arbitrary: fc.record({
      kind: fc.constant('queue' as const),
      queue: fc.nat(6),
      at: fc.nat(7).map((slot) => RINGS + slot * SLOT),
      size: fc.constantFrom(1, 2, 3, 8, 16, 64, 256, 512),
    }),
  },
  {
    weight: 3,
    arbitrary: fc.record({
      kind: fc.constant('garbage' as const),
      at: fc.tuple(fc.nat(6), fc.constantFrom(...PARTS)).map(([slot, part]) => RINGS + slot * SLOT + part),
      bytes: fc.uint8Array({ minLength: 4, maxLength: 64 }),
    }),
  },
);

const write = (at: number, word: number): void => rig.mmio.write(at, 4, word);

function negotiate(wanted: bigint): void {
  write(STATUS, 3);
  const acked = wanted & rig.device.offeredFeatures;
  for (let window = 0; window < 4; window++) {
    write(0x24, window);
    write(0x20, Number((acked >> BigInt(32 * window)) & 0xffffffffn));
  }
  write(STATUS, 11);
}

function setUp(queue: number, at: number, entries: number): void {
  write(0x30, queue);
  write(0x38, entries);
  for (const [index, register] of [0x80, 0x90, 0xa0].entries()) {
    write(register, at + PARTS[index]!);
    write(register + 4, 0);
  }
  write(0x44, 1);
}

/** A whole life on rings that hold whatever they hold: every queue there is, and then kicks. */
function boot(wanted: bigint, entries: number): void {
  write(STATUS, 0);
  negotiate(wanted);
  for (let queue = 0; queue < 5; queue++) setUp(queue, RINGS + queue * SLOT, entries);
  write(STATUS, 15);
  for (let queue = 0; queue < 5; queue++) write(0x50, queue);
}

async function take(next: Step): Promise<void> {
  const { mmio, device, memory } = rig;
  if (next.kind === 'write') mmio.write(next.offset, next.size, next.value);
  else if (next.kind === 'read') expect(Number.isInteger(mmio.read(next.offset, next.size))).toBe(true);
  else if (next.kind === 'turn') await later();
  else if (next.kind === 'settle') await device.settled();
  else if (next.kind === 'negotiate') negotiate(next.features);
  else if (next.kind === 'boot') boot(next.features, next.size);
  else if (next.kind === 'queue') setUp(next.queue, next.at, next.size);
  else memory.write(next.at, next.bytes);
}

/** How far the sequences came: a property that never leaves the first state says nothing. Times each was met. */
const reached = { running: 0, needsReset: 0, violations: 0, standing: 0 };

test('any sequence', async () => {
  await works();
  await fc.assert(
    fc.asyncProperty(
      fc.array(step, { minLength: 1, maxLength: 40 }),
      fc.constantFrom(EVERYTHING & ~PACKED, EVERYTHING, VERSION_1),
      fc.boolean(),
      async (steps, wanted, fromRunning) => {
        rig.violations.length = 0;
        await runner?.pause();
        if (!fromRunning) write(STATUS, 0);
        for (const next of steps) await take(next);
        await rig.device.settled();
        sane();
        const status = rig.mmio.read(STATUS, 4);
        if (rig.device.running) reached.running++;
        else reached.standing++;
        if ((status & 64) !== 0) reached.needsReset++;
        if (rig.violations.length > 0) reached.violations++;
        await movable();
        await works(wanted);
      },
    ),
    { numRuns: 300, endOnFailure: true },
  );
  for (const [what, times] of Object.entries(reached)) expect([what, times >= 10]).toEqual([what, true]);
});

describe('haste', () => {
  beforeEach(async () => {
    rig.violations.length = 0;
    rig.broken.length = 0;
    rig.memory.write(RINGS, new Uint8Array(8 * SLOT));
    await works();
  });

  afterEach(async () => {
    await rig.device.settled();
    sane();
    await works();
  });

  test('a storm of kicks, of every queue and of none, hurts nobody', async () => {
    for (let kick = 0; kick < 20_000; kick++) {
      write(0x50, kick % 8);
      if (kick % 1000 === 0) await later();
    }
    expect(rig.violations).toHaveLength((20_000 * 3) / 8);
    expect(rig.broken).toEqual([]);
    const before = heard();
    await until('frames still come', () => heard() > before + FRAMES);
  });

  test('resets without waiting for status 0, with half a set-up in between', async () => {
    for (let round = 0; round < 200; round++) {
      write(STATUS, 0);
      if (round % 3 > 0) negotiate(VERSION_1);
      if (round % 3 > 1) setUp(round % 2, RINGS, 16);
      if (round % 7 === 0) await later();
    }
    write(STATUS, 0);
    await rig.device.settled();
    expect([rig.mmio.read(STATUS, 4), rig.device.running, rig.broken]).toEqual([0, false, []]);
  });

  test('DRIVER_OK and a reset at once, many times over', async () => {
    const { starts } = spyOnStarts(rig.device.backend);
    for (let round = 0; round < 100; round++) {
      write(STATUS, 0);
      negotiate(VERSION_1);
      setUp(0, RINGS, 16);
      setUp(1, RINGS + SLOT, 16);
      write(STATUS, 15);
      if (round % 2 === 0) write(STATUS, 0);
      if (round % 10 === 5) await rig.device.settled();
    }
    await rig.device.settled();
    // Every life that was over before its turn came was never started.
    expect(starts()).toBe(11);
    expect([rig.mmio.read(STATUS, 4), rig.device.running]).toEqual([15, true]);
  });

  test('a reset during a reset, and one during the start', async () => {
    for (let turns = 0; turns < 40; turns++) {
      write(STATUS, 0);
      for (let turn = 0; turn < turns % 5; turn++) await Promise.resolve();
      write(STATUS, 0);
      negotiate(VERSION_1);
      setUp(0, RINGS, 16);
      write(STATUS, 15);
      for (let turn = 0; turn < turns; turn++) await Promise.resolve();
      write(STATUS, 0);
      if (turns % 4 === 0) {
        await rig.device.settled();
        expect([rig.mmio.read(STATUS, 4), rig.device.running]).toEqual([0, false]);
      }
    }
  });

  function spyOnStarts(backend: Backend): { starts: () => number } {
    let count = 0;
    const start = backend.start.bind(backend);
    backend.start = (device) => {
      count++;
      return start(device);
    };
    return {
      starts: () => {
        backend.start = start;
        return count;
      },
    };
  }
});

/** What gets dirty under real traffic, and for whom: emulated data path, real tap, nothing migrated. */
import { setTimeout as sleep } from 'node:timers/promises';
import type { EmulatedBackend } from '../../lib/backend/emulated';
import { PAGE_SIZE } from '../../lib/memory/address';
import { predictMeasured } from '../../lib/migration/what-if';
import { type DirtyRate, type LoggingDevice, type LoggingGuest, measureDirtyRate } from '../../lib/observe/dirty-rate';
import { dirtyRateText } from '../../lib/observe/dirty-rate-text';
import { type Machine, Rig } from '../helpers/migration-rig';
import { errorOf } from '../helpers/vhost-wait';

let rig: Rig;
let machine: Machine;

beforeEach(async () => {
  rig = await Rig.create();
  machine = await rig.boot(await rig.place('emulated'));
  await rig.flows(machine);
});

afterEach(() => rig.close());

const measure = (parts: { device?: LoggingDevice; guest?: LoggingGuest; signal?: AbortSignal } = {}) =>
  measureDirtyRate({ device: machine.device, guest: machine.runner, seconds: 0.5, intervalMs: 50, ...parts });

/** One whose writes nobody asks for: what is found then is the device's. */
const SILENT: LoggingGuest = {
  startDirtyLog: () => undefined,
  stopDirtyLog: () => undefined,
  dirtySource: { name: 'guest', takeInto: () => 0 },
};

const sum = (numbers: readonly number[]): number => numbers.reduce((one, other) => one + other, 0);
const total = ({ samples }: DirtyRate): number => sum(samples);
const queue = ({ byQueue }: DirtyRate, number: number) =>
  byQueue.find((row) => row.queue === number) ?? { usedRing: 0, driverRing: 0, buffers: 0 };

function expectReceiveOwnsBuffers(rate: DirtyRate): void {
  expect(queue(rate, 0)).toMatchObject({ kind: 'receive' });
  expect(queue(rate, 0).buffers).toBeGreaterThan(20);
  expect(queue(rate, 0).usedRing).toBeGreaterThan(0);
  expect(queue(rate, 1).buffers).toBe(0);
}

function expectSums(rate: DirtyRate): void {
  const owned = sum(rate.byQueue.map(({ usedRing, driverRing, buffers }) => usedRing + driverRing + buffers));
  expect(owned + rate.other).toBe(total(rate));
  expect(sum(Object.values(rate.byWriter))).toBe(total(rate));
  expect(rate.pagesPerSecond * rate.seconds).toBeCloseTo(total(rate), 3);
  expect(rate.bytesPerSecond).toBe(rate.pagesPerSecond * PAGE_SIZE);
}

/** The station falls silent, and what it has sent has come. */
async function hush(): Promise<void> {
  const sent = rig.station.hush();
  const deadline = Date.now() + 10_000;
  while (machine.runner.guest.ledger.received < sent && Date.now() < deadline) await sleep(5);
}

test('traffic both ways: receive buffers and used rings are found as such, and all adds up', async () => {
  const rate = await measure();
  expectReceiveOwnsBuffers(rate);
  expectSums(rate);
  expect(rate.samples).toHaveLength(10);
  expect(rate.distinctPages).toBeGreaterThan(20);
  expect(rate.distinctPages).toBeLessThanOrEqual(total(rate));
  expect(rate.alwaysDirtyPages).toBeGreaterThan(0);
  expect(rate.memoryPages).toBeGreaterThan(rate.distinctPages);
  expect(rate.byWriter.vhost).toBeGreaterThan(20);
  expect(rate.byWriter.guest).toBeGreaterThan(0);
  expect(rate.hottest[0]!.times).toBe(10);
  expect(rate.cut).toBe(false);
  expect(dirtyRateText(rate)).toContain('0 receive');
  // Nobody is disturbed: logging is off, traffic goes on.
  expect(machine.device.dirtyLog).toBeNull();
  expect(machine.runner.dirtySource.enabled).toBe(false);
  await rig.flows(machine);
});

test("what the device writes is the queues' alone: nothing of it is other", async () => {
  const rate = await measure({ guest: SILENT });
  expectReceiveOwnsBuffers(rate);
  expect(rate.other).toBe(0);
});

test('planted: queues taken for each other are noticed', async () => {
  const { device } = machine;
  const swapped: LoggingDevice = {
    memory: device.memory,
    features: device.features,
    queues: [device.queues[1]!, device.queues[0]!],
    controlQueue: device.controlQueue,
    get dirtyLog() {
      return device.dirtyLog;
    },
    startDirtyLog: () => device.startDirtyLog(),
    stopDirtyLog: () => device.stopDirtyLog(),
  };
  const rate = await measure({ device: swapped });
  expectSums(rate);
  expect(() => expectReceiveOwnsBuffers(rate)).toThrow();
});

test('traffic from the guest alone dirties ring pages, and no page more', async () => {
  await hush();
  const backend = machine.device.backend as EmulatedBackend;
  const sent = machine.runner.guest.sent;
  const before = backend.counters[0]!.received;
  const rate = await measure({ guest: SILENT });
  expect(machine.runner.guest.sent).toBeGreaterThan(sent + 100);
  expect(queue(rate, 1).usedRing).toBeGreaterThan(0);
  // What the network says by itself, such as a bridge's own frames, is a frame or two, of two pages at most.
  const heard = backend.counters[0]!.received - before;
  expect(heard).toBeLessThan(10);
  expect(queue(rate, 0).buffers).toBeLessThanOrEqual(2 * heard);
  expect(queue(rate, 1).buffers + rate.other).toBe(0);
  expect(queue(rate, 1).usedRing + queue(rate, 1).driverRing).toBeGreaterThanOrEqual(total(rate) - 4 * heard);
});

test('an idle guest has nearly none', async () => {
  await hush();
  await rig.settle(machine);
  const rate = await measure();
  expect(total(rate)).toBeLessThan(20);
});

test('a measurement is enough to predict a migration with', async () => {
  const rate = await measure();
  const fast = predictMeasured(rate, { bandwidth: 125e6, downtimeLimitMs: 300 });
  expect(fast).toMatchObject({ converged: true });
  expect(fast.bytes).toBeGreaterThanOrEqual(rate.memoryPages * PAGE_SIZE);
  const slow = predictMeasured(rate, { bandwidth: 1e4, downtimeLimitMs: 300, strategy: 'cancel' });
  expect(slow).toMatchObject({ converged: false });
  expect(slow.reason).not.toBe('');
});

test('while a migration, or anybody, logs, it is refused; the log stays', async () => {
  const log = await machine.device.startDirtyLog();
  const { code, message } = await errorOf(measure());
  expect(code).toBe('VHOST_ERR_STATE');
  expect(message).toContain('dirty logging is on already');
  expect(machine.device.dirtyLog).toBe(log);
  await machine.device.stopDirtyLog();
  expectSums(await measure());
});

test.each([{ seconds: 0 }, { seconds: Number.NaN }, { intervalMs: 0.5 }, { seconds: 0.1, intervalMs: 200 }])(
  '%p is refused, and nothing is turned on',
  async (options) => {
    const parts = { device: machine.device, guest: machine.runner };
    expect((await errorOf(measureDirtyRate({ ...parts, ...options }))).code).toBe('VHOST_ERR_INVALID_ARGUMENT');
    expect(machine.device.dirtyLog).toBeNull();
  },
);

test('cancelled in the middle, logging is off', async () => {
  const abort = new AbortController();
  const running = errorOf(measure({ signal: abort.signal }));
  setTimeout(() => abort.abort(new Error('enough')), 120);
  const { code, message } = await running;
  expect([code, message]).toEqual(['VHOST_ERR_ABORTED', 'cancelled while the dirty rate was measured: enough']);
  expect(machine.device.dirtyLog).toBeNull();
  expect(machine.runner.dirtySource.enabled).toBe(false);
});

test('whose log is turned off by somebody else, it says so and leaves the next log alone', async () => {
  const running = errorOf(measure());
  setTimeout(async () => {
    await machine.device.stopDirtyLog();
    await machine.device.startDirtyLog();
  }, 120);
  expect((await running).code).toBe('VHOST_ERR_STATE');
  expect(machine.device.dirtyLog).not.toBeNull();
  await machine.device.stopDirtyLog();
});

/** Resets of the device and of single queues, broken rings, pulled cables and pauses, under traffic, on every data path. */
import { VIRTIO_MMIO_INT_CONFIG, VIRTIO_MMIO_STATUS } from '../../lib/constants/virtio-mmio';
import { VIRTIO_F_RING_PACKED } from '../../lib/constants/virtio-net';
import { VRING_DESC_F_NEXT, VRING_DESC_F_WRITE } from '../../lib/constants/virtio-ring';
import { gpa } from '../../lib/memory/address';
import type { GuestMemory } from '../../lib/memory/guest-memory';
import { bit } from '../../lib/net/features';
import type { QueueState } from '../../lib/virtqueue/queue-state';
import { DeviceRig, EVERYTHING, type PathKind, pathKinds } from '../helpers/device-rig';
import { RawNetDriver } from '../helpers/raw-net-driver';
import { numberedFrame, RawTalk } from '../helpers/raw-talk';
import { sleep, until } from '../helpers/vhost-wait';

const nothingWrong = { lost: 0, duplicated: 0, reordered: 0, corrupted: 0 };
const SPLIT = EVERYTHING & ~bit(VIRTIO_F_RING_PACKED);
const RESETS = 20;
/** Frames a second each way: what an emulated processor keeps up with, too. */
const RATE = 500;
/** Far behind the 64 MiB of the rig. */
const NOWHERE = 0x10_0000_0000;

const u16 = (memory: GuestMemory, address: number): number =>
  new DataView(memory.read(address, 2).buffer).getUint16(0, true);

async function rawRig(kind: PathKind): Promise<{ rig: DeviceRig; levels: boolean[] }> {
  const levels: boolean[] = [];
  const interrupt = { set: (high: boolean) => void levels.push(high) };
  return { rig: await DeviceRig.create({ kind, rate: RATE, mmio: { watchCalls: true, interrupt } }), levels };
}

/** Processors that this process, its kernel workers included, keeps busy over some milliseconds of nothing. */
async function busyness(milliseconds: number): Promise<number> {
  const [began, before] = [performance.now(), process.cpuUsage()];
  await sleep(milliseconds);
  const { user, system } = process.cpuUsage(before);
  return (user + system) / 1000 / (performance.now() - began);
}

/** Frames go both ways through a driver that begins from nothing. */
async function expectWorks(rig: DeviceRig): Promise<void> {
  const driver = await RawNetDriver.start(rig.mmio, rig.memory, { wanted: SPLIT });
  await rig.device.settled();
  expect(driver.mmio.needsReset).toBe(false);
  await driver.send(numberedFrame(rig, 0));
  rig.station.start();
  expect(await driver.frames(10)).not.toEqual([]);
  rig.station.hush();
  expect(driver.mmio.needsReset).toBe(false);
  await driver.mmio.reset();
}

describe.each(pathKinds())('%s', (kind) => {
  test(`${RESETS} resets under traffic`, async () => {
    await using rig = await DeviceRig.create({ kind, rate: RATE });
    await rig.boot(SPLIT);
    for (let life = 0; life < RESETS; life++) {
      await rig.flows(5 + 3 * (life % 5));
      const { mmio } = rig.driver;
      const rings = rig.device.queues.map(({ usedRing }) => usedRing);
      const used = (): number[] => rings.map((ring) => u16(rig.memory, ring + 2));
      mmio.write(VIRTIO_MMIO_STATUS, 0);
      expect(mmio.status).not.toBe(0);
      await until('the reset', () => mmio.status === 0);
      expect(rig.device.running).toBe(false);
      const stood = used();
      await sleep(10);
      expect(used()).toEqual(stood);
      expect(Math.min(...stood)).toBeGreaterThan(0);
      await rig.crash();
      await rig.boot(SPLIT);
      expect(rig.device.queues.map(({ nextAvail }) => nextAvail)).toEqual([0, 0]);
    }
    await rig.flows(60);
    const { toNetwork, toGuest } = await rig.settle();
    expect([rig.violations, rig.broken]).toEqual([[], []]);
    expect(toNetwork).toMatchObject(nothingWrong);
    expect(toGuest).toMatchObject(nothingWrong);
  });

  test('a driver that comes again without a word, time after time', async () => {
    await using rig = await DeviceRig.create({ kind, rate: RATE });
    await rig.boot(SPLIT);
    for (let life = 0; life < 5; life++) {
      await rig.flows(30);
      await rig.crash();
      expect(rig.device.running).toBe(true);
      await rig.boot(SPLIT);
    }
    await rig.flows(60);
    const { toNetwork, toGuest } = await rig.settle();
    expect([rig.violations, rig.broken]).toEqual([[], []]);
    expect(toNetwork).toMatchObject(nothingWrong);
    expect(toGuest).toMatchObject(nothingWrong);
  });

  test('resets of one queue under traffic: it goes on elsewhere, the other one all the time', async () => {
    await using rig = await DeviceRig.create({ kind, rate: RATE });
    const driver = await RawNetDriver.start(rig.mmio, rig.memory, { wanted: SPLIT });
    using talk = new RawTalk(rig, driver);
    await talk.start();
    for (let round = 0; round < 5; round++) {
      await talk.pass(20);
      const { descTable } = rig.device.queues[0]!;
      const heard = (): number => rig.station.ledger.received;
      const [network, guest] = [heard(), talk.ledger.received];
      talk.account(
        await talk.without('receive', () =>
          driver.renewReceive(() => until('frames to the network', () => heard() >= network + 10)),
        ),
      );
      expect(rig.device.queues[0]!.descTable).not.toBe(descTable);
      await talk.without('transmit', () =>
        driver.renewTransmit(() => until('frames to the guest', () => talk.ledger.received >= guest + 10)),
      );
    }
    await talk.pass(20);
    const { toNetwork, toGuest } = await talk.settle();
    expect([rig.violations, rig.broken]).toEqual([[], []]);
    expect(toNetwork).toMatchObject(nothingWrong);
    expect(toGuest).toMatchObject(nothingWrong);
  });

  describe('faults', () => {
    let rig: DeviceRig;
    let levels: boolean[];

    beforeAll(async () => {
      ({ rig, levels } = await rawRig(kind));
    });

    afterAll(() => rig.close());

    beforeEach(() => rig.crash());

    const garbage: [string, Partial<QueueState>][] = [
      ['a descriptor table outside memory', { descTable: gpa(NOWHERE) }],
      ['an available ring outside memory', { availRing: gpa(NOWHERE) }],
      ['a used ring that leaves memory', { usedRing: gpa(64 * 1024 * 1024 - 8) }],
      ['a descriptor table at an odd multiple of 8', { descTable: gpa(0x20_0008) }],
      ['an available ring at an odd address', { availRing: gpa(0x20_0001) }],
      ['a used ring at an odd multiple of 2', { usedRing: gpa(0x20_0002) }],
      ['a size that is no power of two', { size: 48 }],
      ['a size of 0', { size: 0 }],
      ['a size beyond the largest', { size: 512 }],
    ];

    test('queues that cannot be, before DRIVER_OK, and what comes after a reset', async () => {
      for (const [name, wrong] of garbage) {
        const { mmio } = await RawNetDriver.negotiate(rig.mmio, rig.memory, { wanted: SPLIT });
        const sound = {
          size: 64,
          ready: true,
          descTable: gpa(0x20_0000),
          availRing: gpa(0x21_0000),
          usedRing: gpa(0x22_0000),
          nextAvail: 0,
        };
        mmio.setUpQueue(0, { ...sound, ...wrong });
        expect([name, mmio.needsReset]).toEqual([name, true]);
        mmio.driverOk();
        await rig.device.settled();
        expect([name, rig.device.running]).toEqual([name, false]);
      }
      expect(rig.broken).toHaveLength(garbage.length);
      await expectWorks(rig);
    });

    test('queues that cannot be, after DRIVER_OK: the driver is told by a configuration interrupt', async () => {
      for (const [name, wrong] of garbage) {
        const driver = await RawNetDriver.start(rig.mmio, rig.memory, { wanted: SPLIT });
        await rig.device.settled();
        const sound = driver.rx.ring.queueState();
        await driver.mmio.resetQueue(0);
        driver.mmio.takeInterrupts();
        expect(levels.at(-1) ?? false).toBe(false);
        driver.mmio.setUpQueue(0, { ...sound, ...wrong });
        expect([name, driver.mmio.needsReset]).toEqual([name, true]);
        expect(driver.mmio.takeInterrupts() & VIRTIO_MMIO_INT_CONFIG).toBe(VIRTIO_MMIO_INT_CONFIG);
        expect(levels.slice(-2)).toEqual([true, false]);
      }
      await expectWorks(rig);
    });

    /** Puts something into a ring, past the driver. */
    const faults: [string, 0 | 1, (driver: RawNetDriver) => void][] = [
      ['a frame to send outside memory', 1, ({ tx }) => void tx.ring.post(0, NOWHERE / 2 ** 32, 64, false)],
      ['a receive buffer outside memory', 0, (driver) => replaceBuffers(driver, NOWHERE)],
      ['a buffer to write to in the transmit queue', 1, ({ tx }) => void tx.ring.post(tx.buffers, 0, 64, true)],
      [
        'a chain that goes round',
        1,
        ({ tx, memory }) => {
          const head = tx.ring.chainBegin(2);
          for (let part = 0; part < 2; part++) tx.ring.chainAdd(tx.buffers, 0, 64, false);
          tx.ring.chainEnd();
          const { descTable } = tx.ring.queueState();
          const at = (id: number): number => descTable + 16 * id;
          const next = u16(memory, at(head) + 14);
          memory.write(at(next) + 12, Uint8Array.of(VRING_DESC_F_NEXT, 0, head, 0));
        },
      ],
      [
        'a chain that begins at no descriptor',
        1,
        ({ tx, memory }) => {
          tx.ring.post(tx.buffers, 0, 64, false);
          const { availRing, size } = tx.ring.queueState();
          const index = u16(memory, availRing + 2);
          memory.write(availRing + 4 + 2 * (index % size), Uint8Array.of(0xff, 0xff));
        },
      ],
    ];

    test.each(faults)('a ring that breaks while it runs: %s', async (_name, queue, plant) => {
      const driver = await RawNetDriver.start(rig.mmio, rig.memory, { wanted: SPLIT });
      await rig.device.settled();
      await driver.send(numberedFrame(rig, 0));
      await until('the station hears it', () => rig.station.ledger.received === 1);
      driver.mmio.takeInterrupts();
      plant(driver);
      if (queue === 1) driver.tx.ring.publish();
      driver.mmio.kick(queue);
      if (queue === 0) rig.station.start();
      await until('the device needs a reset', () => driver.mmio.needsReset);
      expect(driver.mmio.takeInterrupts() & VIRTIO_MMIO_INT_CONFIG).toBe(VIRTIO_MMIO_INT_CONFIG);
      expect(rig.broken).toEqual([expect.stringContaining(`queue ${queue}`)]);

      // The other ring goes on.
      if (queue === 0) {
        rig.station.hush();
        await driver.send(numberedFrame(rig, 1));
        await until('the station hears it', () => rig.station.ledger.received === 2);
      } else {
        rig.station.start();
        expect(await driver.frames(5)).not.toEqual([]);
        rig.station.hush();
      }
      await sleep(20);
      driver.receive();
      // And nobody turns in circles.
      await until('rest', async () => (await busyness(100)) < 0.3);
      await driver.mmio.reset();
      await expectWorks(rig);
    });
  });

  test('what comes to light while a device is reset does not break its next life', async () => {
    const { rig } = await rawRig(kind);
    await using _ = rig;
    const driver = await RawNetDriver.start(rig.mmio, rig.memory, { wanted: SPLIT });
    await rig.device.settled();
    driver.mmio.write(VIRTIO_MMIO_STATUS, 0);
    rig.device.backend.emit('ringError', { queue: 1, message: 'a fault of the life before' });
    await until('the reset', () => driver.mmio.status === 0);
    expect(rig.broken).toEqual([]);
    await expectWorks(rig);
    // A fault of this one does.
    await RawNetDriver.start(rig.mmio, rig.memory, { wanted: SPLIT });
    await rig.device.settled();
    rig.device.backend.emit('ringError', { queue: 1, message: 'a fault of this life' });
    expect(rig.broken).toEqual(['queue 1: a fault of this life']);
  });

  test('a pulled cable: no frame comes until it is plugged again, and the driver is told both times', async () => {
    const { rig } = await rawRig(kind);
    await using _ = rig;
    const driver = await RawNetDriver.start(rig.mmio, rig.memory, { wanted: SPLIT });
    await rig.device.settled();
    await driver.send(numberedFrame(rig, 0));
    rig.station.start();
    await driver.frames(20);
    driver.mmio.takeInterrupts();
    for (const up of [false, true]) {
      expect(driver.mmio.config().linkUp).toBe(!up);
      const generation = rig.device.configGeneration;
      await rig.device.setLink(up);
      expect(driver.mmio.takeInterrupts() & VIRTIO_MMIO_INT_CONFIG).toBe(VIRTIO_MMIO_INT_CONFIG);
      expect(driver.mmio.config().linkUp).toBe(up);
      expect(rig.device.configGeneration).not.toBe(generation);
      if (up) break;
      // What was on its way arrives.
      await until('silence', async () => (await driver.quiet(50)).length === 0);
      expect(await driver.quiet(200)).toEqual([]);
    }
    expect(await driver.frames(20)).not.toEqual([]);
    expect([rig.violations, rig.broken]).toEqual([[], []]);
  });

  test('pauses under traffic lose nothing while the queue of the tap holds', async () => {
    await using rig = await DeviceRig.create({ kind, rate: RATE });
    await rig.boot(SPLIT);
    for (let pause = 0; pause < 5; pause++) {
      await rig.flows(60);
      await rig.device.stop();
      expect(rig.device.running).toBe(false);
      await sleep(50);
      await rig.device.start();
    }
    await rig.flows(60);
    const { toNetwork, toGuest } = await rig.settle();
    expect([rig.violations, rig.broken]).toEqual([[], []]);
    expect(toNetwork).toMatchObject(nothingWrong);
    expect(toGuest).toMatchObject(nothingWrong);
  });
});

/** Lets every receive buffer lie elsewhere. */
function replaceBuffers({ rx, memory }: RawNetDriver, address: number): void {
  const { descTable, size } = rx.ring.queueState();
  for (let id = 0; id < size; id++) {
    const descriptor = new DataView(new ArrayBuffer(16));
    descriptor.setBigUint64(0, BigInt(address), true);
    descriptor.setUint32(8, rx.bufferSize, true);
    descriptor.setUint16(12, VRING_DESC_F_WRITE, true);
    memory.write(descTable + 16 * id, new Uint8Array(descriptor.buffer));
  }
}

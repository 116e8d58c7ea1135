/** The driver's side of the registers: what it does with a device, and what it says when a device does not go along. */

import type { OfferOptions } from '../../../lib/device/device-options';
import { VirtioMmio } from '../../../lib/device/virtio-mmio';
import { VirtioNetDevice } from '../../../lib/device/virtio-net-device';
import { VhostError } from '../../../lib/errors';
import { type MmioBus, MmioDriver } from '../../../lib/guest/mmio-driver';
import { NetDriver, type NetDriverOptions } from '../../../lib/guest/net-driver';
import { gpa } from '../../../lib/memory/address';
import { GuestMemory } from '../../../lib/memory/guest-memory';
import { EVERYTHING, GUEST_MAC } from '../../helpers/device-rig';
import { StubBackend } from '../../helpers/stub-backend';
import { codeOf, errorOf } from '../../helpers/vhost-wait';

const VERSION_1 = 1n << 32n;
let memory: GuestMemory;
let device: VirtioNetDevice;
let mmio: VirtioMmio;
let violations: string[];

async function offer(options: Partial<OfferOptions> = {}): Promise<void> {
  device = await VirtioNetDevice.offer({ memory, backend: new StubBackend(), mac: GUEST_MAC, ...options });
  mmio = new VirtioMmio(device, { watchCalls: false });
  violations = [];
  device.on('violation', (what) => violations.push(what));
}

const start = (options: Partial<NetDriverOptions> = {}): Promise<NetDriver> =>
  NetDriver.start(mmio, memory, {
    wanted: EVERYTHING,
    gpa: 0x10_0000,
    program: 'sink',
    ledgerCapacity: 1024,
    ...options,
  });

beforeEach(() => {
  memory = GuestMemory.create([{ gpa: 0, size: 32 * 2 ** 20 }]);
});

afterEach(async () => {
  mmio.close();
  await device.close();
  memory.close();
});

describe('a whole start', () => {
  test.each([
    ['as long as the device’s', { rxQueueSize: 32, txQueueSize: 16 }, {}, [32, 16]],
    ['no longer than asked for', {}, { rxSize: 8, txSize: 128 }, [8, 128]],
    ['no longer than the device’s', { rxQueueSize: 32, txQueueSize: 64 }, { rxSize: 64, txSize: 32 }, [32, 32]],
    ['256 where the device takes more', { rxQueueSize: 1024, txQueueSize: 512 }, {}, [256, 256]],
  ])('queues are %s', async (_name, properties, options, sizes) => {
    await offer({ pairs: 2, ...properties });
    await start({ pairs: 2, ...options });
    await device.settled();
    expect([device.running, violations]).toEqual([true, []]);
    expect(device.queues.map(({ size }) => size)).toEqual([...sizes, ...sizes]);
  });

  test.each([
    ['the device has fewer', 2, EVERYTHING, 4, 2, 4],
    ['the guest wants fewer', 4, EVERYTHING, 2, 2, 8],
    ['MQ is not wanted', 4, EVERYTHING & ~(1n << 22n), 4, 1, 2],
    ['no control queue is wanted', 4, EVERYTHING & ~(1n << 17n) & ~(1n << 22n), 4, 1, -1],
  ])('pairs and number of the control queue: %s', async (_name, there, wanted, asked, pairs, control) => {
    await offer({ pairs: there });
    // What needs the control queue goes with it.
    const features = (wanted & (1n << 17n)) === 0n ? VERSION_1 : wanted;
    const driver = await start({ pairs: asked, wanted: features });
    await device.settled();
    expect([driver.guest.pairs, driver.controlNumber, driver.guest.mac]).toEqual([pairs, control, GUEST_MAC]);
    expect(device.queues.filter(({ ready }) => ready)).toHaveLength(2 * pairs);
    expect([driver.mmio.status, violations]).toEqual([15, []]);
    if (control < 0) expect(await codeOf(driver.command({ kind: 'announce-ack' }))).toBe('VHOST_ERR_STATE');
    else expect(await driver.command({ kind: 'rx-mode', mode: 'promisc', on: false })).toBe(0);
  });

  test('features that the device refuses: told, and the driver gives up', async () => {
    await offer();
    const error = await errorOf(start({ wanted: 1n << 11n }));
    expect([error.code, violations]).toEqual([
      'VHOST_ERR_FEATURES',
      ['VIRTIO_NET_F_HOST_TSO4 needs VIRTIO_NET_F_CSUM'],
    ]);
    expect(mmio.read(0x70, 4)).toBe(128 | 3);
    await start();
    expect(mmio.read(0x70, 4)).toBe(15);
  });
});

describe('registers', () => {
  const queue = {
    size: 8,
    ready: true,
    descTable: gpa(0x1000),
    availRing: gpa(0x2000),
    usedRing: gpa(0x3000),
    nextAvail: 0,
  };

  test.each([
    ['no magic', 0, 0x12345678],
    ['a legacy device', 4, 1],
    ['another kind of device', 8, 2],
    ['no device', 8, 0],
  ])('%s: not found', async (_name, at, value) => {
    await offer();
    const bus: MmioBus = {
      read: (offset, size) => (offset === at ? value : mmio.read(offset, size)),
      write: () => undefined,
    };
    expect(() => MmioDriver.probe(bus)).toThrow(expect.objectContaining({ code: 'VHOST_ERR_STATE' }));
    expect(MmioDriver.probe(mmio).deviceFeatures).toBe(device.offeredFeatures);
  });

  test('a queue that is in use is not set up again', async () => {
    await offer();
    const driver = MmioDriver.probe(mmio);
    driver.negotiate(VERSION_1);
    driver.setUpQueue(0, queue);
    expect(() => driver.setUpQueue(0, queue)).toThrow(VhostError);
    expect(device.queues[0]).toMatchObject(queue);
    await driver.reset();
    expect([driver.features, driver.queueMax(0), driver.queueMax(9)]).toEqual([0n, 256, 0]);
    expect(violations).toEqual([]);
  });

  test('the configuration space is read again when it changes meanwhile', async () => {
    await offer({ mtu: 1500 });
    let changes = 3;
    const driver = MmioDriver.probe({
      read: (offset, size) => {
        const value = mmio.read(offset, size);
        // Behind the field that was just read.
        if (offset === 0x10a && changes-- > 0) device.setMtu(1400 - changes);
        return value;
      },
      write: (offset, size, value) => mmio.write(offset, size, value),
    });
    expect(driver.config()).toEqual({
      mac: GUEST_MAC,
      linkUp: true,
      announce: false,
      maxPairs: 1,
      mtu: 1400,
      speed: 0xffffffff,
      duplex: 255,
    });
    expect(mmio.read(0xfc, 4)).toBe(3);
  });

  test('interrupts are taken once', async () => {
    await offer();
    mmio.close();
    mmio = new VirtioMmio(device);
    const driver = MmioDriver.probe(mmio);
    expect(driver.takeInterrupts()).toBe(0);
    device.setMtu(1400);
    expect([driver.takeInterrupts(), driver.takeInterrupts()]).toEqual([2, 0]);
  });
});

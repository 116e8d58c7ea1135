/** Every register of virtio over MMIO, version 2 (virtio 1.4 section 4.2.2), in front of a data path that moves nothing. */
import * as net from '../../../lib/constants/virtio-net';
import type { OfferOptions } from '../../../lib/device/device-options';
import { VirtioMmio, type VirtioMmioOptions } from '../../../lib/device/virtio-mmio';
import { VirtioNetDevice } from '../../../lib/device/virtio-net-device';
import { GuestMemory } from '../../../lib/memory/guest-memory';
import { bits } from '../../../lib/net/features';
import { StubBackend } from '../../helpers/stub-backend';
import { until } from '../../helpers/vhost-wait';

const MAC = '02:1a:2b:3c:4d:5e';
const VERSION_1 = bits(net.VIRTIO_F_VERSION_1);
const CTRL = bits(net.VIRTIO_NET_F_CTRL_VQ);
const VRING = 1;
const CONFIG = 2;
const R = {
  DEVICE_FEATURES: 0x10,
  DEVICE_FEATURES_SEL: 0x14,
  DRIVER_FEATURES: 0x20,
  DRIVER_FEATURES_SEL: 0x24,
  QUEUE_SEL: 0x30,
  QUEUE_NUM_MAX: 0x34,
  QUEUE_NUM: 0x38,
  QUEUE_READY: 0x44,
  QUEUE_NOTIFY: 0x50,
  INTERRUPT_STATUS: 0x60,
  INTERRUPT_ACK: 0x64,
  STATUS: 0x70,
  QUEUE_DESC: 0x80,
  QUEUE_AVAIL: 0x90,
  QUEUE_USED: 0xa0,
  SHM_SEL: 0xac,
  QUEUE_RESET: 0xc0,
  GENERATION: 0xfc,
  CONFIG: 0x100,
};

let memory: GuestMemory;
let backend: StubBackend;
let device: VirtioNetDevice;
let mmio: VirtioMmio;
let violations: string[];
/** Of the interrupt line, as it was set. */
let levels: boolean[];

async function open(options: Partial<OfferOptions> = {}, transport: VirtioMmioOptions = {}): Promise<void> {
  backend = new StubBackend();
  const given = { memory, backend, mac: MAC, pairs: 2, rxQueueSize: 128, txQueueSize: 64, ctrlQueueSize: 16 };
  attach(await VirtioNetDevice.offer({ ...given, speed: 0x01020304, duplex: 1, mtu: 1400, ...options }), transport);
}

function attach(to: VirtioNetDevice, transport: VirtioMmioOptions = {}): void {
  device = to;
  violations = [];
  levels = [];
  device.on('violation', (what) => violations.push(what));
  mmio = new VirtioMmio(device, { interrupt: { set: (high) => levels.push(high) }, ...transport });
}

beforeEach(async () => {
  memory = GuestMemory.create([{ gpa: 0, size: 0x10_0000 }]);
  await open();
});

afterEach(async () => {
  mmio.close();
  await device.close();
  memory.close();
});

const read = (offset: number, size = 4): number => mmio.read(offset, size);
const write = (offset: number, value: number, size = 4): void => mmio.write(offset, size, value);

function negotiate(features = VERSION_1 | CTRL): void {
  write(R.STATUS, 1);
  write(R.STATUS, 3);
  for (let window = 0; window < 4; window++) {
    write(R.DRIVER_FEATURES_SEL, window);
    write(R.DRIVER_FEATURES, Number((features >> BigInt(32 * window)) & 0xffffffffn));
  }
  write(R.STATUS, 11);
  expect(read(R.STATUS)).toBe(11);
}

function setUp(queue: number, at: number, size = 16): void {
  write(R.QUEUE_SEL, queue);
  write(R.QUEUE_NUM, size);
  for (const [index, register] of [R.QUEUE_DESC, R.QUEUE_AVAIL, R.QUEUE_USED].entries()) {
    write(register, at + index * 0x1000);
    write(register + 4, 0);
  }
  write(R.QUEUE_READY, 1);
}

async function boot(features?: bigint): Promise<void> {
  negotiate(features);
  for (const queue of [0, 1, 2]) setUp(queue, 0x1_0000 * (queue + 1));
  write(R.STATUS, 15);
  await device.settled();
  expect([read(R.STATUS), backend.running, violations]).toEqual([15, true, []]);
}

/** What there is to read of a device that nobody has spoken to. */
const FRESH: Readonly<Record<number, number>> = {
  0: 0x74726976,
  4: 2,
  8: 1,
  12: 0x544e4856,
  [R.DEVICE_FEATURES]: 0,
  [R.QUEUE_NUM_MAX]: 128,
  [R.QUEUE_READY]: 0,
  [R.INTERRUPT_STATUS]: 0,
  [R.STATUS]: 0,
  176: 0xffffffff,
  180: 0xffffffff,
  184: 0xffffffff,
  188: 0xffffffff,
  [R.QUEUE_RESET]: 0,
  [R.GENERATION]: 0,
};
const WRITABLE = [
  R.DEVICE_FEATURES_SEL,
  R.DRIVER_FEATURES_SEL,
  R.DRIVER_FEATURES,
  R.QUEUE_SEL,
  R.QUEUE_NUM,
  R.QUEUE_READY,
  R.QUEUE_NOTIFY,
  R.INTERRUPT_ACK,
  R.STATUS,
  ...[0x80, 0x84, 0x90, 0x94, 0xa0, 0xa4],
  R.SHM_SEL,
  R.QUEUE_RESET,
];
const WORDS = Array.from({ length: 64 }, (_, index) => 4 * index);

describe('the map', () => {
  test('reads: what is there, and 0 with a violation for the rest', () => {
    const expected = { ...FRESH, [R.DEVICE_FEATURES]: Number(device.offeredFeatures & 0xffffffffn) };
    for (const offset of WORDS) {
      violations.length = 0;
      expect([offset, read(offset), violations]).toEqual(
        offset in expected ? [offset, expected[offset], []] : [offset, 0, [`a load at 0x${offset.toString(16)}`]],
      );
    }
  });

  test('writes elsewhere change nothing and are told', () => {
    const before = WORDS.map((offset) => read(offset));
    for (const offset of WORDS.filter((word) => !WRITABLE.includes(word))) {
      violations.length = 0;
      write(offset, 0xffffffff);
      expect(violations).toEqual([`a store at 0x${offset.toString(16)}`]);
    }
    expect(WORDS.map((offset) => read(offset))).toEqual(before);
  });

  test.each([1, 2, 8, 3, 0])('accesses of %d bytes: refused at every register', (size) => {
    for (const offset of WORDS) {
      violations.length = 0;
      expect(read(offset, size)).toBe(0);
      write(offset, 1, size);
      expect(violations).toEqual([
        `a load of ${size} bytes at 0x${offset.toString(16)}`,
        `a store of ${size} bytes at 0x${offset.toString(16)}`,
      ]);
    }
    expect([read(R.STATUS), read(R.QUEUE_READY)]).toEqual([0, 0]);
  });

  test.each([1, 2, 3])('misaligned by %d: refused', (by) => {
    for (const offset of WORDS) {
      violations.length = 0;
      expect(read(offset + by)).toBe(0);
      write(offset + by, 1);
      expect(violations).toHaveLength(2);
    }
    expect(read(R.STATUS)).toBe(0);
  });

  test.each([Number.NaN, -4, 1.5, Number.POSITIVE_INFINITY, 2 ** 53])('an offset of %d throws nothing', (offset) => {
    expect(read(offset)).toBe(0);
    write(offset, 1);
    expect(violations.length).toBeGreaterThan(0);
    expect(read(R.STATUS)).toBe(0);
  });
});

describe('features', () => {
  test('of the device: four windows, then nothing', async () => {
    const words = [0, 1, 2, 3, 4, 5, 0x80000000, 0xffffffff].map((window) => {
      write(R.DEVICE_FEATURES_SEL, window);
      return read(R.DEVICE_FEATURES);
    });
    const word = (window: number): number => Number((device.offeredFeatures >> BigInt(32 * window)) & 0xffffffffn);
    expect(words).toEqual([word(0), word(1), word(2), word(3), 0, 0, 0, 0]);
    expect(words.slice(0, 4).every((value) => value > 0x7fffffff || value > 0)).toBe(true);
  });

  test('of the driver: four windows, then nothing; frozen by FEATURES_OK', () => {
    write(R.DRIVER_FEATURES_SEL, 4);
    write(R.DRIVER_FEATURES, 0xffffffff);
    const wanted = VERSION_1 | bits(net.VIRTIO_NET_F_MAC, net.VIRTIO_NET_F_CSUM, 127) | bits(95);
    negotiate(wanted);
    expect([device.features, violations]).toEqual([wanted, []]);
    write(R.DRIVER_FEATURES_SEL, 0);
    write(R.DRIVER_FEATURES, 0);
    expect([device.features, violations]).toEqual([wanted, ['features after FEATURES_OK']]);
  });

  test('what the device cannot go along with keeps FEATURES_OK away', () => {
    write(R.STATUS, 3);
    write(R.DRIVER_FEATURES_SEL, 0);
    write(R.DRIVER_FEATURES, 1 << 11);
    write(R.DRIVER_FEATURES_SEL, 1);
    write(R.DRIVER_FEATURES, 1);
    write(R.STATUS, 11);
    expect([read(R.STATUS), violations]).toEqual([3, ['VIRTIO_NET_F_HOST_TSO4 needs VIRTIO_NET_F_CSUM']]);
  });
});

describe('queues', () => {
  test('the selected one: sizes, ready, and none behind the last', () => {
    const look = (queue: number): number[] => {
      write(R.QUEUE_SEL, queue);
      return [read(R.QUEUE_NUM_MAX), read(R.QUEUE_READY), read(R.QUEUE_RESET)];
    };
    expect([0, 1, 2, 3, 4, 5, 0xffffffff].map((queue) => look(queue)[0])).toEqual([128, 64, 128, 64, 16, 0, 0]);
    negotiate();
    // Without MQ the control queue is the third.
    expect([0, 1, 2, 3, 4].map(look)).toEqual([
      [128, 0, 0],
      [64, 0, 0],
      [16, 0, 0],
      [0, 0, 0],
      [0, 0, 0],
    ]);
    setUp(2, 0x3_0000);
    expect([0, 1, 2].map(look)).toEqual([
      [128, 0, 0],
      [64, 0, 0],
      [16, 1, 0],
    ]);
    expect(violations).toEqual([]);
  });

  test('addresses have two halves, in either order, that leave each other alone', () => {
    negotiate();
    write(R.QUEUE_SEL, 0);
    const fields = [
      ['descTable', R.QUEUE_DESC],
      ['availRing', R.QUEUE_AVAIL],
      ['usedRing', R.QUEUE_USED],
    ] as const;
    for (const [name, low] of fields) {
      write(low + 4, 0x12);
      write(low, 0x89abcdef);
      expect(device.queues[0]![name]).toBe(0x12_89abcdef);
      write(low, 0);
      expect(device.queues[0]![name]).toBe(0x12_0000_0000);
      write(low + 4, 0);
      expect(device.queues[0]![name]).toBe(0);
    }
    // An address that no number holds exactly is one that no memory has; its low half stays what it is.
    write(R.QUEUE_DESC, 0x89abcdef);
    write(R.QUEUE_DESC + 4, 0xffffffff);
    expect(device.queues[0]!.descTable).toBe(0x1fffff_89abcdef);
    write(R.QUEUE_DESC + 4, 0x12);
    expect(device.queues[0]!.descTable).toBe(0x12_89abcdef);
    write(R.QUEUE_DESC + 4, 0xffffffff);
    write(R.QUEUE_DESC, 0xffffffff);
    expect(device.queues[0]!.descTable).toBe(Number.MAX_SAFE_INTEGER);
    write(R.QUEUE_READY, 1);
    expect(read(R.STATUS) & 64).toBe(64);
    expect(violations).toEqual([]);
  });

  test.each([
    ['outside memory', 0x10_0000, 16],
    ['a size that is no power of two', 0x1_0000, 12],
    ['size 0', 0x1_0000, 0],
    ['a size beyond the device’s', 0x1_0000, 256],
    ['misaligned', 0x1_0008, 16],
  ])('%s: the device needs a reset, the queue is not enabled', (_name, at, size) => {
    const reasons: string[] = [];
    device.on('needsReset', (reason) => reasons.push(reason));
    negotiate();
    setUp(0, at, size);
    expect([read(R.QUEUE_READY), read(R.STATUS)]).toEqual([0, 64 | 11]);
    expect(reasons).toEqual([expect.stringMatching(/^queue 0: /)]);
    // Told with an interrupt only to a driver that has come to DRIVER_OK (section 2.1.2).
    expect(read(R.INTERRUPT_STATUS)).toBe(0);
  });

  test('nothing may be set up before FEATURES_OK, while enabled, or after DRIVER_OK', async () => {
    setUp(0, 0x1_0000);
    expect(violations).toHaveLength(8);
    expect(new Set(violations)).toEqual(new Set(['queue 0 before FEATURES_OK']));
    violations.length = 0;
    await boot();
    const before = { ...device.queues[0]! };
    setUp(0, 0x5_0000);
    expect(new Set(violations)).toEqual(new Set(['queue 0 while it is enabled']));
    expect(device.queues[0]).toEqual(before);
    violations.length = 0;
    setUp(3, 0x5_0000);
    expect(new Set(violations)).toEqual(new Set(['queue 3, which is not there']));
  });

  test('values of QueueReady and QueueReset that mean nothing', async () => {
    await boot(VERSION_1 | CTRL | bits(net.VIRTIO_F_RING_RESET));
    write(R.QUEUE_SEL, 0);
    write(R.QUEUE_READY, 2);
    write(R.QUEUE_RESET, 0);
    write(R.QUEUE_RESET, 3);
    await device.settled();
    expect(violations).toEqual(['QueueReady 2', 'QueueReset 0', 'QueueReset 3']);
    expect(read(R.QUEUE_READY)).toBe(1);
  });

  test('reset of a queue: read as 1 until the device has let go, then it may be set up again', async () => {
    await boot(VERSION_1 | CTRL | bits(net.VIRTIO_F_RING_RESET));
    const release = backend.hold('stopQueue 1');
    write(R.QUEUE_SEL, 1);
    write(R.QUEUE_RESET, 1);
    write(R.QUEUE_RESET, 1);
    expect([read(R.QUEUE_RESET), read(R.QUEUE_READY)]).toEqual([1, 1]);
    release();
    await device.settled();
    expect(backend.calls.filter((call) => call === 'stopQueue 1')).toHaveLength(1);
    expect([read(R.QUEUE_RESET), read(R.QUEUE_READY)]).toEqual([0, 0]);
    expect(device.queues[1]).toMatchObject({ size: 64, descTable: 0, ready: false });
    setUp(1, 0x8_0000, 32);
    await device.settled();
    expect(backend.calls.at(-1)).toBe('startQueue 1');
    expect([read(R.QUEUE_READY), read(R.STATUS), violations]).toEqual([1, 15, []]);
  });

  test.each([
    ['without RING_RESET', VERSION_1 | CTRL, 0],
    ['of a queue that is not there', VERSION_1 | CTRL | bits(net.VIRTIO_F_RING_RESET), 7],
  ])('reset of a queue %s: refused', async (_name, features, queue) => {
    await boot(features);
    write(R.QUEUE_SEL, queue);
    write(R.QUEUE_RESET, 1);
    await device.settled();
    expect([read(R.QUEUE_RESET), violations]).toEqual([0, [`a reset of queue ${queue}`]]);
    expect(backend.calls.filter((call) => call.startsWith('stopQueue'))).toEqual([]);
  });

  test('QueueReady 0 takes a queue away', async () => {
    await boot();
    write(R.QUEUE_SEL, 0);
    write(R.QUEUE_READY, 0);
    expect(read(R.QUEUE_READY)).toBe(1);
    await device.settled();
    expect([read(R.QUEUE_READY), backend.calls.at(-1), violations]).toEqual([0, 'stopQueue 0', []]);
    write(R.QUEUE_READY, 0);
    await device.settled();
    expect(backend.calls.filter((call) => call === 'stopQueue 0')).toHaveLength(1);
  });

  test('notify kicks the queue of that number, the control queue by its number of now', async () => {
    await boot();
    for (const { kick } of device.notifiers) kick.drain();
    write(R.QUEUE_NOTIFY, 0);
    write(R.QUEUE_NOTIFY, 1);
    write(R.QUEUE_NOTIFY, 1);
    expect(device.notifiers.slice(0, 4).map(({ kick }) => kick.drain())).toEqual([1, 2, 0, 0]);
    write(R.QUEUE_NOTIFY, 3);
    expect(violations).toEqual(['a kick of queue 3, which is not there']);
  });
});

describe('interrupts', () => {
  const call = async (queue = 0): Promise<void> => {
    const before = levels.length;
    device.notifiers[queue]!.call.signal();
    await until('the call is noticed', () => levels.length > before);
  };

  test('a call raises the line until it is acknowledged', async () => {
    await boot();
    expect([read(R.INTERRUPT_STATUS), levels]).toEqual([0, []]);
    await call(0);
    await call(4);
    expect([read(R.INTERRUPT_STATUS), mmio.interruptStatus, levels]).toEqual([VRING, VRING, [true, true]]);
    device.setMtu(1300);
    expect(read(R.INTERRUPT_STATUS)).toBe(VRING | CONFIG);
    levels.length = 0;
    write(R.INTERRUPT_ACK, 0);
    write(R.INTERRUPT_ACK, 0xfffffffc);
    expect([read(R.INTERRUPT_STATUS), levels]).toEqual([VRING | CONFIG, []]);
    write(R.INTERRUPT_ACK, VRING);
    expect([read(R.INTERRUPT_STATUS), levels]).toEqual([CONFIG, []]);
    write(R.INTERRUPT_ACK, VRING | CONFIG);
    expect([read(R.INTERRUPT_STATUS), levels]).toEqual([0, [false]]);
    write(R.INTERRUPT_ACK, VRING | CONFIG);
    expect(levels).toEqual([false]);
  });

  test('calls that go elsewhere: the vring bit always reads as 1, the line is for the configuration', async () => {
    mmio.close();
    attach(device, { watchCalls: false });
    await boot();
    device.notifiers[0]!.call.signal();
    await new Promise((resolve) => setTimeout(resolve, 20));
    expect([read(R.INTERRUPT_STATUS), mmio.interruptStatus, levels]).toEqual([VRING, 0, []]);
    expect(device.notifiers[0]!.call.drain()).toBe(1);
    device.setMtu(1300);
    expect([read(R.INTERRUPT_STATUS), levels]).toEqual([VRING | CONFIG, [true]]);
    write(R.INTERRUPT_ACK, VRING | CONFIG);
    expect([read(R.INTERRUPT_STATUS), mmio.interruptStatus, levels]).toEqual([VRING, 0, [true, false]]);
  });

  test('a broken device says so, once', async () => {
    await boot();
    backend.emit('ringError', { queue: 1, message: 'planted' });
    backend.emit('ringError', { queue: 0, message: 'planted again' });
    expect([read(R.STATUS), read(R.INTERRUPT_STATUS), read(R.GENERATION)]).toEqual([64 | 15, CONFIG, 1]);
  });

  test('after a reset no bit is set, not even by calls from before it that nobody had noticed', async () => {
    await boot();
    await call();
    device.notifiers[0]!.call.signal();
    const release = backend.hold('stop');
    write(R.STATUS, 0);
    expect([read(R.STATUS), read(R.INTERRUPT_STATUS), levels.at(-1)]).toEqual([15, 0, false]);
    await new Promise((resolve) => setTimeout(resolve, 20));
    device.notifiers[1]!.call.signal();
    release();
    await device.settled();
    await new Promise((resolve) => setTimeout(resolve, 20));
    expect([read(R.STATUS), read(R.INTERRUPT_STATUS), levels.at(-1)]).toEqual([0, 0, false]);
    await boot();
    await call();
    expect(read(R.INTERRUPT_STATUS)).toBe(VRING);
  });

  test('after close nothing is noticed any more', async () => {
    await boot();
    mmio.close();
    device.notifiers[0]!.call.signal();
    device.setMtu(1300);
    await new Promise((resolve) => setTimeout(resolve, 20));
    expect([mmio.interruptStatus, levels]).toEqual([0, []]);
    expect(device.transport).toBeNull();
  });
});

describe('reset', () => {
  test('status reads as before until the data path has stopped; registers are as at first', async () => {
    await boot();
    write(R.DEVICE_FEATURES_SEL, 1);
    write(R.QUEUE_SEL, 2);
    const release = backend.hold('stop');
    write(R.STATUS, 0);
    expect(read(R.STATUS)).toBe(15);
    write(R.STATUS, 0);
    expect(read(R.STATUS)).toBe(15);
    release();
    await device.settled();
    expect([read(R.STATUS), backend.running, device.features, device.queues[0]!.ready]).toEqual([0, false, 0n, false]);
    expect([read(R.QUEUE_NUM_MAX), read(R.DEVICE_FEATURES)]).toEqual([
      128,
      Number(device.offeredFeatures & 0xffffffffn),
    ]);
    await boot();
  });

  test('of a status whose low byte is 0: the whole of it', async () => {
    await boot();
    write(R.QUEUE_SEL, 2);
    device.setMtu(1300);
    write(R.STATUS, 0x100);
    await device.settled();
    expect([read(R.STATUS), read(R.QUEUE_NUM_MAX), read(R.INTERRUPT_STATUS)]).toEqual([0, 128, 0]);
  });

  test('a driver that does not wait: the next life begins when the last has ended', async () => {
    await boot();
    const release = backend.hold('stop');
    write(R.STATUS, 0);
    negotiate();
    for (const queue of [0, 1]) setUp(queue, 0x1_0000 * (queue + 5));
    write(R.STATUS, 15);
    expect(backend.calls.filter((call) => call === 'start')).toHaveLength(1);
    release();
    await device.settled();
    expect(backend.calls.slice(-2)).toEqual(['stop', 'start']);
    expect(backend.device!.queues[0]).toMatchObject({ ready: true, descTable: 0x5_0000 });
    expect(read(R.STATUS)).toBe(15);
  });

  test('what the rings of the life before run into does not break the next', async () => {
    await boot();
    const release = backend.hold('stop');
    write(R.STATUS, 0);
    backend.emit('ringError', { queue: 0, message: 'planted' });
    release();
    await device.settled();
    expect(read(R.STATUS)).toBe(0);
    await boot();
    backend.emit('ringError', { queue: 0, message: 'planted' });
    expect(read(R.STATUS)).toBe(64 | 15);
  });

  test('DRIVER_OK and a reset at once: nothing starts', async () => {
    negotiate();
    write(R.STATUS, 15);
    write(R.STATUS, 0);
    await device.settled();
    expect([read(R.STATUS), backend.calls.includes('start')]).toEqual([0, false]);
  });

  test('a data path that cannot start or stop: NEEDS_RESET, and a reset gets out of it', async () => {
    backend.fail('start');
    negotiate();
    write(R.STATUS, 15);
    await device.settled();
    expect([read(R.STATUS), read(R.INTERRUPT_STATUS)]).toEqual([64 | 15, CONFIG]);
    write(R.STATUS, 0);
    await device.settled();
    await boot();
    backend.fail('stop');
    write(R.STATUS, 0);
    await device.settled();
    expect(read(R.STATUS)).toBe(0);
  });
});

describe('configuration space', () => {
  const BYTES = '021a2b3c4d5e010002007805040302010100000000';
  const byte = (at: number): number => Number.parseInt(BYTES.slice(2 * at, 2 * at + 2) || '0', 16);

  test.each([1, 2, 4])('loads of %d bytes, at every offset to beyond the end', (size) => {
    for (let at = 0; at < 32; at++) {
      const expected = Array.from({ length: size }, (_, index) => byte(at + index) * 256 ** index);
      expect([at, read(R.CONFIG + at, size)]).toEqual([at, expected.reduce((sum, part) => sum + part)]);
    }
    expect([read(0x1fc, size), read(0x200, size), read(0xffff_fffc, size)]).toEqual([0, 0, 0]);
    expect(violations).toEqual([]);
  });

  test.each([8, 3, 0, -1, Number.NaN])('loads of %d bytes are refused', (size) => {
    expect(read(R.CONFIG, size)).toBe(0);
    expect(violations).toEqual([`a load of ${size} bytes of the configuration space`]);
  });

  test.each([1, 2, 4, 8])('stores of %d bytes change nothing', (size) => {
    for (let at = 0; at < 20; at++) write(R.CONFIG + at, 0xff, size);
    expect(violations).toHaveLength(20);
    expect(Buffer.from(device.readConfig()).toString('hex')).toBe(BYTES.slice(0, 34));
  });

  test('what the device changes shows, with another generation and an interrupt each', async () => {
    const seen = (): number[] => [
      read(R.GENERATION),
      read(R.CONFIG + 6, 2),
      read(R.CONFIG + 10, 2),
      read(R.CONFIG + 12),
    ];
    expect(seen()).toEqual([0, 1, 1400, 0x01020304]);
    await device.setLink(false);
    expect(seen()).toEqual([1, 0, 1400, 0x01020304]);
    await device.setLink(false);
    device.setMtu(1300);
    device.setSpeed(25_000);
    expect(seen()).toEqual([3, 0, 1300, 25_000]);
    expect([device.announce(), read(R.GENERATION)]).toEqual([false, 3]);
    await boot(VERSION_1 | CTRL | bits(net.VIRTIO_NET_F_GUEST_ANNOUNCE));
    expect([device.announce(), read(R.GENERATION), read(R.CONFIG + 6, 2)]).toEqual([true, 4, 2]);
    expect(() => device.setMtu(67)).toThrow(/mtu 67/);
    expect(() => device.setSpeed(-1)).toThrow(/speed -1/);
    expect(read(R.GENERATION)).toBe(4);
  });
});

describe('saved and restored', () => {
  async function move(): Promise<void> {
    await device.stop();
    const state = JSON.parse(JSON.stringify(device.save())) as unknown;
    mmio.close();
    await device.close();
    backend = new StubBackend();
    attach(VirtioNetDevice.restore(state, { memory, backend }));
  }

  test('in the middle of a set-up: selectors, features, addresses and interrupts are where they were', async () => {
    negotiate();
    setUp(0, 0x1_0000);
    write(R.QUEUE_SEL, 1);
    write(R.QUEUE_NUM, 32);
    write(R.QUEUE_DESC, 0x2_0000);
    write(R.DEVICE_FEATURES_SEL, 1);
    write(R.DRIVER_FEATURES_SEL, 3);
    device.setMtu(1300);
    await move();
    expect(levels).toEqual([true]);
    expect([read(R.STATUS), read(R.INTERRUPT_STATUS), read(R.GENERATION)]).toEqual([11, CONFIG, 1]);
    expect([read(R.QUEUE_NUM_MAX), read(R.CONFIG + 10, 2)]).toEqual([64, 1300]);
    expect(read(R.DEVICE_FEATURES)).toBe(Number((device.offeredFeatures >> 32n) & 0xffffffffn));
    expect(device.queues[1]).toMatchObject({ size: 32, descTable: 0x2_0000, ready: false });
    expect(device.transport!.save()).toEqual({
      kind: 'virtio-mmio',
      deviceFeaturesSel: 1,
      driverFeaturesSel: 3,
      queueSel: 1,
      interruptStatus: CONFIG,
    });
    write(R.QUEUE_AVAIL, 0x2_1000);
    write(R.QUEUE_USED, 0x2_2000);
    write(R.QUEUE_READY, 1);
    // Somebody who moves devices starts them; this one is started by its driver, once.
    await device.prepare();
    await device.start();
    expect([backend.calls, backend.running]).toEqual([[], false]);
    write(R.STATUS, 15);
    await device.settled();
    expect([read(R.STATUS), violations, backend.calls]).toEqual([15, [], ['start']]);
  });

  test('in the middle of a negotiation: what was written of the features counts', async () => {
    write(R.STATUS, 3);
    write(R.DRIVER_FEATURES_SEL, 1);
    write(R.DRIVER_FEATURES, 1);
    await move();
    write(R.STATUS, 11);
    expect([read(R.STATUS), device.features]).toEqual([11, VERSION_1]);
  });

  test('in the middle of a queue reset: the queue may be set up there', async () => {
    await boot(VERSION_1 | CTRL | bits(net.VIRTIO_F_RING_RESET));
    write(R.QUEUE_SEL, 1);
    write(R.QUEUE_RESET, 1);
    await device.settled();
    await move();
    await device.start();
    setUp(1, 0x8_0000);
    await device.settled();
    expect([read(R.STATUS), violations, backend.calls]).toEqual([15, [], ['start', 'startQueue 1']]);
  });

  test('a call that nobody had noticed is not lost', async () => {
    await boot();
    device.notifiers[0]!.call.signal();
    await device.stop();
    expect(device.save().transport).toMatchObject({ interruptStatus: VRING });
    expect([read(R.INTERRUPT_STATUS), levels]).toEqual([VRING, [true]]);
  });

  test('a restored device without a transport keeps what was saved of one', async () => {
    device.setMtu(1300);
    await device.stop();
    const state = device.save();
    expect(state.mandatory).toContain('transport');
    const other = VirtioNetDevice.restore(state, { memory, backend: new StubBackend() });
    expect(other.save().transport).toEqual(state.transport);
    await other.close();
  });

  test.each([
    ['another kind', { kind: 'virtio-pci' }, /kind is "virtio-pci".*virtio-mmio/],
    ['no kind', {}, /kind is missing/],
    ['a huge selector', { kind: 'virtio-mmio', queueSel: 2 ** 32 }, /queueSel is 4294967296/],
    ['a selector that is no number', { kind: 'virtio-mmio', deviceFeaturesSel: '1' }, /deviceFeaturesSel is "1"/],
    ['another that is none', { kind: 'virtio-mmio', driverFeaturesSel: -1 }, /driverFeaturesSel is -1/],
    ['bits that there are not', { kind: 'virtio-mmio', interruptStatus: 4 }, /interruptStatus is 4/],
  ])('%s: refused', async (_name, transport, message) => {
    const other = VirtioNetDevice.restore({ ...device.save(), transport }, { memory, backend: new StubBackend() });
    expect(() => new VirtioMmio(other)).toThrow(message);
    expect(() => new VirtioMmio(other)).toThrow(expect.objectContaining({ code: 'VHOST_ERR_PROTOCOL' }));
    await other.close();
  });

  test('of a closed device no access throws', async () => {
    await boot();
    await device.close();
    write(R.QUEUE_NOTIFY, 0);
    write(R.STATUS, 0);
    await device.settled();
    for (const offset of WORDS) {
      read(offset);
      write(offset, 1);
    }
    await device.settled();
    expect(read(R.CONFIG + 10, 2)).toBe(1400);
    expect(backend.running).toBe(false);
  });
});

/** What a driver may say to a device between two resets (virtio 1.4 sections 2.1, 2.2, 3.1.1 and 5.1.2), and what is kept of it. */
import * as net from '../../../lib/constants/virtio-net';
import { DeviceLife } from '../../../lib/device/device-life';
import { deviceProperties } from '../../../lib/device/device-properties';
import { gpa } from '../../../lib/memory/address';
import type { GuestMemory } from '../../../lib/memory/guest-memory';
import { offeredFeatures } from '../../../lib/net/feature-rules';
import { bits } from '../../../lib/net/features';
import { EVERYTHING } from '../../helpers/device-rig';

const ACKNOWLEDGE = 1;
const DRIVER = 2;
const DRIVER_OK = 4;
const FEATURES_OK = 8;
const NEEDS_RESET = 64;
const FAILED = 128;
const DRIVER_BITS = [ACKNOWLEDGE, DRIVER, DRIVER_OK, FEATURES_OK, FAILED];
const VERSION_1 = bits(net.VIRTIO_F_VERSION_1);
const MAC = '02:00:00:00:00:02';

function newLife(parts: { pairs?: number; offered?: bigint; linkUp?: () => boolean } = {}): DeviceLife {
  const { pairs = 2, offered = offeredFeatures({ backend: EVERYTHING, pairs }), linkUp = () => true } = parts;
  const properties = deviceProperties({ mac: MAC, pairs, rxQueueSize: 128, txQueueSize: 64, ctrlQueueSize: 16 });
  return new DeviceLife({ memory: {} as GuestMemory, properties, offered: () => offered, notifiers: [], linkUp });
}

function write(life: DeviceLife, features: bigint): void {
  for (let window = 0; window < 4; window++) {
    life.writeDriverFeatures(window, Number((features >> BigInt(32 * window)) & 0xffffffffn));
  }
}

/** As far as `status`, in the order of the specification. */
function reach(life: DeviceLife, features: bigint, status = ACKNOWLEDGE | DRIVER | FEATURES_OK): DeviceLife {
  life.writeStatus(ACKNOWLEDGE);
  life.writeStatus(ACKNOWLEDGE | DRIVER);
  write(life, features);
  expect(life.writeStatus(status)).toBeNull();
  expect(life.status).toBe(status);
  return life;
}

function permutations(values: readonly number[]): number[][] {
  if (values.length === 0) return [[]];
  return values.flatMap((value, index) => permutations(values.toSpliced(index, 1)).map((rest) => [value, ...rest]));
}

describe('status', () => {
  const broken: string[] = [];
  beforeEach(() => {
    broken.length = 0;
  });

  /** What no sequence of writes may break, noted in `broken`. Answers whether everything that was asked for was done. */
  function checkWrite(life: DeviceLife, value: number): boolean {
    const before = life.status;
    const trouble = life.writeStatus(value);
    const { status } = life;
    const asked = value & DRIVER_BITS.reduce((mask, bit) => mask | bit);
    const done = (status & asked) === asked && (before & ~NEEDS_RESET & ~asked) === 0;
    const rules = {
      'keeps what it had': (status & before) === before,
      'has only what was asked for': (status & ~(before | asked)) === 0,
      'refuses no other bit': (~status & asked & (ACKNOWLEDGE | DRIVER | FAILED)) === 0,
      'DRIVER_OK after FEATURES_OK': (status & DRIVER_OK) === 0 || (status & FEATURES_OK) !== 0,
      'FEATURES_OK after DRIVER': (status & FEATURES_OK) === 0 || (status & DRIVER) !== 0,
      'tells of what it did not do': (trouble === null) === done,
    };
    for (const [rule, holds] of Object.entries(rules)) if (!holds) broken.push(`${before}, ${value}: ${rule}`);
    return done;
  }

  test('every order of the bits, one at a time', () => {
    const good: string[] = [];
    for (const order of permutations(DRIVER_BITS)) {
      const life = newLife();
      write(life, VERSION_1);
      let status = 0;
      const done = order.map((bit) => {
        status |= bit;
        const was = checkWrite(life, status);
        status = life.status;
        return was;
      });
      if (done.every((was) => was)) good.push(order.join(' '));
    }
    // Of DRIVER, FEATURES_OK and DRIVER_OK one order in six is right; ACKNOWLEDGE and FAILED may stand anywhere.
    expect(good).toHaveLength(120 / 6);
    expect(good).toContain('1 2 8 4 128');
    expect(good.every((order) => /\b2\b.*\b8\b.*\b4\b/.test(order))).toBe(true);
    expect(broken).toEqual([]);
  });

  test('every three values, whatever they say', () => {
    const values = Array.from({ length: 256 }, (_, value) => value).filter(
      (value) => value !== 0 && (value & 0x30) % 48 === 0,
    );
    let refused = 0;
    for (const first of values) {
      for (const second of values) {
        const life = newLife();
        write(life, VERSION_1);
        if (!checkWrite(life, first)) refused++;
        if (!checkWrite(life, second)) refused++;
        if (!checkWrite(life, first ^ 0xff)) refused++;
      }
    }
    expect(refused).toBeGreaterThan(10_000);
    expect(broken).toEqual([]);
  });

  test('what is wrong is named', () => {
    const life = newLife();
    expect(life.writeStatus(FEATURES_OK)).toBe('FEATURES_OK before DRIVER');
    expect(life.writeStatus(DRIVER | DRIVER_OK)).toBe('DRIVER_OK before FEATURES_OK');
    expect(life.writeStatus(ACKNOWLEDGE)).toBe('status bits 0x2 cleared without a reset');
    expect(life.writeStatus(ACKNOWLEDGE | DRIVER | FEATURES_OK | DRIVER_OK)).toBe(
      'features without VIRTIO_F_VERSION_1; DRIVER_OK before FEATURES_OK',
    );
    expect(life.status).toBe(ACKNOWLEDGE | DRIVER);
    expect(life.writeStatus(FAILED)).toBe('status bits 0x3 cleared without a reset');
    expect(life.status).toBe(FAILED | ACKNOWLEDGE | DRIVER);
  });

  test('NEEDS_RESET is the device’s own', () => {
    const life = newLife();
    expect(life.writeStatus(NEEDS_RESET | ACKNOWLEDGE)).toBeNull();
    expect([life.status, life.broken]).toEqual([ACKNOWLEDGE, false]);
    life.break();
    expect([life.status, life.broken]).toEqual([NEEDS_RESET | ACKNOWLEDGE, true]);
    // A driver that writes what it does not know as 0 clears nothing with it, and is not told off.
    expect(life.writeStatus(ACKNOWLEDGE | DRIVER)).toBeNull();
    expect(life.status).toBe(NEEDS_RESET | ACKNOWLEDGE | DRIVER);
  });
});

describe('features', () => {
  const f = net;
  test.each([
    ['not offered', VERSION_1 | bits(f.VIRTIO_NET_F_RSS, f.VIRTIO_F_IN_ORDER), /VIRTIO_F_IN_ORDER, VIRTIO_NET_F_RSS/],
    ['beyond 64 bits', VERSION_1 | (1n << 127n), /not offered: bit 127/],
    ['without VERSION_1', bits(f.VIRTIO_NET_F_MAC), /without VIRTIO_F_VERSION_1/],
    [
      'TSO without CSUM',
      VERSION_1 | bits(f.VIRTIO_NET_F_HOST_TSO4),
      /^VIRTIO_NET_F_HOST_TSO4 needs VIRTIO_NET_F_CSUM$/,
    ],
    [
      'two at once',
      VERSION_1 | bits(f.VIRTIO_NET_F_MQ, f.VIRTIO_NET_F_GUEST_ECN),
      /GUEST_ECN needs VIRTIO_NET_F_GUEST_TSO4 or VIRTIO_NET_F_GUEST_TSO6; VIRTIO_NET_F_MQ needs VIRTIO_NET_F_CTRL_VQ/,
    ],
  ])('%s: refused by name, and another attempt is open', (_name, features, message) => {
    const all = offeredFeatures({ backend: EVERYTHING & ~bits(f.VIRTIO_F_IN_ORDER, f.VIRTIO_NET_F_RSS), pairs: 2 });
    const life = newLife({ offered: all & ((1n << 127n) - 1n) });
    life.writeStatus(ACKNOWLEDGE | DRIVER);
    write(life, features);
    expect(life.writeStatus(ACKNOWLEDGE | DRIVER | FEATURES_OK)).toMatch(message);
    expect([life.status, life.features, life.driverFeatures]).toEqual([ACKNOWLEDGE | DRIVER, 0n, features]);
    write(life, VERSION_1);
    expect(life.writeStatus(ACKNOWLEDGE | DRIVER | FEATURES_OK)).toBeNull();
    expect(life.features).toBe(VERSION_1);
  });

  test('everything that is offered may be acked', () => {
    const offered = offeredFeatures({ backend: EVERYTHING, pairs: 2 });
    expect(reach(newLife(), offered).features).toBe(offered);
  });

  test('frozen after FEATURES_OK; beyond 128 bits never anything', () => {
    const life = newLife();
    expect(life.writeDriverFeatures(4, 0xffffffff)).toBeNull();
    expect(life.writeDriverFeatures(0xffffffff, 1)).toBeNull();
    expect(life.driverFeatures).toBe(0n);
    reach(life, VERSION_1);
    for (let window = 0; window < 6; window++) {
      expect(life.writeDriverFeatures(window, 0xffffffff)).toBe('features after FEATURES_OK');
    }
    expect([life.features, life.driverFeatures]).toEqual([VERSION_1, VERSION_1]);
    expect(life.writeStatus(life.status | FEATURES_OK)).toBeNull();
    expect(life.features).toBe(VERSION_1);
  });

  test('acceptance sets the queues to the beginning of their format and the control state to the features’', () => {
    const packed = reach(newLife(), VERSION_1 | bits(f.VIRTIO_F_RING_PACKED));
    for (const queue of [...packed.queues, packed.controlQueue]) {
      expect(queue).toMatchObject({ nextAvail: 0, packed: { availWrap: true, nextUsed: 0, usedWrap: true } });
    }
    const split = reach(newLife(), VERSION_1);
    for (const queue of [...split.queues, split.controlQueue]) expect(queue.packed).toBeUndefined();
    const offloads = bits(f.VIRTIO_NET_F_GUEST_CSUM, f.VIRTIO_NET_F_GUEST_TSO4);
    const vlans = bits(f.VIRTIO_NET_F_CTRL_VQ, f.VIRTIO_NET_F_CTRL_VLAN);
    const { control, settings } = reach(newLife(), VERSION_1 | offloads | vlans);
    expect(control).toMatchObject({ guestOffloads: offloads, activePairs: 1, receiveFilter: { mac: MAC } });
    expect(control.receiveFilter.vlans).toHaveLength(512);
    expect(settings.receiveFilter).toBe(control.receiveFilter);
    expect(split.settings.receiveFilter).toBeNull();
  });

  test('offloads of tunnels are on until a command turns them off, and the link is the device’s', () => {
    const tunnel = bits(f.VIRTIO_NET_F_GUEST_UDP_TUNNEL_GSO, f.VIRTIO_NET_F_GUEST_UDP_TUNNEL_GSO_CSUM);
    const life = newLife({ linkUp: () => false });
    life.adopt({ features: VERSION_1 | tunnel, queues: life.queues });
    expect(life.settings).toMatchObject({ guestOffloads: tunnel, linkUp: false, activePairs: 1 });
    life.control = { ...life.control, guestOffloads: 0n };
    expect(life.settings.guestOffloads).toBe(0n);
  });
});

describe('queues', () => {
  const CTRL = bits(net.VIRTIO_NET_F_CTRL_VQ);
  const MQ = CTRL | bits(net.VIRTIO_NET_F_MQ);
  const data = (index: number) => ({ kind: 'data', index });
  const roles = (life: DeviceLife): unknown[] => Array.from({ length: 8 }, (_, number) => life.roleOf(number));
  const control = { kind: 'control' };

  test.each([
    ['two pairs, MQ acked', 2, MQ, [data(0), data(1), data(2), data(3), control, null, null, null]],
    ['two pairs, MQ not acked', 2, CTRL, [data(0), data(1), control, null, null, null, null, null]],
    ['two pairs, no control queue', 2, 0n, [data(0), data(1), null, null, null, null, null, null]],
    ['one pair', 1, CTRL, [data(0), data(1), control, null, null, null, null, null]],
    ['three pairs, MQ acked', 3, MQ, [...[0, 1, 2, 3, 4, 5].map(data), control, null]],
  ])('numbers: %s', (_name, pairs, features, expected) => {
    const life = newLife({ pairs });
    // A driver may look at sizes before it has acked anything: then all that is offered counts.
    expect(roles(life).slice(0, 2 * pairs + 1)).toEqual([
      ...Array.from({ length: 2 * pairs }, (_, n) => data(n)),
      control,
    ]);
    reach(life, VERSION_1 | features);
    expect(roles(life)).toEqual(expected);
    expect(roles(life).map((role) => role === null)).toEqual(
      Array.from({ length: 8 }, (_, number) => life.queue(number) === null && life.queueMax(number) === 0),
    );
  });

  test('sizes', () => {
    const life = reach(newLife(), VERSION_1 | MQ);
    const numbers = [0, 1, 2, 3, 4, 5, 2 ** 32 - 1];
    expect(numbers.map((number) => life.queueMax(number))).toEqual([128, 64, 128, 64, 16, 0, 0]);
    expect([0, 1, 4].map((number) => life.queue(number)!.size)).toEqual([128, 64, 16]);
    expect(life.queue(4)).toBe(life.controlQueue);
    expect(life.queue(3)).toBe(life.queues[3]);
  });

  test('may be set up between FEATURES_OK and DRIVER_OK, while not enabled, or after a reset of the queue', () => {
    const life = newLife();
    const tries = (number: number) => [
      life.configureQueue(number, 'size', 8),
      life.configureQueue(number, 'descTable', 0x1_0000_1000),
    ];
    expect(tries(0)).toEqual(['queue 0 before FEATURES_OK', 'queue 0 before FEATURES_OK']);
    expect(life.queues[0]).toMatchObject({ size: 128, descTable: 0 });
    reach(life, VERSION_1 | MQ);
    expect(tries(5)).toEqual(['queue 5, which is not there', 'queue 5, which is not there']);
    expect(tries(0)).toEqual([null, null]);
    expect(life.configureQueue(0, 'availRing', 0x2000)).toBeNull();
    expect(life.configureQueue(0, 'usedRing', 0x3000)).toBeNull();
    const there = {
      size: 8,
      ready: false,
      descTable: 0x1_0000_1000,
      availRing: 0x2000,
      usedRing: 0x3000,
      nextAvail: 0,
    };
    expect(life.queues[0]).toEqual(there);
    life.queues[0]!.ready = true;
    expect(life.configureQueue(0, 'size', 4)).toBe('queue 0 while it is enabled');
    expect(life.writeStatus(life.status | DRIVER_OK)).toBeNull();
    expect(life.configureQueue(1, 'size', 4)).toBe('queue 1 after DRIVER_OK, without a reset of the queue');
    expect(life.resetQueues).toEqual([]);
    life.forgetQueue(0);
    expect(life.queues[0]).toEqual({ size: 128, ready: false, descTable: 0, availRing: 0, usedRing: 0, nextAvail: 0 });
    expect(life.resetQueues).toEqual([0]);
    expect(tries(0)).toEqual([null, null]);
    expect(life.notNow(0)).toBeNull();
    expect(life.notNow(1)).not.toBeNull();
    expect(life.queues[1]!.size).toBe(64);
  });

  test('a packed queue that was reset begins anew', () => {
    const life = reach(newLife(), VERSION_1 | MQ | bits(net.VIRTIO_F_RING_PACKED));
    Object.assign(life.controlQueue, {
      ready: true,
      nextAvail: 7,
      packed: { availWrap: false, nextUsed: 3, usedWrap: false },
    });
    life.forgetQueue(4);
    const beginning = { availWrap: true, nextUsed: 0, usedWrap: true };
    expect(life.controlQueue).toMatchObject({ size: 16, ready: false, nextAvail: 0, packed: beginning });
    life.forgetQueue(99);
    expect(life.resetQueues).toEqual([4]);
  });
});

describe('what is adopted', () => {
  const queue = {
    size: 8,
    ready: true,
    descTable: gpa(0x1000),
    availRing: gpa(0x2000),
    usedRing: gpa(0x3000),
    nextAvail: 5,
  };
  const packed = { availWrap: true, nextUsed: 1, usedWrap: false };

  test('shares nothing with what it was given, down to packed positions', () => {
    const life = newLife();
    const given = [{ ...queue, packed: { ...packed } }, { ...queue }];
    const controlQueue = { ...queue, packed: { ...packed } };
    life.adopt({ features: VERSION_1, queues: given, controlQueue });
    life.queues[0]!.packed!.nextUsed = 6;
    life.queues[1]!.nextAvail = 9;
    life.controlQueue.packed!.nextUsed = 6;
    expect(given).toEqual([{ ...queue, packed }, queue]);
    expect(controlQueue.packed).toEqual(packed);
  });

  test('is in service unless it says otherwise', () => {
    const life = newLife();
    life.adopt({ features: VERSION_1, queues: [queue, queue, queue, queue] });
    expect([life.status, life.driverOk, life.features, life.driverFeatures]).toEqual([15, true, VERSION_1, VERSION_1]);
    expect(life.writeDriverFeatures(0, 1)).not.toBeNull();
  });

  test('in the middle of negotiation: what was written so far counts', () => {
    const life = newLife();
    const driverFeatures = VERSION_1 | bits(net.VIRTIO_NET_F_MTU);
    life.adopt({ features: 0n, driverFeatures, queues: life.queues, status: ACKNOWLEDGE | DRIVER });
    expect(life.writeStatus(ACKNOWLEDGE | DRIVER | FEATURES_OK)).toBeNull();
    expect(life.features).toBe(driverFeatures);
  });

  test('in the middle of a queue reset: it may be set up', () => {
    const life = newLife();
    const queues = [{ ...queue, ready: false }, queue, queue, queue];
    life.adopt({ features: VERSION_1, queues, resetQueues: [0] });
    expect(life.configureQueue(0, 'size', 16)).toBeNull();
    expect(life.configureQueue(1, 'size', 16)).toBe('queue 1 while it is enabled');
  });
});

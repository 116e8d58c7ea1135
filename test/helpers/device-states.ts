/** Device states for tests: any state that a device can be in, and one with something in every field. */
import * as fc from 'fast-check';
import { VIRTIO_F_RING_PACKED } from '../../lib/constants/virtio-config';
import { VIRTIO_NET_F_CTRL_VLAN } from '../../lib/constants/virtio-net';
import type { DeviceParts } from '../../lib/device/device-state';
import { gpa } from '../../lib/memory/address';
import { DUPLEX_FULL, SPEED_UNKNOWN } from '../../lib/net/config-space';
import { GUEST_OFFLOADS } from '../../lib/net/feature-rules';
import { bit, hasBit } from '../../lib/net/features';
import { VLAN_TABLE_BYTES } from '../../lib/net/receive-filter';
import type { QueueState } from '../../lib/virtqueue/queue-state';
import { macs } from './control-commands';
import { EVERYTHING } from './device-rig';

const PACKED = bit(VIRTIO_F_RING_PACKED);

/** Every field differs from its default, and everything that has a most has the most of it. */
export function fullState(): DeviceParts {
  const packed = { availWrap: false, nextUsed: 199, usedWrap: false };
  const queue = (index: number): QueueState => ({
    size: 200,
    ready: true,
    descTable: gpa(0x10_0000_0000 + 0x1_0000 * index),
    availRing: gpa(0x8004 + 0x1_0000 * index),
    usedRing: gpa(0x9004 + 0x1_0000 * index),
    nextAvail: 3 + index,
    packed: { ...packed },
  });
  return {
    status: 15 | 64,
    features: EVERYTHING,
    offered: EVERYTHING,
    driverFeatures: EVERYTHING,
    properties: {
      mac: '02:00:00:00:00:0a',
      pairs: 8,
      rxQueueSize: 1024,
      txQueueSize: 512,
      ctrlQueueSize: 32,
      mtu: 9000,
      indirect: false,
      speed: 25_000,
      duplex: DUPLEX_FULL,
      profile: 'vhost-6.1',
    },
    queues: Array.from({ length: 16 }, (_, index) => queue(index)),
    resetQueues: [3, 16],
    controlQueue: queue(16),
    control: {
      receiveFilter: {
        promiscuous: false,
        allMulticast: true,
        allUnicast: true,
        noMulticast: true,
        noUnicast: true,
        noBroadcast: true,
        mac: '02:00:00:00:00:0b',
        unicast: macs(40),
        multicast: macs(24, 1),
        unicastOverflow: true,
        multicastOverflow: true,
        vlans: new Uint8Array(VLAN_TABLE_BYTES).fill(0xff),
      },
      activePairs: 5,
      guestOffloads: bit(1) | bit(7),
      announcePending: true,
    },
    config: { linkUp: false, mtu: 1280, speed: 100, duplex: 0, generation: 0xffffffff },
    transport: { kind: 'virtio-mmio', queueSel: 4, interruptStatus: 3 },
  };
}

const mac = fc
  .uint8Array({ minLength: 6, maxLength: 6 })
  .map((bytes) => Array.from(bytes, (byte) => byte.toString(16).padStart(2, '0')).join(':'));
const speed = fc.oneof(fc.nat(0x7fffffff), fc.constant(SPEED_UNKNOWN));
const duplex = fc.constantFrom(0, 1, 255);
const mtu = fc.integer({ min: 68, max: 65535 });
const queueSize = fc.nat(15).map((power) => 2 ** power);
const word = fc.integer({ min: 0, max: 0xffffffff });

/** Of one that is not enabled: whatever a driver can write. */
function queueRegisters(packed: boolean): fc.Arbitrary<QueueState> {
  const address = fc.oneof(
    fc.tuple(word, word).map(([high, low]) => gpa(high * 2 ** 32 + low)),
    fc.constant(gpa(2 ** 64)),
  );
  const registers = {
    size: word,
    ready: fc.constant(false),
    descTable: address,
    availRing: address,
    usedRing: address,
  };
  const common = { ...registers, nextAvail: fc.constant(0) };
  if (!packed) return fc.record(common);
  return fc.record({ ...common, packed: fc.constant({ availWrap: true, nextUsed: 0, usedWrap: true }) });
}

function servedQueues(packed: boolean): fc.Arbitrary<QueueState> {
  const aligned = (alignment: number) => fc.maxSafeNat().map((address) => gpa(address - (address % alignment)));
  const common = { ready: fc.constant(true), descTable: aligned(16), usedRing: aligned(4) };
  if (!packed) {
    return fc.record({ ...common, size: queueSize, availRing: aligned(2), nextAvail: fc.nat(0xffff) });
  }
  return fc.integer({ min: 1, max: 32768 }).chain((size) => {
    const position = fc.record({ availWrap: fc.boolean(), nextUsed: fc.nat(size - 1), usedWrap: fc.boolean() });
    return fc.record({
      ...common,
      size: fc.constant(size),
      availRing: aligned(4),
      nextAvail: fc.nat(size - 1),
      packed: position,
    });
  });
}

/** What JSON carries, as a transport of somebody else’s may have it. */
const transportState = fc.option(
  fc.dictionary(fc.string(), fc.jsonValue({ maxDepth: 3 }), { maxKeys: 5 }).map((value) => plain(value)),
);

/** As it comes back from JSON. */
const plain = (value: unknown): Record<string, unknown> => JSON.parse(JSON.stringify(value)) as Record<string, unknown>;

/** Any state that can be saved. */
export const deviceStates: fc.Arbitrary<DeviceParts> = fc
  .record({
    offered: fc.oneof(fc.constant(EVERYTHING), fc.bigInt({ min: 0n, max: EVERYTHING })),
    acked: fc.oneof(fc.constant(EVERYTHING), fc.bigInt({ min: 0n, max: EVERYTHING })),
    driverFeatures: fc.bigInt({ min: 0n, max: EVERYTHING }),
    pairs: fc.integer({ min: 1, max: 8 }),
  })
  .chain(({ offered, acked, driverFeatures, pairs }) => {
    const features = offered & acked;
    const packed = (features & PACKED) !== 0n;
    const queue = fc.oneof(servedQueues(packed), queueRegisters(packed));
    const count = fc.nat(64);
    return fc.record({
      status: fc.constantFrom(0, 1, 2, 3, 11, 15, 67, 79, 128, 143, 207),
      features: fc.constant(features),
      offered: fc.constant(offered),
      driverFeatures: fc.constant(driverFeatures),
      properties: fc.record({
        mac,
        pairs: fc.constant(pairs),
        rxQueueSize: queueSize,
        txQueueSize: queueSize,
        ctrlQueueSize: queueSize,
        mtu,
        indirect: fc.boolean(),
        speed,
        duplex,
        profile: fc.option(fc.string({ maxLength: 64 })),
      }),
      queues: fc.array(queue, { minLength: 2 * pairs, maxLength: 2 * pairs }),
      resetQueues: fc.uniqueArray(fc.nat(2 * pairs)),
      controlQueue: queue,
      control: fc.record({
        receiveFilter: fc.record({
          promiscuous: fc.boolean(),
          allMulticast: fc.boolean(),
          allUnicast: fc.boolean(),
          noMulticast: fc.boolean(),
          noUnicast: fc.boolean(),
          noBroadcast: fc.boolean(),
          mac,
          unicast: count.chain((least) => fc.array(mac, { minLength: Math.min(least, 40), maxLength: 40 })),
          multicast: fc.array(mac, { maxLength: 24 }),
          unicastOverflow: fc.boolean(),
          multicastOverflow: fc.boolean(),
          vlans: hasBit(features, VIRTIO_NET_F_CTRL_VLAN)
            ? fc.uint8Array({ minLength: VLAN_TABLE_BYTES, maxLength: VLAN_TABLE_BYTES })
            : fc.constant(null),
        }),
        activePairs: fc.integer({ min: 1, max: pairs }),
        guestOffloads: fc.bigInt({ min: 0n, max: EVERYTHING }).map((some) => some & features & GUEST_OFFLOADS),
        announcePending: fc.boolean(),
      }),
      config: fc.record({ linkUp: fc.boolean(), mtu, speed, duplex, generation: word }),
      transport: transportState,
    });
  });

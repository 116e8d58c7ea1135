/** What is offered, what a driver may make of it, and what header follows, on every data path. */
import { EmulatedBackend } from '../../lib/backend/emulated';
import { EVERY_OFFLOAD } from '../../lib/backend/tap-features';
import { VhostKernelBackend } from '../../lib/backend/vhost-kernel';
import { IFF_NO_PI, IFF_TAP, IFF_VNET_HDR, TUN_F_TSO_ECN, TUN_F_UFO } from '../../lib/constants/if-tun';
import {
  VIRTIO_MMIO_DEVICE_FEATURES,
  VIRTIO_MMIO_DEVICE_FEATURES_SEL,
  VIRTIO_MMIO_STATUS,
} from '../../lib/constants/virtio-mmio';
import * as net from '../../lib/constants/virtio-net';
import {
  VIRTIO_CONFIG_S_ACKNOWLEDGE as ACKNOWLEDGE,
  VIRTIO_CONFIG_S_DRIVER as DRIVER,
  VIRTIO_CONFIG_S_FEATURES_OK,
} from '../../lib/constants/virtio-status';
import type { OfferOptions } from '../../lib/device/device-options';
import { VirtioMmio } from '../../lib/device/virtio-mmio';
import { VirtioNetDevice } from '../../lib/device/virtio-net-device';
import { Guest } from '../../lib/guest/guest';
import { MmioDriver } from '../../lib/guest/mmio-driver';
import { Netns } from '../../lib/host/netns';
import { Tap } from '../../lib/host/tap';
import { GuestMemory } from '../../lib/memory/guest-memory';
import { FEATURE_PROFILES, unmetDependencies, withoutUnmet } from '../../lib/net/feature-rules';
import { bit, bits, featureNames, hasBit } from '../../lib/net/features';
import { DeviceRig, EVERYTHING, GUEST_MAC, type PathKind, pathKinds } from '../helpers/device-rig';

const TUNNELS = bits(net.VIRTIO_NET_F_GUEST_UDP_TUNNEL_GSO, net.VIRTIO_NET_F_HOST_UDP_TUNNEL_GSO);
const SPLIT = EVERYTHING & ~bit(net.VIRTIO_F_RING_PACKED);

/** Rigs of one and of two pairs for all that needs no guest. */
let rigs: DeviceRig[];

interface Offer extends Partial<OfferOptions> {
  pairs?: 1 | 2;
}

/** What the driver of another device on the same taps finds. */
async function offered(kind: PathKind, { pairs = 1, ...options }: Offer = {}): Promise<bigint> {
  const rig = rigs[pairs - 1]!;
  const { memory } = rig;
  const device = await VirtioNetDevice.offer({ memory, backend: rig.backend(kind), mac: GUEST_MAC, pairs, ...options });
  const seen = MmioDriver.probe(new VirtioMmio(device)).deviceFeatures;
  expect(seen).toBe(device.offeredFeatures);
  await device.close();
  return seen;
}

/** Whether a driver that acks `choose` of what is offered gets FEATURES_OK, and what it is reproached with. */
async function acked(choose: (offered: bigint) => bigint): Promise<{ ok: boolean; wrong: string[] }> {
  const rig = rigs[0]!;
  rig.violations.length = 0;
  const driver = MmioDriver.probe(rig.mmio);
  await driver.reset();
  for (const status of [ACKNOWLEDGE, ACKNOWLEDGE | DRIVER]) driver.write(VIRTIO_MMIO_STATUS, status);
  driver.acknowledge(choose(driver.deviceFeatures));
  return { ok: (driver.status & VIRTIO_CONFIG_S_FEATURES_OK) !== 0, wrong: [...rig.violations] };
}

describe.each(pathKinds())('%s', (kind) => {
  beforeAll(async () => {
    rigs = [await DeviceRig.create({ kind }), await DeviceRig.create({ kind, pairs: 2 })];
  });

  afterAll(async () => {
    for (const rig of rigs) await rig.close();
  });

  describe('what is offered', () => {
    test('can all be acked together', async () => {
      const features = await offered(kind);
      expect(unmetDependencies(features)).toEqual([]);
      const always = [
        net.VIRTIO_F_VERSION_1,
        net.VIRTIO_F_RING_RESET,
        net.VIRTIO_NET_F_MAC,
        net.VIRTIO_NET_F_CTRL_VQ,
        net.VIRTIO_NET_F_MRG_RXBUF,
        net.VIRTIO_RING_F_EVENT_IDX,
        net.VIRTIO_RING_F_INDIRECT_DESC,
        net.VIRTIO_NET_F_CSUM,
        net.VIRTIO_NET_F_GUEST_CSUM,
        net.VIRTIO_NET_F_GUEST_TSO4,
        net.VIRTIO_NET_F_HOST_TSO6,
      ];
      expect(featureNames(bits(...always) & ~features)).toEqual([]);
      const never = [
        net.VIRTIO_F_NOTIFY_ON_EMPTY,
        net.VIRTIO_F_ANY_LAYOUT,
        net.VIRTIO_F_ACCESS_PLATFORM,
        net.VIRTIO_F_IN_ORDER,
        net.VIRTIO_NET_F_RSS,
      ];
      expect(featureNames(bits(...never) & features)).toEqual([]);
      expect(hasBit(features, net.VIRTIO_F_RING_PACKED)).toBe(kind === 'emulated');
    });

    test.each([
      net.VIRTIO_NET_F_CTRL_VQ,
      net.VIRTIO_NET_F_GUEST_CSUM,
      net.VIRTIO_NET_F_CSUM,
      net.VIRTIO_NET_F_GUEST_TSO4,
      net.VIRTIO_NET_F_MRG_RXBUF,
    ])('without bit %d, and without what needs it', async (number) => {
      const all = await offered(kind, { pairs: 2 });
      const less = await offered(kind, { pairs: 2, without: bit(number) });
      expect(less).toBe(withoutUnmet(all & ~bit(number)));
      expect(hasBit(all, number)).toBe(true);
      expect(hasBit(less, number)).toBe(false);
    });

    test('no more than the profile, and all of it', async () => {
      const profile = FEATURE_PROFILES['vhost-6.1']!;
      expect(await offered(kind, { pairs: 2, profile })).toBe(profile.features);
      expect(await offered(kind, { profile })).toBe(profile.features & ~bit(net.VIRTIO_NET_F_MQ));
    });

    test('MQ with several pairs only, INDIRECT_DESC unless it is turned off', async () => {
      const one = await offered(kind);
      const two = await offered(kind, { pairs: 2 });
      expect(two & ~one).toBe(bit(net.VIRTIO_NET_F_MQ));
      const direct = await offered(kind, { indirect: false });
      expect(one & ~direct).toBe(bit(net.VIRTIO_RING_F_INDIRECT_DESC));
    });

    test('nothing behind bit 127', () => {
      const rig = rigs[0]!;
      rig.mmio.write(VIRTIO_MMIO_DEVICE_FEATURES_SEL, 4, 4);
      expect(rig.mmio.read(VIRTIO_MMIO_DEVICE_FEATURES, 4)).toBe(0);
    });
  });

  describe('what may be acked', () => {
    test('everything', async () => {
      expect(await acked((features) => features)).toEqual({ ok: true, wrong: [] });
    });

    test('VERSION_1 alone', async () => {
      expect(await acked(() => bit(net.VIRTIO_F_VERSION_1))).toEqual({ ok: true, wrong: [] });
    });

    test.each<[string, (offered: bigint) => bigint, string]>([
      ['a bit that was not offered', (features) => features | bit(net.VIRTIO_NET_F_RSS), 'VIRTIO_NET_F_RSS'],
      ['MQ of one pair', (features) => features | bit(net.VIRTIO_NET_F_MQ), 'VIRTIO_NET_F_MQ'],
      ['no VERSION_1', (features) => features & ~bit(net.VIRTIO_F_VERSION_1), 'VIRTIO_F_VERSION_1'],
      [
        'TSO without checksums',
        (features) => features & ~bit(net.VIRTIO_NET_F_GUEST_CSUM),
        'VIRTIO_NET_F_GUEST_TSO4 needs VIRTIO_NET_F_GUEST_CSUM',
      ],
      [
        'commands without a control queue',
        (features) => features & ~bit(net.VIRTIO_NET_F_CTRL_VQ),
        'VIRTIO_NET_F_CTRL_RX needs VIRTIO_NET_F_CTRL_VQ',
      ],
    ])('not %s', async (_, choose, reason) => {
      const { ok, wrong } = await acked(choose);
      expect(ok).toBe(false);
      expect(wrong).toEqual([expect.stringContaining(reason)]);
    });

    if (kind === 'vhost-kernel') {
      test('not packed rings, which no vhost-net serves', async () => {
        const { ok, wrong } = await acked((features) => features | bit(net.VIRTIO_F_RING_PACKED));
        expect(ok).toBe(false);
        expect(wrong).toEqual([expect.stringContaining('VIRTIO_F_RING_PACKED')]);
      });
    }
  });

  describe('header', () => {
    test('of 12 bytes, 24 with offloads of UDP tunnels', async () => {
      await using rig = await DeviceRig.create({ kind });
      const tunnels = rig.device.offeredFeatures & TUNNELS;
      await rig.boot(withoutUnmet(SPLIT & ~TUNNELS));
      expect(rig.taps[0]!.vnetHdrSize).toBe(12);
      await rig.flows(50);
      await rig.crash();
      const { guest } = await rig.boot(SPLIT);
      expect(guest.headerLength).toBe(tunnels === 0n ? 12 : 24);
      expect(rig.taps[0]!.vnetHdrSize).toBe(guest.headerLength);
      // Taps learned them with Linux 6.17; vhost would have to know of them too.
      expect(tunnels === TUNNELS).toBe(kind === 'emulated' && (await knowsTunnels()));
      expect(tunnels === 0n || tunnels === TUNNELS).toBe(true);
      await rig.flows(50);
      expect(await rig.settle()).toMatchObject({
        toNetwork: { lost: 0, duplicated: 0, reordered: 0, corrupted: 0 },
        toGuest: { duplicated: 0, reordered: 0, corrupted: 0 },
      });
    });

    test.each([
      ['10 bytes without VERSION_1', 0n, 10],
      ['12 bytes with MRG_RXBUF', bit(net.VIRTIO_NET_F_MRG_RXBUF), 12],
    ])('of a driver before VERSION_1: %s', async (_, features, bytes) => {
      await using netns = await Netns.create();
      const tap = await Tap.open({ name: 'dev0', netns: netns.path });
      const peer = await Tap.open({ name: 'peer0', netns: netns.path, flags: IFF_TAP | IFF_NO_PI });
      await netns.addBridge('br0', ['dev0', 'peer0']);
      const memory = GuestMemory.create([{ gpa: 0, size: 8 << 20 }]);
      const guest = Guest.boot(memory, { gpa: 0, program: 'traffic', features, mac: GUEST_MAC, rate: 0 });
      const taps = [tap];
      const backend =
        kind === 'emulated'
          ? new EmulatedBackend({ taps, prepareTaps: true })
          : new VhostKernelBackend({ taps, prepareTaps: true });
      const device = new VirtioNetDevice({ memory, backend, features, queues: guest.queues, mac: GUEST_MAC });
      await device.start();
      expect(guest.headerLength).toBe(bytes);
      expect(tap.vnetHdrSize).toBe(bytes);
      await device.close();
      memory.close();
      await tap.close();
      await peer.close();
    });
  });
});

async function knowsTunnels(): Promise<boolean> {
  await using netns = await Netns.create();
  const tap = await Tap.open({ name: 'probe0', netns: netns.path, flags: IFF_TAP | IFF_NO_PI | IFF_VNET_HDR });
  try {
    const wanted = EVERY_OFFLOAD & ~(TUN_F_UFO | TUN_F_TSO_ECN);
    return (await tap.setBestOffload(wanted)) === wanted;
  } finally {
    await tap.close();
  }
}

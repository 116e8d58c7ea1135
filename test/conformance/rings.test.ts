/** Rings of every size and format, wrapped and not, with every framing: frames go both ways whole, once and in order, on every data path. */

import type { StoppedRing } from '../../lib/backend/backend';
import {
  VIRTIO_F_RING_PACKED,
  VIRTIO_NET_F_CSUM,
  VIRTIO_NET_F_GUEST_CSUM,
  VIRTIO_NET_F_MRG_RXBUF,
  VIRTIO_RING_F_EVENT_IDX,
  VIRTIO_RING_F_INDIRECT_DESC,
} from '../../lib/constants/virtio-net';
import type { NetDriverOptions } from '../../lib/guest/net-driver';
import { bit, hasBit } from '../../lib/net/features';
import { DeviceRig, EVERYTHING, pathKinds } from '../helpers/device-rig';
import { until } from '../helpers/vhost-wait';

/** Entries of the largest ring; frames a second each way, and how many there are at least. */
const MOST = 4096;
const RATE = 500;
const FRAMES = 60;
/** Frames after which an index of 16 bits stands where it was. */
const TURN = 0x10000;
/** Frames a second each way. */
const WRAP_RATE = 20_000;

const nothingWrong = { lost: 0, duplicated: 0, reordered: 0, corrupted: 0 };
const PACKED = bit(VIRTIO_F_RING_PACKED);
const SPLIT = EVERYTHING & ~PACKED;

interface Exchange extends Partial<NetDriverOptions> {
  wanted: bigint;
  size?: number;
}

/** A guest with these rings talks with the station: nothing is wrong on either side. */
async function exchange(rig: DeviceRig, { wanted, size = 256, ...options }: Exchange): Promise<void> {
  // A ring of few entries takes a turn of the event loop for each of them.
  await rig.crash({ frameSize: options.frameSize ?? 128, rate: size < 8 ? RATE / 4 : RATE });
  const { mmio } = await rig.boot(wanted, { rxSize: size, txSize: size, ...options });
  expect(hasBit(mmio.features, VIRTIO_F_RING_PACKED)).toBe(hasBit(wanted, VIRTIO_F_RING_PACKED));
  expect(rig.device.queues.map((queue) => queue.size)).toEqual([size, size]);
  const frames = size < 8 ? FRAMES / 2 : FRAMES;
  await rig.flows(frames);
  await expectSound(rig, frames);
}

async function expectSound(rig: DeviceRig, frames: number): Promise<void> {
  const { toNetwork, toGuest } = await rig.settle();
  expect([rig.violations, rig.broken, rig.runner.failure]).toEqual([[], [], null]);
  expect(toNetwork).toMatchObject(nothingWrong);
  // What the host dropped because nobody took it in time, on a machine with other work, is counted and not the data path's.
  const { dropped } = (await rig.taps[0]!.stats()).tx;
  expect(toGuest).toMatchObject({ ...nothingWrong, lost: dropped });
  expect(Math.min(toNetwork.received, toGuest.received)).toBeGreaterThanOrEqual(frames);
  expect(rig.driver.guest.counters.malformed).toBe(0);
}

describe.each(pathKinds())('%s', (kind) => {
  let rig: DeviceRig;

  beforeAll(async () => {
    rig = await DeviceRig.create({ kind, rate: RATE, device: { rxQueueSize: MOST, txQueueSize: MOST } });
  });

  afterAll(() => rig.close());

  describe('sizes', () => {
    test.each([1, 2, 4, 64, 256, 1024, MOST])('split, %d entries', async (size) => {
      await exchange(rig, { wanted: SPLIT, size });
    });
  });

  const bitsOf = {
    INDIRECT: VIRTIO_RING_F_INDIRECT_DESC,
    EVENT_IDX: VIRTIO_RING_F_EVENT_IDX,
    MRG: VIRTIO_NET_F_MRG_RXBUF,
  };
  const combinations = Array.from({ length: 8 }, (_, number) =>
    Object.keys(bitsOf).filter((_, index) => (number & (1 << index)) !== 0),
  ).map((names) => ({ names: names.join(' ') || 'none', with: names as (keyof typeof bitsOf)[] }));

  describe('framing, chains of header and frame', () => {
    test.each(combinations)('$names', async ({ with: names }) => {
      const without = Object.entries(bitsOf).filter(([name]) => !names.includes(name as keyof typeof bitsOf));
      const wanted = without.reduce((features, [, number]) => features & ~bit(number), SPLIT);
      const merged = names.includes('MRG');
      await exchange(rig, {
        wanted,
        frameSize: 1514,
        separateHeader: true,
        ...(merged ? { rxBufferSize: 256, rxSize: 256 } : {}),
      });
    });
  });

  test('frames merged from seven buffers on a ring of eight', async () => {
    const wanted = SPLIT & (bit(VIRTIO_NET_F_MRG_RXBUF) | bit(VIRTIO_NET_F_CSUM) | bit(VIRTIO_NET_F_GUEST_CSUM));
    await exchange(rig, { wanted, size: 8, frameSize: 1514, rxBufferSize: 256 });
  });

  describe('packed', () => {
    if (kind === 'vhost-kernel') {
      test('is refused, by name', async () => {
        expect(hasBit(rig.device.offeredFeatures, VIRTIO_F_RING_PACKED)).toBe(false);
        expect(() => rig.device.backend.requireFeatures(PACKED)).toThrow(
          expect.objectContaining({
            code: 'VHOST_ERR_FEATURES',
            message: expect.stringContaining('VIRTIO_F_RING_PACKED'),
            hint: expect.stringContaining('no vhost-net serves packed virtqueues'),
          }),
        );
      });
      return;
    }
    test.each([1, 2, 3, 4, 64, 100, 256, 1024, MOST])('%d entries', async (size) => {
      await exchange(rig, { wanted: EVERYTHING, size });
    });

    test.each(combinations)('chains of header and frame, $names', async ({ with: names }) => {
      const without = Object.entries(bitsOf).filter(([name]) => !names.includes(name as keyof typeof bitsOf));
      const wanted = without.reduce((features, [, number]) => features & ~bit(number), EVERYTHING);
      const merged = names.includes('MRG');
      await exchange(rig, { wanted, frameSize: 1514, separateHeader: true, ...(merged ? { rxBufferSize: 256 } : {}) });
    });
  });

  const formats: [string, bigint][] = [
    ['split', SPLIT],
    ...(kind === 'emulated' ? [['packed', EVERYTHING] as [string, bigint]] : []),
  ];

  describe('indexes of 16 bits that wrap', () => {
    test.each(formats)('%s, to the network', async (_, wanted) => {
      await using rig = await DeviceRig.create({ kind });
      const { guest } = await rig.boot(wanted, { program: 'flood-transmit', frameSize: 64, txSize: 256, shape: 'raw' });
      await until('the index wraps', () => guest.counters.sentDone > TURN, 60_000);
      await rig.runner.pause();
      await rig.device.stop();
      expect([rig.violations, rig.broken, rig.runner.failure]).toEqual([[], [], null]);
      const { rx } = await rig.taps[0]!.stats();
      const [, { base, usedIdx }] = rig.device.backend.stoppedRings as [StoppedRing, StoppedRing];
      expect(rx.packets).toBeGreaterThan(TURN);
      // Every frame that was used is one that the tap has seen, and the other way round.
      const { packed, size } = rig.device.queues[1]!;
      const index = rx.packets % (packed === undefined ? TURN : size);
      expect([base, usedIdx, rx.dropped]).toEqual([index, index, 0]);
    });

    // An emulated processor would take minutes: VHOST_NET_VM says that there may be one.
    if (process.env.VHOST_NET_VM === '1') return;
    test.each(formats)('%s, both ways', async (_, wanted) => {
      await using rig = await DeviceRig.create({ kind, rate: WRAP_RATE, frameSize: 64 });
      await rig.boot(wanted, { frameSize: 64 });
      await rig.flows(TURN + 1000);
      await expectSound(rig, TURN + 1000);
      await rig.device.stop();
      for (const { base, usedIdx } of rig.device.backend.stoppedRings) expect(base).toBe(usedIdx);
    });
  });
});

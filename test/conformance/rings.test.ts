/** Rings of every size and format, wrapped and not, with every framing: frames go both ways whole, once and in order, on every data path. */
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
import { DeviceRig, EVERYTHING, type PathKind, pathKinds } from '../helpers/device-rig';

/** Frames a second each way. */
const WRAP_RATE = 20_000;

const nothingWrong = { lost: 0, duplicated: 0, reordered: 0, corrupted: 0 };
const PACKED = bit(VIRTIO_F_RING_PACKED);
const SPLIT = EVERYTHING & ~PACKED;

interface Exchange extends Partial<NetDriverOptions> {
  kind: PathKind;
  wanted: bigint;
  size?: number;
  rate?: number;
  frames?: number;
}

/** A guest with these rings talks with the station: nothing is wrong on either side. */
async function exchange({ kind, wanted, size = 256, rate = 2000, frames = 200, ...options }: Exchange): Promise<void> {
  const { frameSize = 128 } = options;
  // The largest size is a power of two; a packed ring may have any size below.
  const most = 2 ** Math.ceil(Math.log2(size));
  await using rig = await DeviceRig.create({ kind, rate, frameSize, device: { rxQueueSize: most, txQueueSize: most } });
  const { mmio } = await rig.boot(wanted, { rxSize: size, txSize: size, ...options, frames: 0 });
  expect(hasBit(mmio.features, VIRTIO_F_RING_PACKED)).toBe(hasBit(wanted, VIRTIO_F_RING_PACKED));
  expect(rig.device.queues.map((queue) => queue.size)).toEqual([size, size]);
  await rig.flows(frames);
  await expectSound(rig, frames);
}

async function expectSound(rig: DeviceRig, frames: number): Promise<void> {
  const { toNetwork, toGuest } = await rig.settle(200);
  expect([rig.violations, rig.broken, rig.runner.failure]).toEqual([[], [], null]);
  expect(toNetwork).toMatchObject(nothingWrong);
  expect(toGuest).toMatchObject(nothingWrong);
  expect(Math.min(toNetwork.received, toGuest.received)).toBeGreaterThanOrEqual(frames);
  expect(rig.driver.guest.counters.malformed).toBe(0);
}

describe.each(pathKinds())('%s', (kind) => {
  describe('sizes', () => {
    test.each([1, 2, 4, 64, 256, 1024, 4096])('split, %d entries', async (size) => {
      await exchange({ kind, wanted: SPLIT, size, frames: size < 4 ? 60 : 200 });
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
      await exchange({
        kind,
        wanted,
        frameSize: 1514,
        separateHeader: true,
        ...(merged ? { rxBufferSize: 256, rxSize: 256 } : {}),
      });
    });
  });

  test('frames merged from seven buffers on a ring of eight', async () => {
    const wanted = SPLIT & (bit(VIRTIO_NET_F_MRG_RXBUF) | bit(VIRTIO_NET_F_CSUM) | bit(VIRTIO_NET_F_GUEST_CSUM));
    await exchange({ kind, wanted, size: 8, frameSize: 1514, rxBufferSize: 256, rate: 500, frames: 100 });
  });

  describe('packed', () => {
    if (kind === 'vhost-kernel') {
      test('is refused, by name', async () => {
        await using rig = await DeviceRig.create({ kind });
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
    test.each([1, 2, 3, 4, 64, 100, 256, 1024, 4096])('%d entries', async (size) => {
      await exchange({ kind, wanted: EVERYTHING, size, frames: size < 4 ? 60 : 200 });
    });

    test.each(combinations)('chains of header and frame, $names', async ({ with: names }) => {
      const without = Object.entries(bitsOf).filter(([name]) => !names.includes(name as keyof typeof bitsOf));
      const wanted = without.reduce((features, [, number]) => features & ~bit(number), EVERYTHING);
      const merged = names.includes('MRG');
      await exchange({ kind, wanted, frameSize: 1514, separateHeader: true, ...(merged ? { rxBufferSize: 256 } : {}) });
    });
  });

  const formats = kind === 'emulated' ? ['split', 'packed'] : ['split'];

  test.each(formats)('indexes of 16 bits that wrap, %s', async (format) => {
    await using rig = await DeviceRig.create({ kind, rate: WRAP_RATE, frameSize: 64 });
    // As long as nobody reads for half a second, whoever else has the processors.
    for (const port of ['dev0', 'station']) await rig.netns.ip('link', 'set', 'dev', port, 'txqueuelen', '10000');
    await rig.boot(format === 'packed' ? EVERYTHING : SPLIT, { frameSize: 64 });
    await rig.flows(0x10000 + 1000);
    await expectSound(rig, 0x10000 + 1000);
    await rig.device.stop();
    for (const { base, usedIdx } of rig.device.backend.stoppedRings) expect(base).toBe(usedIdx);
  });
});

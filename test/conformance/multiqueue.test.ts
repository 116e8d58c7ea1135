/** Queue pairs put to use and left again under traffic, and requests for them that cannot be, on every data path. */
import { VIRTIO_F_RING_PACKED } from '../../lib/constants/virtio-net';
import { VIRTIO_NET_ERR, VIRTIO_NET_OK } from '../../lib/constants/virtio-net-ctrl';
import { bit } from '../../lib/net/features';
import type { LedgerReport } from '../../lib/observe/frame-ledger';
import { DeviceRig, EVERYTHING, pathKinds } from '../helpers/device-rig';
import { until } from '../helpers/vhost-wait';

const nothingWrong = { lost: 0, duplicated: 0, reordered: 0, corrupted: 0 };
const SPLIT = EVERYTHING & ~bit(VIRTIO_F_RING_PACKED);
const PAIRS = 8;
/** Frames a second each way. */
const RATE = 800;
/** Frames in a queue of the tap when it is parked, at most: a batch that the data path has not taken yet. The kernel frees them uncounted. */
const MOST_QUEUED = 64;
/** Up and down, near and far. */
const WALK = [8, 1, 3, 2, 7, 4, 1, 8];

/** Every flow goes on, each way. */
async function allFlows(rig: DeviceRig, frames: number): Promise<void> {
  const ledgers = [...rig.station.ledgers, ...rig.driver.guest.ledgers];
  const before = ledgers.map(({ received }) => received);
  await until('frames of every flow', () =>
    ledgers.every(({ received }, index) => received >= before[index]! + frames),
  );
}

const parked = (rig: DeviceRig): boolean[] => rig.taps.map((tap) => tap.parked);
const parkedBehind = (pairs: number): boolean[] => Array.from({ length: PAIRS }, (_, index) => index >= pairs);

describe.each(pathKinds())('%s', (kind) => {
  const formats =
    kind === 'emulated' ? [['split', SPLIT] as const, ['packed', EVERYTHING] as const] : [['split', SPLIT] as const];

  test.each(formats)('%s: pairs up and down under traffic', async (_, wanted) => {
    await using rig = await DeviceRig.create({ kind, pairs: PAIRS, rate: RATE });
    await rig.boot(wanted);
    await rig.flows(50);
    expect(parked(rig)).toEqual(parkedBehind(1));
    let freed = 0;
    for (const [step, pairs] of WALK.entries()) {
      const before = step === 0 ? 1 : WALK[step - 1]!;
      expect(await rig.driver.usePairs(pairs)).toBe(true);
      freed += Math.max(0, before - pairs);
      expect([rig.device.activePairs, parked(rig)]).toEqual([pairs, parkedBehind(pairs)]);
      await allFlows(rig, 5);
    }
    const { toNetwork, toGuest } = await rig.settle();
    expect([rig.violations, rig.broken]).toEqual([[], []]);
    expect(toNetwork).toMatchObject(nothingWrong);
    expect(toGuest.lost).toBeLessThanOrEqual(freed * MOST_QUEUED);
    expect(toGuest).toMatchObject<Partial<LedgerReport>>({ duplicated: 0, corrupted: 0 });
  });

  test('numbers of pairs that cannot be change nothing', async () => {
    await using rig = await DeviceRig.create({ kind, pairs: PAIRS, rate: RATE });
    const { guest } = await rig.boot(SPLIT);
    await rig.flows(50);
    expect(await rig.driver.usePairs(3)).toBe(true);
    await allFlows(rig, 5);
    for (const pairs of [0, PAIRS + 1, 0x8000, 0xffff]) {
      expect(await rig.driver.command({ kind: 'mq-vq-pairs-set', pairs })).toBe(VIRTIO_NET_ERR);
      expect([rig.device.activePairs, parked(rig)]).toEqual([3, parkedBehind(3)]);
    }
    expect(await rig.driver.command({ kind: 'mq-vq-pairs-set', pairs: 3 })).toBe(VIRTIO_NET_OK);
    expect(guest.activePairs).toBe(3);
    await allFlows(rig, 5);
    const { toNetwork, toGuest } = await rig.settle();
    expect([rig.violations, rig.broken]).toEqual([[], []]);
    expect(toNetwork).toMatchObject(nothingWrong);
    expect(toGuest).toMatchObject({ lost: 0, duplicated: 0, corrupted: 0 });
  });

  test('pairs whose queues were not set up are not used', async () => {
    await using rig = await DeviceRig.create({ kind, pairs: PAIRS, rate: RATE });
    await rig.boot(SPLIT, { pairs: 2, shape: 'udp' });
    for (const [pairs, ack] of [
      [2, VIRTIO_NET_OK],
      [3, VIRTIO_NET_ERR],
      [PAIRS, VIRTIO_NET_ERR],
      [1, VIRTIO_NET_OK],
      [3, VIRTIO_NET_ERR],
    ] as const) {
      const before = rig.device.activePairs;
      expect(await rig.driver.command({ kind: 'mq-vq-pairs-set', pairs })).toBe(ack);
      const now = ack === VIRTIO_NET_OK ? pairs : before;
      expect([rig.device.activePairs, parked(rig)]).toEqual([now, parkedBehind(now)]);
    }
    expect([rig.violations, rig.broken]).toEqual([[], []]);
  });

  test('without MQ there is one pair, and no command changes that', async () => {
    await using rig = await DeviceRig.create({ kind });
    const driver = await rig.boot(SPLIT);
    expect(driver.controlNumber).toBe(2);
    for (const pairs of [1, 2]) {
      expect(await driver.command({ kind: 'mq-vq-pairs-set', pairs })).toBe(VIRTIO_NET_ERR);
    }
    await rig.flows(50);
  });

  test('a reset ends the use of several pairs', async () => {
    await using rig = await DeviceRig.create({ kind, pairs: PAIRS, rate: RATE });
    await rig.boot(SPLIT);
    expect(await rig.driver.usePairs(PAIRS)).toBe(true);
    await rig.flows(50);
    await rig.crash();
    await rig.boot(SPLIT);
    expect([rig.device.activePairs, parked(rig)]).toEqual([1, parkedBehind(1)]);
    await rig.flows(50);
    expect(await rig.driver.usePairs(2)).toBe(true);
    await allFlows(rig, 5);
    expect(parked(rig)).toEqual(parkedBehind(2));
    const { toNetwork } = await rig.settle();
    expect(toNetwork).toMatchObject(nothingWrong);
  });
});

/** Bugs that others had with the dirty log, on the emulated data path: what the device marks against what it wrote. docs/bug-cases.md. */
import {
  VIRTIO_F_VERSION_1,
  VIRTIO_NET_F_MRG_RXBUF,
  VIRTIO_RING_F_EVENT_IDX,
  VIRTIO_RING_F_INDIRECT_DESC,
} from '../../lib/constants/virtio-net';
import { PAGE_SIZE } from '../../lib/memory/address';
import { PageBitmap } from '../../lib/memory/page-bitmap';
import { bits } from '../../lib/net/features';
import { hashPages } from '../../lib/observe/page-audit';
import { DeviceRig } from '../helpers/device-rig';
import { type MarkedOptions, MarkedPages } from '../helpers/marked-pages';
import { pagesOf } from '../helpers/vhost-pages';
import { until } from '../helpers/vhost-wait';

const PLAIN = bits(VIRTIO_F_VERSION_1);
const MERGED = PLAIN | bits(VIRTIO_NET_F_MRG_RXBUF);
const INDIRECT = bits(VIRTIO_RING_F_INDIRECT_DESC);
/** Marked for each that was written, at most. */
const PRECISION = 1.02;

test.each<[string, MarkedOptions]>([
  ['one buffer a frame, in batches', { features: PLAIN, pieces: [2048] }],
  ['chains', { features: PLAIN, pieces: [12, 100, 1936] }],
  ['indirect chains', { features: PLAIN | INDIRECT, pieces: [12, 100, 1936], indirect: true }],
  ['one of the merged kind', { features: MERGED, pieces: [2048] }],
  ['several buffers a frame', { features: MERGED, pieces: [512], frameSize: 1400 }],
  [
    'several buffers a frame, indirect',
    { features: MERGED | INDIRECT, pieces: [100, 412], frameSize: 1400, indirect: true },
  ],
  ['EVENT_IDX', { features: MERGED | bits(VIRTIO_RING_F_EVENT_IDX), pieces: [2048] }],
])('M3, M6: receive, %s: what is written is marked, and hardly anything else', async (_name, options) => {
  await using it = await MarkedPages.create(options);
  it.postReceive();
  const { marked, written } = await it.during(async () => {
    it.station.start();
    await until('most buffers are used', () => it.used.rx >= 80);
  });
  expect(written.length).toBeGreaterThan(80);
  expect(written.filter((page) => !marked.includes(page))).toEqual([]);
  expect(marked.length / written.length).toBeLessThanOrEqual(PRECISION);
});

test('M7: transmit marks pages of the used rings alone', async () => {
  await using it = await MarkedPages.create({ features: MERGED, pieces: [2048] });
  it.postTransmit(200);
  const { marked, written } = await it.during(() => until('all is sent', () => it.used.tx === 200));
  // Of the receive queue as well: whether it wants to be kicked is written there.
  const rings = it.device.queues.flatMap(({ usedRing }) => [usedRing, usedRing + 4 + 8 * 256 + 1]);
  const pages = new Set(rings.map((at) => Math.floor(at / PAGE_SIZE)));
  expect(written).toContain(Math.floor(it.device.queues[1]!.usedRing / PAGE_SIZE));
  expect(written.filter((page) => !marked.includes(page))).toEqual([]);
  expect(marked.filter((page) => !pages.has(page))).toEqual([]);
});

test('M6: with two pairs whose log is one', async () => {
  await using rig = await DeviceRig.create({ pairs: 2, rate: 4000 });
  await rig.boot();
  expect(await rig.driver.usePairs(2)).toBe(true);
  await rig.flows(100);
  await rig.runner.pause();
  await rig.device.stop();
  const before = await hashPages(rig.memory);
  const log = await rig.device.startDirtyLog();
  await rig.device.start();
  const positions = async () => (await rig.device.backend.positions()).map((position) => JSON.stringify(position));
  let last: string[] = [];
  // Until neither has a buffer left.
  await until('both pairs are out of buffers', async () => {
    const now = await positions();
    await new Promise((resolve) => setTimeout(resolve, 100));
    const still = now.join() === last.join();
    last = now;
    return still;
  });
  await rig.device.stop();
  const bitmap = new PageBitmap(rig.memory.end / PAGE_SIZE);
  log.takeInto(bitmap);
  await rig.device.stopDirtyLog();
  const after = await hashPages(rig.memory);
  const written = [...before.keys()].filter((page) => before[page] !== after[page]);
  const marked = pagesOf(bitmap);
  expect(written.length).toBeGreaterThan(100);
  expect(written.filter((page) => !marked.includes(page))).toEqual([]);
  expect(marked.length / written.length).toBeLessThanOrEqual(PRECISION);
  await rig.device.start();
});

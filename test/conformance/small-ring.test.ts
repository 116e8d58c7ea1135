/** A frame that comes while the guest has fewer buffers than it takes: it waits, on whichever data path, and over a switch. */
import { setTimeout as sleep } from 'node:timers/promises';
import * as net from '../../lib/constants/virtio-net';
import { Tap } from '../../lib/host/tap';
import { bits } from '../../lib/net/features';
import { DeviceRig, GUEST_MAC, type PathKind, pathKinds } from '../helpers/device-rig';
import { inject, OFFLOADING_HEADER } from '../helpers/offloading-tap';
import { type RawFrame, RawNetDriver } from '../helpers/raw-net-driver';
import { partialFrame, payload, readFrame } from '../helpers/tcp-frames';
import { until } from '../helpers/vhost-wait';

const WANTED = bits(
  net.VIRTIO_F_VERSION_1,
  net.VIRTIO_NET_F_MRG_RXBUF,
  net.VIRTIO_NET_F_GUEST_CSUM,
  net.VIRTIO_NET_F_GUEST_TSO4,
);
/** Buffers of 2 KiB: enough for the long frame when all are free, not when four are. */
const SIZE = 16;
const SHORT = payload(200);
const LONG = payload(20_000);
const SHORT_FRAMES = SIZE - 4;
const ends = { from: '02:00:00:00:00:09', to: GUEST_MAC };

interface Lab extends AsyncDisposable {
  rig: DeviceRig;
  driver: RawNetDriver;
  sender: Tap;
}

/** A guest that has let all but four buffers fill up, and a long frame on its way to it. */
async function short(kind: PathKind): Promise<Lab> {
  const rig = await DeviceRig.create({ kind });
  const sender = await Tap.open({ name: 'sender', netns: rig.netns.path });
  await sender.setVnetHdrSize(OFFLOADING_HEADER);
  await rig.netns.attach('br0', 'sender');
  const driver = await RawNetDriver.start(rig.mmio, rig.memory, { wanted: WANTED, size: SIZE });
  await rig.device.settled();
  const frame = partialFrame('ipv4', 'tcp', SHORT, ends);
  for (let count = 0; count < SHORT_FRAMES; count++) inject(sender, frame.bytes, { ...frame.header, gsoType: 0 });
  await until('the short frames', () => driver.rx.ring.pending() === SHORT_FRAMES);
  const long = partialFrame('ipv4', 'tcp', LONG, ends);
  inject(sender, long.bytes, long.header);
  await sleep(50);
  expect(driver.rx.ring.pending()).toBe(SHORT_FRAMES);
  const close = async (): Promise<void> => {
    await sender.close();
    await rig.close();
  };
  return { rig, driver, sender, [Symbol.asyncDispose]: close };
}

const dataOf = (frames: readonly RawFrame[]): Uint8Array[] => frames.map(({ bytes }) => readFrame(bytes)!.data);

/** Everything once, in order. */
async function expectAll({ driver }: Lab, before: readonly RawFrame[] = []): Promise<void> {
  const frames = [...before, ...(await driver.frames(SHORT_FRAMES + 1 - before.length))];
  await sleep(50);
  frames.push(...driver.receive());
  expect(dataOf(frames)).toEqual([...Array<Uint8Array>(SHORT_FRAMES).fill(SHORT), LONG]);
}

describe.each(pathKinds())('%s', (kind) => {
  test('it is delivered when there are buffers', async () => {
    await using lab = await short(kind);
    await expectAll(lab);
  });

  test.each(pathKinds())('it is delivered once when the data path changes to %s meanwhile', async (next) => {
    await using lab = await short(kind);
    const switching = lab.rig.device.switchBackend(lab.rig.backend(next));
    await sleep(10);
    const frames = lab.driver.receive();
    await switching;
    await expectAll(lab, frames);
  });
});

test('a guest that posts no buffers before the emulated path ends loses it, and is told so in the trace', async () => {
  await using lab = await short('emulated');
  await lab.rig.device.stop();
  await lab.rig.device.start();
  const frames = await lab.driver.frames(SHORT_FRAMES);
  await sleep(100);
  frames.push(...lab.driver.receive());
  expect(dataOf(frames)).toEqual(Array<Uint8Array>(SHORT_FRAMES).fill(SHORT));
  const told = lab.rig.trace.records.filter(
    (record) => record.kind === 'fault' && /no room is dropped/.test(record.message),
  );
  expect(told).toHaveLength(1);
});

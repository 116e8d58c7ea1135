/** Which queue of a multiqueue tap the kernel gives a flow's frames to, seen from outside: needs root and /dev/net/tun. */
import { IFF_NO_PI, IFF_TAP } from '../../../lib/constants/if-tun';
import { Netns } from '../../../lib/host/netns';
import { Tap } from '../../../lib/host/tap';
import { parseMac } from '../../../lib/net/ethernet';
import { type FrameKind, fromGuest } from '../../../lib/net/test-flows';
import { encodeFrame, frameArea, frameFlow, isTestFrame } from '../../../lib/net/test-frame';
import { Station } from '../../../lib/observe/station';
import { sleep, until } from '../../helpers/vhost-wait';

const QUEUES = 4;
const FLOW = 10;
const BACK = 20;
const SIZE = 128;
const MAC = '02:00:00:00:00:02';
const STATION_MAC = '02:00:00:00:00:01';
const ADDRESSES = Uint8Array.from([...parseMac(STATION_MAC), ...parseMac(MAC)]);
const flows = Array.from({ length: QUEUES }, (_, index) => index);

let netns: Netns;
let queues: Tap[];
let station: Station;
let sequence = 0;

async function open(shape: FrameKind): Promise<void> {
  netns = await Netns.create();
  await netns.addBridge('br0');
  queues = await Tap.openQueues(QUEUES, { netns: netns.path, name: 'many', flags: IFF_TAP | IFF_NO_PI });
  const parts = { mac: STATION_MAC, peerMac: MAC, sends: BACK, receives: FLOW, flows: QUEUES, shape };
  station = await Station.open({
    ...parts,
    netns: netns.path,
    name: 'station',
    rate: 10_000,
    frameSize: SIZE,
    capacity: 4096,
  });
  await netns.attach('br0', 'many');
  await netns.attach('br0', 'station');
}

afterEach(async () => {
  await station.close();
  for (const queue of queues) await queue.close();
  await netns.delete();
});

/** One frame of the flow, written to a queue. */
function write(flow: number, queue: number, shape: FrameKind = 'udp'): void {
  const area = frameArea(new Uint8Array(SIZE));
  encodeFrame(area, 0, SIZE, FLOW + flow, sequence++, 0, ADDRESSES, 0, 6, fromGuest(shape, flow));
  expect(queues[queue]!.writeFrames(area.u8, SIZE, 1, Int32Array.of(SIZE))).toBe(1);
}

/** Sends about `frames` from the station. */
async function reply(frames: number): Promise<number> {
  const before = station.sent;
  station.start();
  await until('frames from the station', () => station.sent >= before + frames);
  station.hush();
  return station.sent - before;
}

/** Empties the queues: how many frames of each flow came on each. */
function drain(): number[][] {
  const arena = frameArea(new Uint8Array(64 * 2048));
  const lengths = new Int32Array(64);
  return queues.map((queue) => {
    const counts = flows.map(() => 0);
    for (;;) {
      const count = queue.readFrames(arena.u8, 2048, 64, lengths);
      for (let at = 0; at < count; at++) {
        if (isTestFrame(arena, at * 2048, lengths[at]!)) counts[frameFlow(arena, at * 2048) - BACK]! += 1;
      }
      if (count < 64) return counts;
    }
  });
}

const total = (counts: number[][]): number => counts.flat().reduce((sum, count) => sum + count, 0);

/** By flow: the queues that got frames of it. */
function places(counts: number[][]): number[][] {
  return flows.map((flow) => counts.flatMap((queue, index) => (queue[flow]! > 0 ? [index] : [])));
}

/** Reads until `sent` frames have come: how many of each flow came on each queue. */
async function collect(sent: number): Promise<number[][]> {
  const counts = queues.map(() => flows.map(() => 0));
  await until('every frame', () => {
    for (const [queue, more] of drain().entries()) {
      for (const [flow, count] of more.entries()) counts[queue]![flow]! += count;
    }
    return total(counts) === sent;
  });
  return counts;
}

test('a UDP flow comes back on the queue that sent it, and follows it to another', async () => {
  await open('udp');
  for (const flow of flows) write(flow, flow);
  expect(places(await collect(await reply(400)))).toEqual([[0], [1], [2], [3]]);
  for (const flow of flows) write(flow, QUEUES - 1 - flow);
  expect(places(await collect(await reply(400)))).toEqual([[3], [2], [1], [0]]);
  await until('all at the station', () => station.ledgers.every(({ received }) => received === 2));
});

test('raw frames have one hash: all flows follow the one that sent last', async () => {
  await open('raw');
  for (const flow of flows) write(flow, flow, 'raw');
  expect(places(await collect(await reply(400)))).toEqual([[3], [3], [3], [3]]);
  write(0, 1, 'raw');
  expect(places(await collect(await reply(400)))).toEqual([[1], [1], [1], [1]]);
});

test('a parked queue: its frames are freed uncounted, its flow comes on another, and back with its next frame', async () => {
  await open('udp');
  for (const flow of flows) write(flow, flow);
  const waiting = await reply(400);
  await sleep(50);
  const { dropped } = (await queues[0]!.stats()).tx;
  await queues[1]!.setQueue('detach');
  const rest = drain();
  const freed = waiting - total(rest);
  expect(rest[1]).toEqual([0, 0, 0, 0]);
  expect([rest[0]![0]! + rest[2]![2]! + rest[3]![3]!, freed]).toEqual([total(rest), station.sentOf(1)]);
  expect((await queues[0]!.stats()).tx.dropped).toBe(dropped);

  // The last queue takes the place of the parked one. On Linux 6.18 flow 1 comes on queue 3 therefore, and flow 3, which is remembered for a
  // place that is no more, on queue 0 until it is heard of again.
  const parked = places(await collect(await reply(400)));
  for (const where of parked) expect(where).toHaveLength(1);
  expect(parked[1]).not.toEqual([1]);
  expect([parked[0], parked[2]]).toEqual([[0], [2]]);
  for (const flow of [0, 2, 3]) write(flow, flow);
  const heard = places(await collect(await reply(400)));
  expect(heard).toEqual([[0], parked[1], [2], [3]]);
  await queues[1]!.setQueue('attach');
  write(1, 1);
  expect(places(await collect(await reply(400)))).toEqual([[0], [1], [2], [3]]);
});

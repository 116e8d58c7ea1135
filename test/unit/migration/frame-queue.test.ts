/** One tap queue of a hand-over on a real tap, into which a station sends. */
import { STRIDE } from '../../../lib/backend/frame-arena';
import { Netns } from '../../../lib/host/netns';
import { Tap } from '../../../lib/host/tap';
import { emptied, FrameQueue } from '../../../lib/migration/handover/frame-queue';
import { frameArea, frameSequence } from '../../../lib/net/test-frame';
import { BROADCAST } from '../../helpers/flow-plan';
import { GroupStation } from '../../helpers/group-station';
import { sleep, until } from '../../helpers/vhost-wait';

const HEADER = 10;
const STATION = '02:00:00:00:00:01';
let netns: Netns;
let tap: Tap;
let station: GroupStation;
let queue: FrameQueue;
const arena = new Uint8Array(64 * STRIDE);
const lengths = new Int32Array(64);

beforeEach(async () => {
  netns = await Netns.create();
  await netns.addBridge('br0');
  tap = await Tap.open({ name: 'queue0', netns: netns.path });
  await netns.attach('br0', tap.name);
  const plan = { flow: 1, kind: 'broadcast', source: STATION, destination: BROADCAST } as const;
  station = await GroupStation.open(netns, 'station', [STATION], [plan]);
  queue = new FrameQueue(tap, HEADER);
});

afterEach(async () => {
  queue.close();
  await station.close();
  await tap.close();
  await netns.delete();
});

const sequenceAt = (bytes: Uint8Array, at: number): number => frameSequence(frameArea(bytes), at + HEADER);

/** What the data path is given. */
function read(max = 64): number[] {
  const count = queue.read(arena, STRIDE, max, lengths);
  return Array.from({ length: Math.max(0, count) }, (_, index) => sequenceAt(arena, index * STRIDE));
}

const range = (from: number, to: number): number[] => Array.from({ length: to - from }, (_, index) => from + index);

test('while it collects everything is read at once and goes to whoever listens, beyond what a tap queue holds', async () => {
  const heard: number[] = [];
  queue.collect((bytes, at) => heard.push(sequenceAt(bytes, at)));
  for (let burst = 0; burst < 30; burst++, await sleep(2)) station.burst(100);
  await until('all are heard', () => heard.length === 3000);
  expect(heard).toEqual(range(0, 3000));
  expect(queue.taken).toBe(3000);
  // Whoever reads is given what the listener put into the list, and nothing else.
  expect(read()).toEqual([]);
});

test('what nobody listens to is read, counted and thrown away', () => {
  queue.collect(null);
  station.burst(20);
  queue.drain();
  expect(queue.taken).toBe(20);
  queue.passThrough();
  station.burst(5);
  expect(read()).toEqual(range(20, 25));
});

test('drain: says when it found the queue empty', () => {
  station.burst(700);
  queue.collect(() => undefined);
  expect(queue.taken).toBe(512);
  expect(queue.drain()).toBe(true);
  expect(queue.taken).toBe(700);
  expect(queue.drain()).toBe(true);
});

test('the list comes first, then the tap, in one order', () => {
  queue.collect((bytes, at, end) => queue.push(bytes.slice(at, end)));
  station.burst(20);
  queue.drain();
  station.burst(20);
  queue.passThrough();
  expect(queue.waiting).toBe(20);
  expect(read(7)).toEqual(range(0, 7));
  expect(read()).toEqual(range(7, 20));
  expect(queue.waiting).toBe(0);
  expect(read()).toEqual(range(20, 40));
  expect(queue.firstReadAt).not.toBeNull();
});

test('what is put back is the next one again', () => {
  queue.collect((bytes, at, end) => queue.push(bytes.slice(at, end)));
  station.burst(3);
  queue.drain();
  expect(read(1)).toEqual([0]);
  queue.putBack!(arena.slice(0, lengths[0]));
  expect(read(2)).toEqual([0, 1]);
  queue.putBack!(arena.slice(STRIDE, STRIDE + lengths[1]!));
  expect(queue.waiting).toBe(2);
  expect(queue.takeAll().map((frame) => sequenceAt(frame, 0))).toEqual([1, 2]);
  expect(queue.waiting).toBe(0);
  queue.putBack!(arena.slice(0, lengths[0]));
  expect(queue.waiting).toBe(1);
  queue.leave();
  expect(queue.putBack).toBeUndefined();
});

test('whoever waits is called when the list has frames, and when the tap has', async () => {
  let calls = 0;
  queue.collect((bytes, at, end) => queue.push(bytes.slice(at, end)));
  const watch = queue.watch(() => {
    calls++;
    read();
  });
  station.burst(1);
  await until('called for the list', () => calls > 0);
  queue.passThrough();
  await sleep(10);
  const before = calls;
  station.burst(1);
  await until('called for the tap', () => calls > before);
  watch.close();
  const after = calls;
  station.burst(1);
  await sleep(20);
  expect(calls).toBe(after);
  // Nobody took it.
  expect(read()).toEqual([2]);
});

test('a listener hears of what passes', () => {
  const heard: number[] = [];
  queue.passThrough((bytes, at) => heard.push(sequenceAt(bytes, at)));
  station.burst(5);
  expect(read(3)).toEqual([0, 1, 2]);
  expect(heard).toEqual([0, 1, 2]);
});

test('emptied: when nothing waits in the list, nor in the data path', async () => {
  const path = { holding: true };
  queue.push(new Uint8Array(60));
  let done: boolean | null = null;
  const waiting = emptied([queue], path).then((all) => {
    done = all;
  });
  await sleep(10);
  read();
  await sleep(10);
  expect(done).toBeNull();
  path.holding = false;
  await waiting;
  expect(done).toBe(true);
});

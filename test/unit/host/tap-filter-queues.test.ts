/** What the kernel does with the program of a tap: queues that are parked, return or are opened late; replacing; its limit of memory. */
import { constants } from 'node:os';
import { IFF_NO_PI, IFF_TAP } from '../../../lib/constants/if-tun';
import { Netns } from '../../../lib/host/netns';
import { Tap } from '../../../lib/host/tap';
import { ACCEPT_ALL, DROP_ALL, receiveFilterProgram } from '../../../lib/net/receive-filter-program';
import { bpfFault } from '../../helpers/bpf-interpreter';
import {
  DEVICE_MAC,
  distinctMacs,
  frameTo,
  receiveFilter,
  vlanTable,
  WORST_VLANS,
} from '../../helpers/receive-filters';
import { codeOf, errorOf, until } from '../../helpers/vhost-wait';

const FLAGS = IFF_TAP | IFF_NO_PI;
const STRIDE = 64;
const FLOWS = 64;

let netns: Netns;
let station: Tap;
beforeAll(async () => {
  netns = await Netns.create();
  station = await Tap.open({ netns: netns.path, name: 'station', flags: FLAGS });
  await netns.addBridge('bridge', ['station']);
});
afterAll(async () => {
  await station.close();
  await netns.delete();
});

const arena = new Uint8Array(512 * STRIDE);
const lengths = new Int32Array(512);

/** One UDP frame of each of FLOWS flows, which the kernel spreads over the queues. A bridge may check the checksum of IPv4 headers. */
function sendFlows(): void {
  const frames = new Uint8Array(FLOWS * STRIDE);
  for (let flow = 0; flow < FLOWS; flow++) {
    const frame = frameTo(
      DEVICE_MAC,
      0x08,
      0x00,
      0x45,
      0,
      0,
      46,
      0,
      0,
      0,
      0,
      64,
      17,
      0x66,
      0xbd,
      10,
      0,
      0,
      1,
      10,
      0,
      0,
      2,
    );
    frame.set([0x10, flow, 0x20, 0, 0, 26], 34);
    frames.set(frame, flow * STRIDE);
  }
  expect(station.writeFrames(frames, STRIDE, FLOWS, new Int32Array(FLOWS).fill(60))).toBe(FLOWS);
}

/** Frames that each queue gets of one of every flow; each of the others must be counted as dropped. */
async function spread(queues: readonly Tap[]): Promise<number[]> {
  const before = (await queues[0]!.stats()).tx.dropped;
  sendFlows();
  const counts = queues.map(() => 0);
  await until('every frame has arrived or is counted', async () => {
    for (const [index, queue] of queues.entries()) counts[index]! += queue.readFrames(arena, STRIDE, 512, lengths);
    const dropped = (await queues[0]!.stats()).tx.dropped - before;
    return counts.reduce((a, b) => a + b) + dropped === FLOWS;
  });
  return counts;
}

const sum = (counts: readonly number[]): number => counts.reduce((a, b) => a + b);
const NONE = [0, 0, 0];
/** No program is empty: EINVAL, for the first queue already. */
const REFUSED = new Uint8Array(0);

describe('of a multiqueue tap', () => {
  let queues: Tap[];
  beforeEach(async () => {
    queues = await Tap.openQueues(3, { netns: netns.path, name: 'many', flags: FLAGS });
    await netns.attach('bridge', 'many');
    const counts = await spread(queues);
    expect([sum(counts), Math.min(...counts) > 0]).toEqual([FLOWS, true]);
  });
  afterEach(async () => {
    for (const queue of queues) await queue.close();
  });

  test('every attached queue gets the program', async () => {
    await queues[0]!.attachFilter(DROP_ALL);
    expect(await spread(queues)).toEqual(NONE);
    await queues[0]!.attachFilter(ACCEPT_ALL);
    expect(sum(await spread(queues))).toBe(FLOWS);
  });

  test('no parked queue returns while a program is attached, though the kernel answers that it did', async () => {
    await queues[1]!.setQueue('detach');
    await queues[0]!.attachFilter(ACCEPT_ALL);
    for (let times = 0; times < 2; times++) {
      await queues[1]!.setQueue('attach');
      const counts = await spread(queues);
      expect([sum(counts), counts[1]]).toEqual([FLOWS, 0]);
    }
    await queues[0]!.detachFilter();
    await queues[1]!.setQueue('attach');
    const counts = await spread(queues);
    expect([sum(counts), counts[1]! > 0]).toEqual([FLOWS, true]);
    expect(await codeOf(queues[1]!.setQueue('attach'))).toBe('EINVAL');
  });

  test('detaching does not reach a parked queue, which returns with its stale program until one is attached', async () => {
    await queues[0]!.attachFilter(DROP_ALL);
    await queues[1]!.setQueue('detach');
    await queues[0]!.detachFilter();
    await queues[1]!.setQueue('attach');
    const counts = await spread(queues);
    expect(counts[1]).toBe(0);
    expect(sum(counts)).toBeGreaterThan(0);
    expect(sum(counts)).toBeLessThan(FLOWS);
    await queues[0]!.attachFilter(ACCEPT_ALL);
    expect(sum(await spread(queues))).toBe(FLOWS);
  });

  test('after a program that is refused parked queues return, and the others have kept theirs', async () => {
    await queues[1]!.setQueue('detach');
    await queues[0]!.attachFilter(DROP_ALL);
    expect(await codeOf(queues[0]!.attachFilter(REFUSED))).toBe('EINVAL');
    expect(await spread(queues)).toEqual(NONE);
    await queues[1]!.setQueue('attach');
    const counts = await spread(queues);
    expect([counts[0], counts[1]! > 0, counts[2]]).toEqual([0, true, 0]);
    await queues[0]!.attachFilter(DROP_ALL);
    expect(await spread(queues)).toEqual(NONE);
  });

  test('a queue returns with the program of the others when it was given it while parked', async () => {
    await queues[0]!.attachFilter(DROP_ALL);
    await queues[1]!.setQueue('detach');
    await queues[0]!.attachFilter(ACCEPT_ALL);
    // Stays parked, and has the program from here on.
    await queues[1]!.setQueue('attach');
    expect(await codeOf(queues[0]!.attachFilter(REFUSED))).toBe('EINVAL');
    await queues[1]!.setQueue('attach');
    const counts = await spread(queues);
    expect([sum(counts), counts[1]! > 0]).toEqual([FLOWS, true]);
    await queues[0]!.attachFilter(DROP_ALL);
    expect(await spread(queues)).toEqual(NONE);
  });

  test('a queue that is opened later with IFF_NO_PI has no program until it is attached again', async () => {
    await queues[0]!.attachFilter(DROP_ALL);
    queues.push(await Tap.open({ netns: netns.path, name: 'many', flags: FLAGS, multiQueue: true }));
    const counts = await spread(queues);
    expect(counts.slice(0, 3)).toEqual(NONE);
    expect(counts[3]).toBeGreaterThan(0);
    await queues[0]!.attachFilter(DROP_ALL);
    expect(await spread(queues)).toEqual([...NONE, 0]);
  });
});

test('replacing the program loses no frame that both let through', async () => {
  const TOTAL = 20_000;
  const BATCH = 50;
  const REPLACEMENTS = 200;
  await using guest = await Tap.open({ netns: netns.path, name: 'guest', flags: FLAGS });
  await netns.attach('bridge', 'guest');
  const both = [
    receiveFilterProgram(receiveFilter({ multicast: distinctMacs(40, 0x33) })),
    receiveFilterProgram(receiveFilter({ vlans: vlanTable([1, 2, 3]), unicast: distinctMacs(20, 0x52) })),
  ];
  await guest.attachFilter(both[0]!);
  const out = new Uint8Array(BATCH * STRIDE);
  for (let i = 0; i < BATCH; i++) out.set(frameTo(DEVICE_MAC), i * STRIDE);
  const view = new DataView(out.buffer);
  const sizes = new Int32Array(BATCH).fill(60);
  const got: number[] = [];
  const read = (): void => {
    const count = guest.readFrames(arena, STRIDE, 512, lengths);
    for (let i = 0; i < count; i++) got.push(new DataView(arena.buffer, i * STRIDE).getUint32(20));
  };
  let sent = 0;
  let sending = true;
  /** Frames sent when each replacement began and when it ended. */
  const during: [number, number][] = [];
  const replace = async (): Promise<void> => {
    while (sending) {
      const from = sent;
      await guest.attachFilter(both[(during.length + 1) % 2]!);
      during.push([from, sent]);
    }
  };
  const replacing = replace();
  // Replacing runs on another thread, also while this one is in a write.
  while (sent < TOTAL || during.length < REPLACEMENTS) {
    for (let i = 0; i < BATCH; i++) view.setUint32(i * STRIDE + 20, sent + i);
    expect(station.writeFrames(out, STRIDE, BATCH, sizes)).toBe(BATCH);
    sent += BATCH;
    read();
    await new Promise(setImmediate);
  }
  sending = false;
  await replacing;
  await until('the last frame', () => {
    read();
    return got.length >= sent;
  });
  expect(got).toEqual(Array.from({ length: sent }, (_, index) => index));
  expect((await guest.stats()).tx.dropped).toBe(0);
  expect(during.filter(([from, to]) => to > from).length).toBeGreaterThan(REPLACEMENTS / 2);
});

describe('memory that programs may take', () => {
  /** Of the namespace; false where the kernel has one for all, which has 20,480 by itself. */
  const setLimit = async (bytes: number): Promise<boolean> => {
    const script = `cd /proc/sys/net/core; if [ -e optmem_max ]; then echo ${bytes} > optmem_max; echo set; fi`;
    return (await netns.exec('sh', ['-c', script])).trim() === 'set';
  };
  const largest = receiveFilterProgram(
    receiveFilter({ vlans: WORST_VLANS, unicast: distinctMacs(64, 0xf2), multicast: distinctMacs(64, 0xf3) }),
  );

  test('of kernels before 6.8 is enough for the largest to replace itself, and with less is refused', async () => {
    expect(bpfFault(largest)).toBeNull();
    await setLimit(20_480);
    await using tap = await Tap.open({ netns: netns.path, flags: FLAGS });
    await tap.attachFilter(largest);
    await tap.attachFilter(largest);
    if (!(await setLimit(15_000))) return;
    const error = await errorOf(tap.attachFilter(largest));
    expect([error.code, error.errno]).toEqual(['ENOMEM', -constants.errno.ENOMEM]);
  });
});

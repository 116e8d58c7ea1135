/** A guest with several queue pairs, each against a device of its own. */
import {
  VIRTIO_F_RING_PACKED,
  VIRTIO_F_VERSION_1,
  VIRTIO_NET_F_MRG_RXBUF,
  VIRTIO_RING_F_EVENT_IDX,
  VIRTIO_RING_F_INDIRECT_DESC,
} from '../../../lib/constants/virtio-net';
import { Field, Word } from '../../../lib/guest/boot-block';
import { Guest, type GuestOptions } from '../../../lib/guest/guest';
import { parseMac } from '../../../lib/net/ethernet';
import { bits } from '../../../lib/net/features';
import { fromStation } from '../../../lib/net/test-flows';
import { checkFrame, encodeFrame, FRAME_OK, frameArea, frameFlow } from '../../../lib/net/test-frame';
import { FrameLedger } from '../../../lib/observe/frame-ledger';
import { LedgerSet, sumReports } from '../../../lib/observe/ledger-set';
import { ByteLog, TestMemory } from '../../helpers/ring-memory';
import { WireDevice } from '../../helpers/wire';

const BASE = 5 * 2 ** 30;
const SIZE = 2 ** 20;
const PAIRS = 4;
const FLOW = 11;
const BACK = 51;
const MODERN = bits(VIRTIO_F_VERSION_1, VIRTIO_NET_F_MRG_RXBUF, VIRTIO_RING_F_EVENT_IDX, VIRTIO_RING_F_INDIRECT_DESC);
const MAC = '02:00:00:00:00:02';
const PEER = '02:00:00:00:00:01';
const NOTHING_WRONG = { lost: 0, duplicated: 0, reordered: 0, corrupted: 0 };

const traffic: GuestOptions = {
  gpa: BASE,
  program: 'traffic',
  features: MODERN,
  mac: MAC,
  peerMac: PEER,
  rate: 100_000,
  flow: FLOW,
  receiveFlow: BACK,
  pairs: PAIRS,
  rxSize: 32,
  txSize: 32,
  ledgerCapacity: 8192,
};

const numbers = Array.from({ length: PAIRS }, (_, index) => index);

function memoryOf(): TestMemory {
  return new TestMemory([{ gpa: BASE, size: SIZE }]);
}

function wires(memory: TestMemory, queues: Guest['queues'], features: bigint): WireDevice[] {
  return numbers.map((pair) => new WireDevice(memory, queues.slice(2 * pair, 2 * pair + 2), features));
}

function frameBack(index: number, sequence: number, length = 128): Uint8Array {
  const frame = new Uint8Array(length);
  const addresses = Uint8Array.from([...parseMac(MAC), ...parseMac(PEER)]);
  encodeFrame(frameArea(frame), 0, length, BACK + index, sequence, 7, addresses, 0, 6, fromStation('udp', index));
  return frame;
}

/** The network: accounts for the guest's flows. */
class Network {
  readonly ledgers = numbers.map((index) => FrameLedger.create({ flow: FLOW + index, capacity: 8192 }));
  readonly #set = new LedgerSet(this.ledgers);

  account(frame: Uint8Array, now: number): void {
    this.#set.account(frameArea(frame), 0, frame.length, now);
  }

  reports(guest: Guest) {
    return this.ledgers.map((ledger, index) => ledger.report(guest.sentOf(index)));
  }
}

const setups: [string, Partial<GuestOptions>][] = [
  ['modern', {}],
  ['without EVENT_IDX', { features: bits(VIRTIO_F_VERSION_1, VIRTIO_NET_F_MRG_RXBUF) }],
  ['without MRG_RXBUF', { features: bits(VIRTIO_F_VERSION_1) }],
  ['legacy framing', { features: 0n }],
  ['legacy framing, indirect', { features: bits(VIRTIO_RING_F_INDIRECT_DESC) }],
  ['merged buffers of 64 bytes', { rxBufferSize: 64, rxSize: 64 }],
  ['tiny queues', { rxSize: 4, txSize: 2, separateHeader: true, rate: 40_000 }],
  ['buffers elsewhere', { buffersGpa: BASE + 2 ** 18 }],
  ['raw frames', { shape: 'raw' }],
];

const PACKED = bits(VIRTIO_F_RING_PACKED);

describe.each([
  ...setups,
  ['packed rings', { features: MODERN | PACKED }],
  ['packed rings without EVENT_IDX and INDIRECT_DESC', { features: bits(VIRTIO_F_VERSION_1) | PACKED }],
  ['packed rings with headers apart', { features: MODERN | PACKED, separateHeader: true }],
] as typeof setups)('four pairs, %s', (_name, changes) => {
  const options = { ...traffic, ...changes };

  test('each sends its flow, and what comes is accounted to its flow on whichever pair', () => {
    const memory = memoryOf();
    const log = new ByteLog(memory);
    const guest = Guest.boot(memory, options, { log });
    expect(log.takeMissed()).toEqual([]);
    const devices = wires(memory, guest.queues, options.features);
    const network = new Network();
    const delivered = numbers.map(() => 0);
    for (let now = 1000; now <= 21_000; now += 50) {
      // Looking at every byte takes its time: at every seventh turn, which meets each of the others' rhythms.
      const looks = now % 350 === 0;
      if (looks) log.forget();
      while (guest.poll(now) > 0);
      if (looks) expect(log.takeMissed()).toEqual([]);
      for (const [pair, device] of devices.entries()) {
        for (const frame of device.take()) {
          expect(frameFlow(frameArea(frame), 0)).toBe(FLOW + pair);
          if (options.shape !== 'raw')
            expect([frame[34]! * 256 + frame[35]!, frame[37]]).toEqual([10_000 + pair, 0x20 + pair]);
          network.account(frame, now);
        }
        const index = (pair + Math.floor(now / 1000)) % PAIRS;
        if (device.deliver(frameBack(index, delivered[index]!))) delivered[index]! += 1;
      }
    }
    while (guest.poll(21_000) > 0);
    const each = options.rate! / 50 / PAIRS;
    expect(guest.sent).toBe(each * PAIRS);
    expect(numbers.map((index) => guest.sentOf(index))).toEqual(numbers.map(() => each));
    for (const report of network.reports(guest))
      expect(report).toEqual({ sent: each, received: each, ...NOTHING_WRONG });
    for (const [index, ledger] of guest.ledgers.entries()) {
      expect(ledger.report(delivered[index]!)).toMatchObject({ received: 401, ...NOTHING_WRONG });
      expect(ledger.foreign).toBe(0);
    }
    expect(guest.counters).toMatchObject({ sent: each * PAIRS, received: 401 * PAIRS, malformed: 0 });
    expect(guest.countersOf(3)).toMatchObject({ sent: each, received: 401 });
  });

  test('goes on from guest memory alone, also while flows move', () => {
    let memory = memoryOf();
    let log = new ByteLog(memory);
    let guest = Guest.boot(memory, options, { log });
    let devices = wires(memory, guest.queues, options.features);
    const network = new Network();
    const delivered = numbers.map(() => 0);
    let resumedWhileMoving = 0;
    for (let now = 1000; now <= 31_000; now += 50) {
      const looks = now % 300 === 0;
      if (looks) log.forget();
      guest.poll(now);
      if (looks) {
        guest.activePairs = [1, 4, 3, 2, 4][(now / 300) % 5]!;
        expect(log.takeMissed()).toEqual([]);
      }
      // The last pair first: what a flow left behind would come after what it sends where it went.
      for (const pair of numbers.toReversed()) for (const frame of devices[pair]!.take(2)) network.account(frame, now);
      const index = (now / 50) % PAIRS;
      if (devices[index]!.deliver(frameBack(index, delivered[index]!))) delivered[index]! += 1;
      if (now % 400 !== 0) continue;
      if (!guest.settled) resumedWhileMoving++;
      const queues = devices.flatMap(({ rx, tx }) => [rx.state(), tx.state()]);
      memory = memory.clone();
      log = new ByteLog(memory);
      const resumed = Guest.resume(memory, BASE, { log });
      expect([resumed.pairs, resumed.activePairs, resumed.settled]).toEqual([PAIRS, guest.activePairs, guest.settled]);
      expect(resumed.queues.map(({ nextAvail }) => nextAvail)).toEqual(queues.map(({ nextAvail }) => nextAvail));
      guest = resumed;
      devices = wires(memory, queues, options.features);
    }
    for (let drain = 0; drain < 2000; drain++) {
      guest.poll(31_000);
      for (const pair of numbers.toReversed())
        for (const frame of devices[pair]!.take()) network.account(frame, 31_000);
    }
    expect(resumedWhileMoving).toBeGreaterThan(0);
    expect(guest.settled).toBe(true);
    for (const report of network.reports(guest)) {
      expect(report.sent).toBeGreaterThan(100);
      expect(report).toMatchObject(NOTHING_WRONG);
    }
    for (const [index, ledger] of guest.ledgers.entries()) {
      expect(ledger.report(delivered[index]!)).toMatchObject({ received: delivered[index], ...NOTHING_WRONG });
    }
  });

  test('sends everything back, on a pair that may send', () => {
    const memory = memoryOf();
    const log = new ByteLog(memory);
    const guest = Guest.boot(memory, { ...options, program: 'echo' }, { log });
    const devices = wires(memory, guest.queues, options.features);
    const back = numbers.map((index) => FrameLedger.create({ flow: BACK + index }));
    const delivered = numbers.map(() => 0);
    for (let round = 0; round < 200; round++) {
      const active = 1 + (Math.floor(round / 25) % PAIRS);
      if (round % 25 === 0) guest.activePairs = active;
      for (const [index, device] of devices.entries()) {
        if (device.deliver(frameBack(index, delivered[index]!))) delivered[index]! += 1;
      }
      if (round % 5 === 0) log.forget();
      while (guest.poll(round) > 0);
      if (round % 5 === 0) expect(log.takeMissed()).toEqual([]);
      for (const pair of numbers.toReversed()) {
        const quiet = guest.settled && pair >= active;
        const frames = devices[pair]!.take();
        if (quiet) expect(frames).toHaveLength(0);
        for (const frame of frames) {
          const index = frameFlow(frameArea(frame), 0) - BACK;
          back[index]!.account(frameArea(frame), 0, frame.length, round);
          if (options.shape === 'raw') continue;
          const { udp } = fromStation('udp', index);
          expect(new DataView(frame.buffer, frame.byteOffset).getUint16(36)).toBe(udp!.sourcePort);
        }
      }
    }
    for (let drain = 0; drain < 100; drain++) {
      guest.poll(1000);
      for (const device of devices) {
        for (const frame of device.take()) {
          back[frameFlow(frameArea(frame), 0) - BACK]!.account(frameArea(frame), 0, frame.length, 1000);
        }
      }
    }
    for (const [index, ledger] of back.entries()) {
      expect(delivered[index]).toBeGreaterThan(150);
      expect(ledger.report(delivered[index]!)).toMatchObject({ received: delivered[index], ...NOTHING_WRONG });
    }
    expect(guest.counters).toMatchObject({ notEchoed: 0, sent: delivered.reduce((sum, count) => sum + count) });
  });

  test('floods on active pairs only', () => {
    const memory = memoryOf();
    const log = new ByteLog(memory);
    const guest = Guest.boot(memory, { ...options, program: 'flood-transmit', activePairs: 1 }, { log });
    const devices = wires(memory, guest.queues, options.features);
    const taken = numbers.map(() => 0);
    const run = (polls: number): void => {
      for (let poll = 0; poll < polls; poll++) {
        for (const [pair, device] of devices.entries()) taken[pair]! += device.take(7).length;
        log.forget();
        guest.poll(poll * 100);
        expect(log.takeMissed()).toEqual([]);
      }
    };
    run(50);
    expect(taken[0]).toBeGreaterThan(20);
    expect(taken.slice(1)).toEqual([0, 0, 0]);
    guest.activePairs = PAIRS;
    run(50);
    expect(Math.min(...taken)).toBeGreaterThan(20);
    guest.activePairs = 2;
    expect(guest.settled).toBe(false);
    run(50);
    expect(guest.settled).toBe(true);
    const before = [...taken];
    run(50);
    expect(taken.slice(2)).toEqual(before.slice(2));
    expect(taken[1]).toBeGreaterThan(before[1]!);
    expect(guest.sentOf(3)).toBe(taken[3]);
  });
});

describe('a change of the active pairs', () => {
  let memory: TestMemory;
  let guest: Guest;
  let devices: WireDevice[];
  let network: Network;

  beforeEach(() => {
    memory = memoryOf();
    guest = Guest.boot(memory, traffic);
    devices = wires(memory, guest.queues, MODERN);
    network = new Network();
    guest.poll(0);
  });

  /** Pairs in falling order, so that the frames of a flow come out of order when it moves to a higher one too early. */
  function take(now: number, most = Number.POSITIVE_INFINITY): number[] {
    const taken = numbers.map(() => 0);
    for (const pair of numbers.toReversed()) {
      for (const frame of devices[pair]!.take(most)) {
        taken[pair]! += 1;
        network.account(frame, now);
      }
    }
    return taken;
  }

  test('moves flows when nothing of them is on its way, and stops nobody else', () => {
    guest.poll(400);
    guest.activePairs = 2;
    expect(guest.settled).toBe(false);
    guest.poll(800);
    // Pairs 2 and 3 have what they had; 0 and 1 go on.
    expect(take(800)).toEqual([20, 20, 10, 10]);
    guest.poll(1200);
    expect(guest.settled).toBe(true);
    // All four flows again, on two pairs; the two that moved have waited for a poll.
    guest.poll(1200);
    expect(take(1200)).toEqual([30, 30, 0, 0]);
    guest.activePairs = 4;
    guest.poll(1600);
    guest.poll(1600);
    expect(take(1600)).toEqual([10, 10, 10, 10]);
    for (const report of network.reports(guest)) expect(report).toMatchObject({ received: 40, ...NOTHING_WRONG });
  });

  test('a pair that a flow waits to leave is quiet until its queue is empty; then everybody goes on', () => {
    guest.activePairs = 1;
    guest.poll(400);
    expect(take(400)).toEqual([40 - 8, 0, 0, 0]);
    guest.poll(400);
    guest.activePairs = 3;
    guest.poll(800);
    guest.activePairs = 2;
    guest.poll(900);
    expect(guest.settled).toBe(false);
    expect(guest.dueIn(900)).toBe(Number.POSITIVE_INFINITY);
    const calls = devices[0]!.txCalls;
    expect(guest.armInterrupts()).toBe(false);
    take(900, 1);
    expect(devices[0]!.txCalls).toBe(calls + 1);
    for (let now = 1000; now < 3000; now += 100) {
      while (guest.poll(now) > 0) take(now, 3);
    }
    while (guest.poll(3000) > 0) take(3000);
    expect(guest.settled).toBe(true);
    expect(guest.sent).toBe(300);
    for (const report of network.reports(guest)) expect(report).toMatchObject({ received: 75, ...NOTHING_WRONG });
  });

  test('a flow that is moved without waiting comes out of order, and the ledger says so', () => {
    guest.activePairs = 1;
    guest.poll(100);
    const stride = memory.view(BASE, 4096).getFloat64(96 + 8 * Field.STRIDE, true);
    memory.view(BASE + stride, 4096).setFloat64(96 + 8 * Field.LANE, 1, true);
    guest.poll(200);
    take(200);
    expect(network.reports(guest)[1]).toMatchObject({ received: 5, lost: 0, reordered: 2 });
    expect(network.reports(guest)[2]).toMatchObject(NOTHING_WRONG);
  });

  test.each([0, 5, 1.5, Number.NaN])('%d are refused', (count) => {
    expect(() => {
      guest.activePairs = count;
    }).toThrow('1 to 4');
  });
});

test('kicks name the queue, once a queue and poll', () => {
  const memory = memoryOf();
  const kicks: number[] = [];
  const guest = Guest.boot(memory, traffic, { onKick: (queue) => kicks.push(queue) });
  expect(kicks).toEqual([0, 2, 4, 6]);
  kicks.length = 0;
  for (const device of wires(memory, guest.queues, MODERN)) device.tx.enableKicks();
  guest.poll(0);
  guest.poll(400);
  expect(kicks).toEqual([1, 3, 5, 7]);
});

test('calls are asked for on every pair', () => {
  const memory = memoryOf();
  const guest = Guest.boot(memory, { ...traffic, program: 'sink' });
  const devices = wires(memory, guest.queues, MODERN);
  devices[2]!.deliver(frameBack(1, 0));
  expect(guest.armInterrupts()).toBe(true);
  expect(guest.poll(0)).toBe(1);
  expect(guest.armInterrupts()).toBe(false);
  const calls = devices.map(({ rxCalls }) => rxCalls);
  for (const [pair, device] of devices.entries()) device.deliver(frameBack(pair, 1));
  expect(devices.map(({ rxCalls }, pair) => rxCalls - calls[pair]!)).toEqual([1, 1, 1, 1]);
  guest.poll(0);
  expect(guest.ledgers.map(({ received }) => received)).toEqual([1, 2, 1, 1]);
});

test('a frame of no flow is foreign on the pair it came on; a corrupted one counts for the flow it names', () => {
  const memory = memoryOf();
  const guest = Guest.boot(memory, { ...traffic, program: 'sink' });
  const devices = wires(memory, guest.queues, MODERN);
  devices[2]!.deliver(frameBack(PAIRS, 0));
  const corrupted = frameBack(1, 0);
  corrupted[100]! ^= 1;
  devices[3]!.deliver(corrupted);
  guest.poll(0);
  expect(guest.ledgers.map(({ foreign }) => foreign)).toEqual([0, 0, 1, 0]);
  expect(guest.ledgers.map(({ corrupted }) => corrupted)).toEqual([0, 1, 0, 0]);
  expect(sumReports(guest.ledgers.map((ledger) => ledger.report(1)))).toEqual({
    sent: 4,
    received: 0,
    lost: 4,
    duplicated: 0,
    reordered: 0,
    corrupted: 1,
  });
});

test('a limit is for each flow; a rate for all of them', () => {
  const memory = memoryOf();
  const guest = Guest.boot(memory, { ...traffic, frames: 3 });
  for (let now = 0; now < 1000; now += 10) guest.poll(now);
  expect(numbers.map((index) => guest.sentOf(index))).toEqual([3, 3, 3, 3]);
  expect(guest.dueIn(2000)).toBe(Number.POSITIVE_INFINITY);
  const other = Guest.boot(memory, traffic);
  other.setRate(40_000);
  other.poll(0);
  other.poll(1000);
  expect(other.sent).toBe(40);
  other.setRate(0);
  other.poll(2000);
  other.poll(3000);
  expect(other.sent).toBe(40);
});

test('eight pairs with frames of the least size, sound on the wire', () => {
  const memory = new TestMemory([{ gpa: BASE, size: 2 ** 22 }]);
  const guest = Guest.boot(memory, { ...traffic, pairs: 8, frameSize: 66 });
  expect(guest.queues).toHaveLength(16);
  guest.poll(0);
  guest.poll(800);
  for (let pair = 0; pair < 8; pair++) {
    const frames = new WireDevice(memory, guest.queues.slice(2 * pair, 2 * pair + 2), MODERN).take();
    expect(frames).toHaveLength(10);
    for (const frame of frames) expect(checkFrame(frameArea(frame), 0, 66)).toBe(FRAME_OK);
  }
});

test('every byte of the guest has a name, and none has two', () => {
  const guest = Guest.boot(memoryOf(), traffic);
  const ranges = guest.ranges.filter(({ length }) => length > 0).sort((a, b) => a.gpa - b.gpa);
  expect(ranges.map(({ name }) => name)).toEqual(
    expect.arrayContaining(['pair 0 boot block', 'pair 3 receive used ring', 'pair 2 ledger of flow 53']),
  );
  expect(new Set(ranges.map(({ name }) => name)).size).toBe(ranges.length);
  for (let at = 1; at < ranges.length; at++) {
    expect(ranges[at]!.gpa).toBeGreaterThanOrEqual(ranges[at - 1]!.gpa + ranges[at - 1]!.length);
  }
});

test.each<[string, Partial<GuestOptions>]>([
  ['queue pairs 0', { pairs: 0 }],
  ['queue pairs 33', { pairs: 33 }],
  ['queue pairs 1.5', { pairs: 1.5 }],
  ['active pairs 5', { activePairs: 5 }],
  ['active pairs 0', { activePairs: 0 }],
  ['frame of 65 bytes', { frameSize: 65 }],
  ['flows from flow 65533', { flow: 65533 }],
  ['flows from receive flow 65533', { receiveFlow: 65533 }],
  ['buffers at', { buffersGpa: BASE + 4096 }],
])('refuses wrong %s', (what, changes) => {
  const memory = memoryOf();
  expect(() => Guest.boot(memory, { ...traffic, ...changes })).toThrow(what);
  expect(memory.regions[0]!.u8.every((byte) => byte === 0)).toBe(true);
});

test.each<[string, number, number, number]>([
  ['no pairs', 0, 4 * Word.PAIRS, 0],
  ['33 pairs', 0, 4 * Word.PAIRS, 33],
  ['no active pairs', 0, 4 * Word.ACTIVE_PAIRS, 0],
  ['more active pairs than pairs', 0, 4 * Word.ACTIVE_PAIRS, 5],
  ['no block of the second pair', 1, 0, 0],
  ['a lane that is not there', 1, 96 + 8 * Field.LANE, 4],
  ['a lane between two', 1, 96 + 8 * Field.LANE, 0.5],
  ['a lane that is no number', 1, 96 + 8 * Field.LANE, Number.NaN],
  ['buffers elsewhere', 2, 96 + 8 * Field.BUFFERS, BASE],
])('memory with %s holds no guest', (_name, pair, at, value) => {
  const memory = memoryOf();
  Guest.boot(memory, traffic);
  const stride = memory.view(BASE, 4096).getFloat64(96 + 8 * Field.STRIDE, true);
  const block = memory.view(BASE + pair * stride, 4096);
  if (at < 96) block.setUint32(at === 0 ? 0 : at, value, true);
  else block.setFloat64(at, value, true);
  expect(() => Guest.resume(memory, BASE)).toThrow(expect.objectContaining({ code: 'VHOST_ERR_STATE' }) as Error);
});

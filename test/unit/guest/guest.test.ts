import {
  VIRTIO_F_VERSION_1,
  VIRTIO_NET_F_MRG_RXBUF,
  VIRTIO_RING_F_EVENT_IDX,
  VIRTIO_RING_F_INDIRECT_DESC,
} from '../../../lib/constants/virtio-net';
import { Guest, type GuestOptions } from '../../../lib/guest/guest';
import { etherType, formatMac, parseMac, swapAddresses } from '../../../lib/net/ethernet';
import { bits } from '../../../lib/net/features';
import {
  checkFrame,
  encodeFrame,
  FRAME_OK,
  frameArea,
  frameFlow,
  frameSequence,
  frameTime,
} from '../../../lib/net/test-frame';
import { FrameLedger } from '../../../lib/observe/frame-ledger';
import { ByteLog, TestMemory } from '../../helpers/ring-memory';
import { WireDevice } from '../../helpers/wire';

const BASE = 5 * 2 ** 30;
const SIZE = 2 ** 19;
const MODERN = bits(VIRTIO_F_VERSION_1, VIRTIO_NET_F_MRG_RXBUF, VIRTIO_RING_F_EVENT_IDX, VIRTIO_RING_F_INDIRECT_DESC);
const LEGACY = 0n;
const MAC = '02:00:00:00:00:02';
const PEER = '02:00:00:00:00:01';

const traffic: GuestOptions = {
  gpa: BASE,
  program: 'traffic',
  features: MODERN,
  mac: MAC,
  peerMac: PEER,
  rate: 100_000,
  rxSize: 32,
  txSize: 32,
};

function testFrame(flow: number, sequence: number, length = 128, to = MAC): Uint8Array {
  const frame = new Uint8Array(length);
  const addresses = Uint8Array.from([...parseMac(to), ...parseMac(PEER)]);
  encodeFrame(frameArea(frame), 0, length, flow, sequence, 7, addresses, 0, 6);
  return frame;
}

const setups: [string, Partial<GuestOptions>][] = [
  ['modern', {}],
  ['without EVENT_IDX', { features: bits(VIRTIO_F_VERSION_1, VIRTIO_NET_F_MRG_RXBUF) }],
  ['without MRG_RXBUF', { features: bits(VIRTIO_F_VERSION_1) }],
  ['legacy framing', { features: LEGACY }],
  ['legacy framing, indirect', { features: bits(VIRTIO_RING_F_INDIRECT_DESC) }],
  ['merged buffers of 64 bytes', { rxBufferSize: 64, rxSize: 64 }],
  ['tiny queues', { rxSize: 4, txSize: 2, separateHeader: true, rate: 20_000 }],
  ['buffers elsewhere', { buffersGpa: BASE + 2 ** 18 }],
];

describe.each(setups)('a guest with %s', (_, changes) => {
  const options = { ...traffic, ...changes };

  test('sends numbered frames at its rate and accounts for what comes', () => {
    const memory = new TestMemory([{ gpa: BASE, size: SIZE }]);
    const log = new ByteLog(memory);
    const guest = Guest.boot(memory, options, { log });
    expect(log.takeMissed()).toEqual([]);
    const device = new WireDevice(memory, guest.queues, options.features);
    const station = FrameLedger.create({ flow: 1 });
    let delivered = 0;
    for (let now = 1000; now <= 21_000; now += 50) {
      log.forget();
      while (guest.poll(now) > 0);
      expect(log.takeMissed()).toEqual([]);
      for (const frame of device.take()) station.account(frameArea(frame), 0, frame.length, now);
      if (device.deliver(testFrame(2, delivered))) delivered++;
      if (device.deliver(testFrame(3, delivered))) continue;
    }
    while (guest.poll(21_000) > 0);
    const sent = options.rate! / 50;
    expect(guest.sent).toBe(sent);
    expect(station.report(guest.sent)).toEqual({
      sent,
      received: sent,
      lost: 0,
      duplicated: 0,
      reordered: 0,
      corrupted: 0,
    });
    expect([station.first, station.highest]).toEqual([0, sent - 1]);
    expect(delivered).toBe(401);
    expect(guest.ledger.report(delivered)).toMatchObject({
      received: delivered,
      lost: 0,
      duplicated: 0,
      reordered: 0,
      corrupted: 0,
    });
    expect(guest.ledger.foreign).toBeGreaterThan(0);
    expect(guest.counters.malformed).toBe(0);
  });

  test('goes on from guest memory alone', () => {
    let memory = new TestMemory([{ gpa: BASE, size: SIZE }]);
    let guest = Guest.boot(memory, options);
    let device = new WireDevice(memory, guest.queues, options.features);
    const station = FrameLedger.create({ flow: 1 });
    let delivered = 0;
    for (let now = 1000; now <= 21_000; now += 50) {
      guest.poll(now);
      for (const frame of device.take(3)) station.account(frameArea(frame), 0, frame.length, now);
      if (device.deliver(testFrame(2, delivered))) delivered++;
      if (now % 400 !== 0) continue;
      const queues = [device.rx.state(), device.tx.state()];
      memory = memory.clone();
      guest = Guest.resume(memory, BASE);
      expect(guest.queues.map(({ nextAvail }) => nextAvail)).toEqual(queues.map(({ nextAvail }) => nextAvail));
      device = new WireDevice(memory, queues, options.features);
    }
    for (let drain = 0; drain < 2000; drain++) {
      guest.poll(21_000);
      for (const frame of device.take()) station.account(frameArea(frame), 0, frame.length, 21_000);
    }
    expect(guest.mac).toBe(MAC);
    expect(guest.features).toBe(options.features);
    expect(guest.sent).toBeGreaterThanOrEqual(options.rate! / 100);
    expect(station.report(guest.sent)).toMatchObject({ lost: 0, duplicated: 0, reordered: 0, corrupted: 0 });
    expect(delivered).toBeGreaterThan(300);
    expect(guest.ledger.report(delivered)).toMatchObject({ lost: 0, duplicated: 0, reordered: 0, corrupted: 0 });
  });

  test('sends everything back', () => {
    const memory = new TestMemory([{ gpa: BASE, size: SIZE }]);
    const log = new ByteLog(memory);
    const guest = Guest.boot(memory, { ...options, program: 'echo' }, { log });
    const device = new WireDevice(memory, guest.queues, options.features);
    let came = 0;
    let delivered = 0;
    const foreign: Uint8Array[] = [];
    for (let round = 0; round < 150; round++) {
      if (device.deliver(testFrame(2, delivered))) delivered++;
      // Of any length and content, but neither from nor to a group.
      const other = Uint8Array.from({ length: 14 + round }, (_, at) => (at === 0 || at === 6 ? 2 : at * round));
      if (device.deliver(other)) foreign.push(other);
      log.forget();
      guest.poll(round);
      expect(log.takeMissed()).toEqual([]);
      for (const frame of device.take()) {
        if (etherType(frame, 0) !== 0x88b5) {
          const expected = foreign.shift()!;
          swapAddresses(expected, 0);
          expect(Buffer.compare(frame, expected)).toBe(0);
          continue;
        }
        const area = frameArea(frame);
        expect(checkFrame(area, 0, frame.length)).toBe(FRAME_OK);
        expect(frameSequence(area, 0)).toBe(came++);
        expect(formatMac(frame, 0)).toBe(PEER);
        expect(formatMac(frame, 6)).toBe(MAC);
      }
    }
    expect(delivered).toBe(150);
    expect(came).toBe(150);
  });

  test('floods', () => {
    const memory = new TestMemory([{ gpa: BASE, size: SIZE }]);
    const log = new ByteLog(memory);
    const guest = Guest.boot(memory, { ...options, program: 'flood-transmit' }, { log });
    const device = new WireDevice(memory, guest.queues, options.features);
    let taken = 0;
    for (let now = 0; now < 4_000; now += 20) {
      for (const frame of device.take(7)) {
        expect(frame.length).toBe(64);
        taken++;
      }
      log.forget();
      guest.poll(now);
      expect(log.takeMissed()).toEqual([]);
    }
    expect(taken).toBeGreaterThan(300);
    expect(guest.counters.sentDone).toBeLessThanOrEqual(taken);
    expect(guest.counters.sentDone).toBeGreaterThan(taken - 300);
    const resumed = Guest.resume(memory.clone(), BASE);
    expect(resumed.counters).toEqual(guest.counters);
  });

  test('takes a flood', () => {
    const memory = new TestMemory([{ gpa: BASE, size: SIZE }]);
    const guest = Guest.boot(memory, { ...options, program: 'flood-receive' });
    const device = new WireDevice(memory, guest.queues, options.features);
    let delivered = 0;
    for (let now = 0; now < 100_000; now += 100) {
      for (let frame = 0; frame < 5; frame++) if (device.deliver(new Uint8Array(40))) delivered++;
      guest.poll(now);
    }
    expect(guest.poll(200_000)).toBe(0);
    expect(delivered).toBeGreaterThan(900);
    expect(guest.counters.received).toBe(delivered);
  });
});

test('the time a frame was sent and its flow are in it', () => {
  const memory = new TestMemory([{ gpa: BASE, size: SIZE }]);
  const guest = Guest.boot(memory, { ...traffic, flow: 77, frameSize: 1500 });
  const device = new WireDevice(memory, guest.queues, MODERN);
  guest.poll(1_000_000);
  guest.poll(1_000_010);
  const [frame] = device.take();
  expect(frame).toHaveLength(1500);
  expect(frameFlow(frameArea(frame!), 0)).toBe(77);
  expect(frameTime(frameArea(frame!), 0)).toBe(1_000_010);
});

test('a frame limit ends the sending, a rate of 0 silences it', () => {
  const memory = new TestMemory([{ gpa: BASE, size: SIZE }]);
  const guest = Guest.boot(memory, { ...traffic, frames: 10 });
  const device = new WireDevice(memory, guest.queues, MODERN);
  for (let now = 0; now < 1000; now += 10) guest.poll(now);
  expect(device.take()).toHaveLength(10);
  expect(guest.dueIn(2000)).toBe(Number.POSITIVE_INFINITY);
  const other = Guest.boot(memory, traffic);
  other.poll(0);
  other.poll(100);
  expect(other.sent).toBe(10);
  other.setRate(0);
  other.poll(200);
  other.poll(100_000);
  expect(other.sent).toBe(10);
});

test('after a pause no more is made up for than the burst', () => {
  const memory = new TestMemory([{ gpa: BASE, size: SIZE }]);
  const guest = Guest.boot(memory, { ...traffic, burst: 100 });
  guest.poll(0);
  guest.poll(100);
  expect(guest.sent).toBe(10);
  const device = new WireDevice(memory, guest.queues, MODERN);
  while (guest.poll(10_000_000) > 0) device.take();
  expect(guest.sent).toBe(110);
  expect(guest.dueIn(10_000_000)).toBeCloseTo(10, 3);
});

test('a clock that stands elsewhere begins the pace anew', () => {
  const memory = new TestMemory([{ gpa: BASE, size: SIZE }]);
  const guest = Guest.boot(memory, traffic);
  guest.poll(1_000_000);
  guest.poll(1_000_100);
  expect(guest.sent).toBe(10);
  const resumed = Guest.resume(memory, BASE);
  resumed.poll(50);
  resumed.poll(150);
  expect(resumed.sent).toBe(20);
});

test('kicks are told once a queue and poll, and only when the device wants them', () => {
  const memory = new TestMemory([{ gpa: BASE, size: SIZE }]);
  const kicks: number[] = [];
  const guest = Guest.boot(memory, traffic, { onKick: (queue) => kicks.push(queue) });
  expect(kicks).toEqual([0]);
  const device = new WireDevice(memory, guest.queues, MODERN);
  kicks.length = 0;
  guest.poll(0);
  device.tx.enableKicks();
  device.rx.enableKicks();
  guest.poll(300);
  expect(kicks).toEqual([1]);
  guest.poll(600);
  expect(kicks).toEqual([1]);
  device.take();
  expect(device.tx.enableKicks()).toBe(false);
  guest.poll(900);
  expect(kicks).toEqual([1, 1]);
});

test('armed interrupts call; what came while arming is told', () => {
  const memory = new TestMemory([{ gpa: BASE, size: SIZE }]);
  const guest = Guest.boot(memory, traffic);
  const device = new WireDevice(memory, guest.queues, MODERN);
  device.deliver(testFrame(2, 0));
  expect(guest.armInterrupts()).toBe(true);
  guest.poll(0);
  expect(guest.armInterrupts()).toBe(false);
  const calls = device.rxCalls;
  device.deliver(testFrame(2, 1));
  expect(device.rxCalls).toBe(calls + 1);
  device.deliver(testFrame(2, 2));
  expect(device.rxCalls).toBe(calls + 1);
  guest.poll(0);
  guest.disarmInterrupts();
  device.deliver(testFrame(2, 3));
  expect(device.rxCalls).toBe(calls + 1);
});

test('a guest that waits for room wants calls for what was sent', () => {
  const memory = new TestMemory([{ gpa: BASE, size: SIZE }]);
  const guest = Guest.boot(memory, { ...traffic, txSize: 4 });
  const device = new WireDevice(memory, guest.queues, MODERN);
  guest.poll(0);
  guest.poll(20);
  device.take(1);
  expect(guest.armInterrupts()).toBe(false);
  const calls = device.txCalls;
  guest.poll(1000);
  guest.poll(2000);
  expect(guest.armInterrupts()).toBe(false);
  expect(guest.dueIn(3000)).toBe(Number.POSITIVE_INFINITY);
  device.take(1);
  expect(device.txCalls).toBe(calls + 1);
});

test('a device that claims more merged buffers than it used is found out', () => {
  const memory = new TestMemory([{ gpa: BASE, size: SIZE }]);
  const guest = Guest.boot(memory, traffic);
  const device = new WireDevice(memory, guest.queues, MODERN);
  const id = device.rx.pop();
  const { regions, addresses } = device.rx.chain;
  regions[0]!.u8[addresses[0]! - regions[0]!.gpa + 10] = 3;
  device.rx.push(id, 100);
  device.rx.publish();
  expect(() => guest.poll(0)).toThrow(expect.objectContaining({ code: 'VHOST_ERR_RING' }) as Error);
});

test.each([3, 70_000])('a used length of %i is malformed, and the buffer goes back', (length) => {
  const memory = new TestMemory([{ gpa: BASE, size: SIZE }]);
  const guest = Guest.boot(memory, traffic);
  const device = new WireDevice(memory, guest.queues, MODERN);
  device.rx.push(device.rx.pop(), length);
  device.rx.publish();
  guest.poll(0);
  expect(guest.counters).toMatchObject({ malformed: 1, received: 0 });
  for (let buffer = 1; buffer <= 32; buffer++) expect(device.rx.pop()).toBeGreaterThanOrEqual(0);
});

test('a broadcast is not sent back, a corrupted frame neither', () => {
  const memory = new TestMemory([{ gpa: BASE, size: SIZE }]);
  const guest = Guest.boot(memory, { ...traffic, program: 'echo' });
  const device = new WireDevice(memory, guest.queues, MODERN);
  device.deliver(testFrame(2, 0, 128, 'ff:ff:ff:ff:ff:ff'));
  const corrupted = testFrame(2, 1);
  corrupted[60]! ^= 1;
  device.deliver(corrupted);
  device.deliver(testFrame(2, 2));
  guest.poll(0);
  expect(device.take()).toHaveLength(1);
  expect(guest.counters.notEchoed).toBe(2);
  expect(guest.ledger.corrupted).toBe(1);
});

test('a poll that finds nothing to do writes nothing; one that finds no room tells what it wrote', () => {
  const memory = new TestMemory([{ gpa: BASE, size: SIZE }]);
  const log = new ByteLog(memory);
  const guest = Guest.boot(memory, { ...traffic, txSize: 1 }, { log });
  guest.poll(0);
  expect(log.takeMissed()).toEqual([]);
  const marks: number[] = [];
  const { mark } = log;
  log.mark = (gpa, length) => {
    marks.push(gpa);
    mark.call(log, gpa, length);
  };
  expect(guest.poll(5)).toBe(0);
  expect(marks).toEqual([]);
  expect(guest.poll(100)).toBe(1);
  expect(guest.poll(5000)).toBe(0);
  expect(log.takeMissed()).toEqual([]);
});

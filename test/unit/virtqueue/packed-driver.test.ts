import { PackedDriver } from '../../../lib/virtqueue/packed-driver';
import { packedDriverStateBytes } from '../../../lib/virtqueue/packed-driver-state';
import { packedLayout } from '../../../lib/virtqueue/packed-layout';
import { AVAIL, DATA, HandRing, RINGS, TABLE, USED } from '../../helpers/packed-ring';
import { ByteLog } from '../../helpers/ring-memory';

const STATE = RINGS + 0x4000;
const RING_ERROR = expect.objectContaining({ code: 'VHOST_ERR_RING' }) as Error;
const ARGUMENT_ERROR = expect.objectContaining({ code: 'VHOST_ERR_INVALID_ARGUMENT' }) as Error;
const [NEXT, WRITE, INDIRECT] = [1, 2, 4];

function queue(size = 8, eventIdx = false, indirect?: { tables: number; entries: number }) {
  const ring = new HandRing(size);
  const options = { size, ...ring.layout, eventIdx, ...(indirect === undefined ? {} : { indirect }) };
  const driver = PackedDriver.format(ring.memory, STATE, options);
  return { ring, driver };
}

function chainOf(driver: PackedDriver, lengths: number[], writable = false): number {
  const id = driver.chainBegin(lengths.length);
  for (const length of lengths) driver.chainAdd(DATA, 0, length, writable);
  driver.chainEnd();
  return id;
}

/** A device that writes what it likes into descriptor `slot` of the first lap. */
const use = (ring: HandRing, slot: number, id: number, length = 0, flags = USED | AVAIL | WRITE): void =>
  ring.describe(slot, 0, length, id, flags);

test('descriptors lie as the specification says, the first of them visible last', () => {
  const { ring, driver } = queue();
  expect(driver.post(0x89abcdef, 0x1234, 77, true)).toBe(0);
  expect(driver.chainBegin(2)).toBe(1);
  driver.chainAdd(1, 0, 10, false);
  driver.chainAdd(2, 0, 20, true);
  driver.chainEnd();
  expect(ring.at(0)).toEqual([77, 0, 0]);
  expect(ring.at(1)).toEqual([10, 1, AVAIL | NEXT]);
  expect(ring.at(2)).toEqual([20, 1, AVAIL | WRITE]);
  expect(ring.device().pop()).toBe(-1);
  expect(driver.publish()).toBe(true);
  expect(ring.at(0)).toEqual([77, 0, AVAIL | WRITE]);
  expect(ring.memory.view(RINGS, 8).getBigUint64(0, true)).toBe(0x123489abcdefn);
  expect(driver.publish()).toBe(false);
});

test('chains of several buffers take one descriptor when they go through a table', () => {
  const { ring, driver } = queue(2, false, { tables: TABLE, entries: 3 });
  for (const id of [0, 1]) expect(chainOf(driver, [1, 2, 3], true)).toBe(id);
  expect(driver.chainBegin(3)).toBe(-1);
  driver.publish();
  expect(ring.at(1)).toEqual([48, 1, AVAIL | INDIRECT]);
  const entry = ring.memory.view(TABLE + 64, 16);
  expect([entry.getUint32(8, true), entry.getUint16(12, true), entry.getUint16(14, true)]).toEqual([2, 0, WRITE]);
  const device = ring.device();
  expect([device.pop(), device.chain.buffers, device.chain.writableBytes]).toEqual([0, 3, 6]);
});

test("what was reposted has the buffers it had, however many, at the ring's next place", () => {
  const { ring, driver } = queue(5);
  expect(chainOf(driver, [10, 20, 30])).toBe(0);
  expect(driver.post(DATA + 512, 0, 40, true)).toBe(3);
  driver.publish();
  use(ring, 0, 3, 40);
  use(ring, 1, 0);
  expect(driver.pending()).toBe(2);
  driver.repost(2);
  expect(driver.publish()).toBe(true);
  expect(ring.at(4)).toEqual([40, 3, AVAIL | WRITE]);
  expect([ring.at(0), ring.at(1), ring.at(2)]).toEqual([
    [10, 0, USED | NEXT],
    [20, 0, USED | NEXT],
    [30, 0, USED],
  ]);
  expect([driver.free, driver.inFlight, driver.pending()]).toEqual([1, 2, 0]);
});

test('a length without WRITE is none', () => {
  const { ring, driver } = queue();
  driver.post(DATA, 0, 1, true);
  driver.post(DATA, 0, 1, true);
  driver.publish();
  use(ring, 0, 1, 7);
  use(ring, 1, 0, 7, USED | AVAIL);
  expect(driver.pending()).toBe(2);
  expect([driver.usedId(0), driver.usedLength(0), driver.usedId(1), driver.usedLength(1)]).toEqual([1, 7, 0, 0]);
});

test('kicks follow the device event suppression structure', () => {
  const { ring, driver } = queue(8, true);
  const publishOne = () => {
    driver.post(DATA, 0, 1, false);
    return driver.publish();
  };
  expect(publishOne()).toBe(true);
  ring.setEvent('deviceEvent', 0, 1);
  expect(publishOne()).toBe(false);
  ring.setEvent('deviceEvent', 0x8003, 2);
  expect([publishOne(), publishOne(), publishOne()]).toEqual([false, true, false]);
  // Of the lap to come.
  ring.setEvent('deviceEvent', 0x0006, 2);
  expect([publishOne(), publishOne()]).toEqual([false, false]);
});

test('calls are asked for with ENABLE, or for one descriptor with EVENT_IDX', () => {
  for (const eventIdx of [false, true]) {
    const { ring, driver } = queue(8, eventIdx);
    driver.post(DATA, 0, 1, false);
    driver.publish();
    driver.disableCalls();
    expect(ring.event('driverEvent')).toEqual([0, 1]);
    expect(driver.enableCalls()).toBe(false);
    expect(ring.event('driverEvent')).toEqual(eventIdx ? [0x8000, 2] : [0, 0]);
    use(ring, 0, 0);
    expect(driver.enableCalls()).toBe(true);
  }
});

describe('a device that lies', () => {
  test('about chains that were not published', () => {
    const { ring, driver } = queue();
    driver.post(DATA, 0, 1, false);
    use(ring, 0, 0);
    expect(() => driver.pending()).toThrow(RING_ERROR);
    expect(() => driver.queueState()).toThrow(RING_ERROR);
  });

  test('about more descriptors than it was given', () => {
    const { ring, driver } = queue();
    driver.post(DATA, 0, 1, false);
    driver.publish();
    const id = chainOf(driver, [1, 1]);
    use(ring, 0, id);
    expect(() => driver.pending()).toThrow('ahead of everything');
  });

  test.each([8, 5, 0xffff])('about the id %i', (id) => {
    const { ring, driver } = queue();
    driver.post(DATA, 0, 1, false);
    driver.publish();
    use(ring, 0, id);
    expect(() => driver.pending()).toThrow(RING_ERROR);
    expect(() => driver.release(1)).toThrow(ARGUMENT_ERROR);
    expect([driver.free, driver.inFlight]).toEqual([7, 1]);
  });

  test('about an id it gave back before, which leaves the chains before it valid', () => {
    const { ring, driver } = queue();
    for (let chain = 0; chain < 3; chain++) driver.post(DATA, 0, 1, false);
    driver.publish();
    use(ring, 0, 1);
    use(ring, 1, 1);
    expect([driver.pending(), driver.usedId(0)]).toEqual([1, 1]);
    expect(() => driver.queueState()).toThrow(RING_ERROR);
    driver.release(1);
    expect(() => driver.pending()).toThrow(RING_ERROR);
    expect([driver.free, driver.inFlight]).toEqual([6, 2]);
  });

  test('about an entry of a chain that is not its id', () => {
    const { ring, driver } = queue();
    chainOf(driver, [1, 1]);
    driver.publish();
    use(ring, 0, 1);
    expect(() => driver.pending()).toThrow(RING_ERROR);
  });

  test('and changes its mind about what was read', () => {
    const { ring, driver } = queue();
    for (let chain = 0; chain < 2; chain++) driver.post(DATA, 0, 64, true);
    driver.publish();
    use(ring, 0, 1, 64);
    expect(driver.pending()).toBe(1);
    use(ring, 0, 7, 0xffffffff);
    expect([driver.pending(), driver.usedId(0), driver.usedLength(0)]).toEqual([1, 1, 64]);
    driver.release(1);
    expect([driver.free, driver.inFlight]).toEqual([7, 1]);
  });
});

test('a chain that is not ended leaves no trace', () => {
  const { ring, driver } = queue();
  driver.chainBegin(3);
  driver.chainAdd(DATA, 0, 1, false);
  expect(() => driver.chainEnd()).toThrow('2 more buffers');
  const again = PackedDriver.attach(ring.memory, STATE);
  expect([again.free, again.inFlight, again.nextId]).toEqual([8, 0, 0]);
  expect(
    chainOf(
      again,
      Array.from({ length: 8 }, () => 1),
    ),
  ).toBe(0);
  expect([again.free, again.inFlight]).toEqual([0, 1]);
});

test('a batch that is not published survives a new driver, and shows then', () => {
  const { ring, driver } = queue(3);
  driver.post(DATA, 0, 5, false);
  driver.post(DATA, 0, 6, true);
  const again = PackedDriver.attach(ring.memory, STATE);
  const device = ring.device();
  expect(device.pop()).toBe(-1);
  expect(again.publish()).toBe(true);
  expect([device.pop(), device.chain.readableBytes, device.pop(), device.chain.writableBytes]).toEqual([0, 5, 1, 6]);
});

test('misuse is refused', () => {
  const { driver } = queue();
  expect(() => driver.chainBegin(0)).toThrow(ARGUMENT_ERROR);
  expect(() => driver.chainBegin(9)).toThrow(ARGUMENT_ERROR);
  expect(() => driver.chainBegin(Number.NaN)).toThrow(ARGUMENT_ERROR);
  expect(() => driver.chainAdd(0, 0, 1, false)).toThrow('no chain');
  driver.chainBegin(2);
  driver.chainAdd(0, 0, 1, true);
  expect(() => driver.chainAdd(0, 0, 1, false)).toThrow('behind a writable');
  expect(() => driver.release(1)).toThrow(ARGUMENT_ERROR);
  expect(() => driver.repost(1)).toThrow(ARGUMENT_ERROR);
  expect(() => driver.release(Number.NaN)).toThrow(ARGUMENT_ERROR);
});

test.each<[string, object]>([
  ['packed virtqueue', { size: 32769 }],
  ['packed virtqueue', { size: 0 }],
  ['descriptor ring', { desc: RINGS + 8 }],
  ['driver event', { driverEvent: RINGS + 2 }],
  ['device event', { deviceEvent: RINGS + 2 }],
  ['driver state', { state: STATE + 4 }],
  ['indirect tables', { indirect: { tables: RINGS + 1, entries: 2 } }],
  ['indirect tables', { indirect: { tables: RINGS, entries: 0 } }],
])('format refuses a wrong %s', (what, change) => {
  const { memory } = new HandRing(8);
  const { state, ...options } = { state: STATE, size: 8, ...packedLayout(RINGS, 8), ...change };
  expect(() => PackedDriver.format(memory, state, options)).toThrow(what);
  expect(memory.regions[0]!.u8.every((byte) => byte === 0)).toBe(true);
});

test('attach refuses memory without a driver, rings outside memory and positions outside the ring', () => {
  const { ring, driver } = queue();
  expect(driver.ranges('q').find(({ name }) => name === 'q driver state')).toEqual({
    name: 'q driver state',
    gpa: STATE,
    length: packedDriverStateBytes(8),
  });
  expect(() => PackedDriver.attach(ring.memory, RINGS)).toThrow(RING_ERROR);
  const state = ring.memory.view(STATE, 64);
  state.setUint16(54, 16, true);
  expect(() => PackedDriver.attach(ring.memory, STATE)).toThrow(RING_ERROR);
  state.setUint32(24, 0x7ffffff0, true);
  expect(() => PackedDriver.attach(ring.memory, STATE)).toThrow(
    expect.objectContaining({ code: 'VHOST_ERR_MEMORY_TABLE' }) as Error,
  );
});

test('a disabled log is never told', () => {
  const { ring } = queue();
  const log = new ByteLog(ring.memory);
  log.enabled = false;
  log.mark = () => {
    throw new Error('told');
  };
  const driver = PackedDriver.attach(ring.memory, STATE, log);
  driver.post(DATA, 0, 1, false);
  driver.publish();
  use(ring, 0, 0);
  driver.pending();
  driver.repost(1);
  driver.enableCalls();
  driver.disableCalls();
  expect(driver.inFlight).toBe(1);
});

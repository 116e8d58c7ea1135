import { splitLayout } from '../../../lib/virtqueue/layout';
import { NO_WRITE_LOG } from '../../../lib/virtqueue/ring-memory';
import { SplitDevice } from '../../../lib/virtqueue/split-device';
import { SplitDriver } from '../../../lib/virtqueue/split-driver';
import { ByteLog, TestMemory } from '../../helpers/ring-memory';

const RINGS = 0x100000;
const STATE = RINGS + 0x4000;
const RING_ERROR = expect.objectContaining({ code: 'VHOST_ERR_RING' }) as Error;
const ARGUMENT_ERROR = expect.objectContaining({ code: 'VHOST_ERR_INVALID_ARGUMENT' }) as Error;

function queue(size = 8, eventIdx = false, indirect?: { tables: number; entries: number }) {
  const memory = new TestMemory([{ gpa: RINGS, size: 0x10000 }]);
  const layout = splitLayout(RINGS, size, eventIdx);
  const options = { size, ...layout, eventIdx, ...(indirect === undefined ? {} : { indirect }) };
  const driver = SplitDriver.format(memory, STATE, options);
  return { memory, layout, driver };
}

/** A device that writes what it likes into the used ring. */
function use(memory: TestMemory, used: number, ids: number[], idx = ids.length): void {
  const view = memory.view(used, 4 + 8 * 8);
  for (const [slot, id] of ids.entries()) view.setUint32(4 + 8 * slot, id, true);
  view.setUint16(2, idx, true);
}

test('descriptors, available ring and index lie as the specification says', () => {
  const { memory, layout, driver } = queue();
  expect(driver.post(0x89abcdef, 0x1234, 77, true)).toBe(0);
  expect(driver.chainBegin(2)).toBe(1);
  driver.chainAdd(1, 0, 10, false);
  driver.chainAdd(2, 0, 20, true);
  driver.chainEnd();
  const desc = memory.view(layout.desc, 48);
  expect([desc.getBigUint64(0, true), desc.getUint32(8, true), desc.getUint16(12, true)]).toEqual([
    0x123489abcdefn,
    77,
    2,
  ]);
  expect([desc.getUint32(24, true), desc.getUint16(28, true), desc.getUint16(30, true)]).toEqual([10, 1, 2]);
  expect([desc.getUint32(40, true), desc.getUint16(44, true), desc.getUint16(46, true)]).toEqual([20, 2, 0]);
  const avail = memory.view(layout.avail, 8);
  expect([avail.getUint16(4, true), avail.getUint16(6, true)]).toEqual([0, 1]);
  expect(avail.getUint16(2, true)).toBe(0);
  expect(driver.publish()).toBe(true);
  expect(avail.getUint16(2, true)).toBe(2);
  expect(driver.publish()).toBe(false);
});

test('chains of several buffers take one descriptor when they go through a table', () => {
  const { memory, layout, driver } = queue(2, false, { tables: RINGS + 0x8000, entries: 3 });
  for (const id of [0, 1]) {
    expect(driver.chainBegin(3)).toBe(id);
    for (const buffer of [1, 2, 3]) driver.chainAdd(RINGS + 0x9000, 0, buffer, buffer > 1);
    driver.chainEnd();
  }
  expect(driver.chainBegin(3)).toBe(-1);
  driver.publish();
  const desc = memory.view(layout.desc, 32);
  expect([desc.getUint32(16, true), desc.getUint32(24, true), desc.getUint16(28, true)]).toEqual([
    RINGS + 0x8030,
    48,
    4,
  ]);
  const device = new SplitDevice(memory, driver.queueState());
  expect(device.pop()).toBe(0);
  expect([device.chain.buffers, device.chain.firstWritable]).toEqual([3, 1]);
});

test('kicks follow used.flags', () => {
  const { memory, layout, driver } = queue();
  const used = memory.view(layout.used, 4);
  used.setUint16(0, 1, true);
  driver.post(0, 0, 1, false);
  expect(driver.publish()).toBe(false);
  used.setUint16(0, 0, true);
  driver.post(0, 0, 1, false);
  expect(driver.publish()).toBe(true);
});

test('kicks follow avail_event, whatever the flags say', () => {
  const { memory, layout, driver } = queue(8, true);
  const used = memory.view(layout.used, 4 + 64 + 2);
  used.setUint16(0, 1, true);
  used.setUint16(68, 2, true);
  const publishOne = () => {
    driver.post(0, 0, 1, false);
    return driver.publish();
  };
  expect([publishOne(), publishOne(), publishOne(), publishOne()]).toEqual([false, false, true, false]);
  used.setUint16(68, 5, true);
  driver.post(0, 0, 1, false);
  driver.post(0, 0, 1, false);
  driver.post(0, 0, 1, false);
  expect(driver.publish()).toBe(true);
});

test('calls are asked for in used_event or avail.flags', () => {
  for (const eventIdx of [false, true]) {
    const { memory, layout, driver } = queue(8, eventIdx);
    const avail = memory.view(layout.avail, 4 + 16 + 2);
    driver.post(0, 0, 1, false);
    driver.publish();
    driver.disableCalls();
    expect(eventIdx ? avail.getUint16(20, true) : avail.getUint16(0, true)).toBe(eventIdx ? 0xffff : 1);
    expect(driver.enableCalls()).toBe(false);
    expect(eventIdx ? avail.getUint16(20, true) : avail.getUint16(0, true)).toBe(0);
    use(memory, layout.used, [0]);
    expect(driver.enableCalls()).toBe(true);
  }
});

describe('a device that lies', () => {
  test('about the index', () => {
    const { memory, layout, driver } = queue();
    driver.post(0, 0, 1, false);
    driver.publish();
    use(memory, layout.used, [0, 0]);
    expect(() => driver.pending()).toThrow(RING_ERROR);
  });

  test('about chains that were not published', () => {
    const { memory, layout, driver } = queue();
    driver.post(0, 0, 1, false);
    use(memory, layout.used, [0]);
    expect(() => driver.pending()).toThrow(RING_ERROR);
  });

  test.each([8, 5, 0xffffffff, 0x10000])('about the id %i', (id) => {
    const { memory, layout, driver } = queue();
    driver.post(0, 0, 1, false);
    driver.publish();
    use(memory, layout.used, [id]);
    expect(driver.pending()).toBe(1);
    expect(() => driver.usedId(0)).toThrow(RING_ERROR);
    expect(() => driver.release(1)).toThrow(RING_ERROR);
    expect(() => driver.repost(1)).toThrow(RING_ERROR);
    expect([driver.free, driver.inFlight]).toEqual([7, 1]);
  });

  test('about an id it gave back before', () => {
    const { memory, layout, driver } = queue();
    for (let chain = 0; chain < 3; chain++) driver.post(0, 0, 1, false);
    driver.publish();
    use(memory, layout.used, [1, 1]);
    expect(driver.pending()).toBe(2);
    expect(() => driver.repost(2)).toThrow(RING_ERROR);
    expect(driver.usedId(0)).toBe(1);
    expect(() => driver.release(2)).toThrow(RING_ERROR);
    expect([driver.free, driver.inFlight]).toEqual([6, 2]);
  });

  test('about any id that is free again', () => {
    for (let id = 0; id < 8; id++) {
      const { memory, layout, driver } = queue();
      for (let chain = 0; chain < 8; chain++) driver.post(0, 0, 1, false);
      driver.publish();
      use(memory, layout.used, [id]);
      driver.release(driver.pending());
      use(memory, layout.used, [id, id]);
      expect(driver.pending()).toBe(1);
      expect(() => driver.release(1)).toThrow(RING_ERROR);
      expect([driver.free, driver.inFlight]).toEqual([1, 7]);
    }
  });

  test('about the middle of a chain', () => {
    const { memory, layout, driver } = queue();
    driver.chainBegin(2);
    driver.chainAdd(0, 0, 1, false);
    driver.chainAdd(0, 0, 1, false);
    driver.chainEnd();
    driver.publish();
    use(memory, layout.used, [1]);
    driver.pending();
    expect(() => driver.release(1)).toThrow(RING_ERROR);
  });
});

test('a chain that is not ended leaves no trace', () => {
  const { memory, driver } = queue();
  driver.chainBegin(3);
  driver.chainAdd(0, 0, 1, false);
  expect(() => driver.chainEnd()).toThrow('2 more buffers');
  const again = SplitDriver.attach(memory, STATE);
  expect([again.free, again.inFlight, again.nextId]).toEqual([8, 0, 0]);
  expect(again.post(0, 0, 1, false)).toBe(0);
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
  ['split virtqueue', { size: 6 }],
  ['split virtqueue', { size: 0 }],
  ['descriptor table', { desc: RINGS + 8 }],
  ['available ring', { avail: RINGS + 1 }],
  ['used ring', { used: RINGS + 2 }],
  ['indirect tables', { indirect: { tables: RINGS + 1, entries: 2 } }],
  ['indirect tables', { indirect: { tables: RINGS, entries: 0 } }],
])('format refuses a wrong %s', (what, change) => {
  const memory = new TestMemory([{ gpa: RINGS, size: 0x10000 }]);
  const options = { size: 8, ...splitLayout(RINGS, 8, false), ...change };
  expect(() => SplitDriver.format(memory, STATE, options)).toThrow(what);
  expect(memory.regions[0]!.u8.every((byte) => byte === 0)).toBe(true);
});

test('attach refuses memory without a driver, and rings outside memory', () => {
  const { memory } = queue();
  expect(() => SplitDriver.attach(memory, RINGS)).toThrow(RING_ERROR);
  memory.view(STATE, 64).setUint32(24, 0x7ffffff0, true);
  expect(() => SplitDriver.attach(memory, STATE)).toThrow(
    expect.objectContaining({ code: 'VHOST_ERR_MEMORY_TABLE' }) as Error,
  );
});

test('a disabled log is never told', () => {
  const { memory } = queue();
  const log = new ByteLog(memory);
  log.enabled = false;
  log.mark = () => {
    throw new Error('told');
  };
  const driver = SplitDriver.attach(memory, STATE, log);
  driver.post(0, 0, 1, false);
  driver.publish();
  driver.enableCalls();
  driver.disableCalls();
  expect(NO_WRITE_LOG.enabled).toBe(false);
  expect(driver.inFlight).toBe(1);
});

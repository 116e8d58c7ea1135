/** What a device writes, bit for bit, for a driver whose descriptors are written by hand. */
import { VRING_DESC_F_NEXT as NEXT, VRING_DESC_F_WRITE as WRITE } from '../../../lib/constants/virtio-ring';
import { AVAIL, DATA, HandRing, USED } from '../../helpers/packed-ring';
import { ByteLog } from '../../helpers/ring-memory';

const ARGUMENT_ERROR = expect.objectContaining({ code: 'VHOST_ERR_INVALID_ARGUMENT' }) as Error;

/** `count` available descriptors of the first lap from `from` on, each a chain, ids 0, 1 and so on. */
function offer(ring: HandRing, from: number, count: number): void {
  for (let slot = from; slot < from + count; slot++) ring.describe(slot, DATA + 64 * slot, 64, slot, AVAIL);
}

test('a used descriptor has id, length and both flags, WRITE when something was written', () => {
  const ring = new HandRing(4);
  const device = ring.device();
  ring.describe(0, DATA, 64, 3, AVAIL | WRITE);
  ring.describe(1, DATA, 64, 1, AVAIL);
  expect([device.pop(), device.pop(), device.pop()]).toEqual([3, 1, -1]);
  device.push(3, 60);
  device.push(1, 0);
  expect(device.publish()).toBe(true);
  expect(ring.at(0)).toEqual([60, 3, USED | AVAIL | WRITE]);
  expect(ring.at(1)).toEqual([0, 1, USED | AVAIL]);
  expect([device.usedIdx, device.nextAvail, device.publish()]).toEqual([2, 2, false]);
});

test('after the last descriptor the meaning of the flags turns round', () => {
  const ring = new HandRing(3);
  const device = ring.device();
  for (const [lap, flags] of [AVAIL, USED, AVAIL].entries()) {
    for (let slot = 0; slot < 3; slot++) {
      expect(device.pop()).toBe(-1);
      ring.describe(slot, DATA, 64, slot, flags);
      expect(device.pop()).toBe(slot);
      device.push(slot, 0);
      device.publish();
      expect(ring.at(slot)).toEqual([0, slot, lap % 2 === 0 ? AVAIL | USED : 0]);
    }
  }
  expect(device.state()).toMatchObject({ nextAvail: 0, packed: { availWrap: false, nextUsed: 0, usedWrap: false } });
});

test('a used descriptor stands for its whole chain, whichever chain is done first', () => {
  const ring = new HandRing(6);
  const device = ring.device();
  ring.describe(0, DATA, 8, 77, AVAIL | NEXT);
  ring.describe(1, DATA, 8, 78, AVAIL | NEXT);
  ring.describe(2, DATA, 8, 4, AVAIL | WRITE);
  ring.describe(3, DATA, 8, 5, AVAIL);
  expect([device.pop(), device.pop()]).toEqual([4, 5]);
  device.push(5, 0);
  device.push(4, 8);
  device.publish();
  expect([ring.at(0), ring.at(1)]).toEqual([
    [0, 5, USED | AVAIL],
    [8, 4, USED | AVAIL | WRITE],
  ]);
  expect(ring.at(3)).toEqual([8, 5, AVAIL]);
  expect(device.usedIdx).toBe(4);
});

test('of a batch the first descriptor is written last', () => {
  const ring = new HandRing(4);
  const device = ring.device();
  offer(ring, 0, 4);
  for (let id = 0; id < 4; id++) device.pop();
  for (const id of [2, 0, 3]) device.push(id, 0);
  expect(ring.at(0)).toEqual([64, 0, AVAIL]);
  expect([ring.at(1)[2], ring.at(2)[2]]).toEqual([USED | AVAIL, USED | AVAIL]);
  device.publish();
  expect(ring.at(0)).toEqual([0, 2, USED | AVAIL]);
});

test('what is written is marked, and nothing else is written', () => {
  const ring = new HandRing(4);
  const log = new ByteLog(ring.memory);
  const device = ring.device({ log, eventIdx: true });
  offer(ring, 0, 4);
  log.forget();
  for (let id = 0; id < 4; id++) device.pop();
  for (const id of [2, 0, 3, 1]) device.push(id, id);
  device.publish();
  device.enableKicks();
  expect(log.takeMissed()).toEqual([]);
  log.mark = () => undefined;
  device.disableKicks();
  expect(log.takeMissed()).toEqual([ring.layout.deviceEvent + 2]);
});

describe('chains given back untaken', () => {
  test('come again, with the ones before them still out', () => {
    const ring = new HandRing(5);
    const device = ring.device();
    offer(ring, 0, 2);
    ring.describe(2, DATA, 8, 9, AVAIL | NEXT);
    ring.describe(3, DATA, 8, 2, AVAIL);
    ring.describe(4, DATA, 8, 4, AVAIL);
    expect([0, 1, 2, 3].map(() => device.pop())).toEqual([0, 1, 2, 4]);
    device.push(1, 0);
    device.publish();
    expect(device.state()).toMatchObject({ nextAvail: 0, packed: { availWrap: false } });
    device.unpop(2);
    expect(device.state()).toMatchObject({ nextAvail: 2, packed: { availWrap: true, nextUsed: 1 } });
    expect([device.pop(), device.chain.buffers, device.pop(), device.pop()]).toEqual([2, 2, 4, -1]);
  });

  test('were never pushed and never more than are out', () => {
    const ring = new HandRing(4);
    const device = ring.device();
    offer(ring, 0, 3);
    for (let id = 0; id < 3; id++) device.pop();
    device.push(2, 0);
    expect(() => device.unpop(1)).toThrow(ARGUMENT_ERROR);
    expect(() => device.unpop(3)).toThrow(ARGUMENT_ERROR);
    expect(() => device.unpop(Number.NaN)).toThrow(ARGUMENT_ERROR);
    expect(device.nextAvail).toBe(3);
    offer(ring, 3, 1);
    device.pop();
    device.unpop(1);
    expect(() => device.unpop(3)).toThrow('3 chains (0 to 2)');
  });
});

test('an id that was not taken, or was pushed, is refused', () => {
  const ring = new HandRing(4);
  const device = ring.device();
  offer(ring, 0, 1);
  for (const id of [0, 4, -1, 0.5, Number.NaN]) expect(() => device.push(id, 0)).toThrow(ARGUMENT_ERROR);
  device.pop();
  device.push(0, 0);
  expect(() => device.push(0, 0)).toThrow(ARGUMENT_ERROR);
});

describe('calls', () => {
  function use(device: ReturnType<HandRing['device']>): boolean {
    const id = device.pop();
    device.push(id, 0);
    return device.publish();
  }

  test('follow ENABLE and DISABLE', () => {
    const ring = new HandRing(4);
    const device = ring.device();
    offer(ring, 0, 3);
    expect(use(device)).toBe(true);
    ring.setEvent('driverEvent', 0, 1);
    expect(use(device)).toBe(false);
    ring.setEvent('driverEvent', 0, 0);
    expect(use(device)).toBe(true);
  });

  test('follow the awaited descriptor with EVENT_IDX, but for the first after a start', () => {
    const ring = new HandRing(4);
    const device = ring.device({ eventIdx: true });
    offer(ring, 0, 4);
    ring.setEvent('driverEvent', 0x8002, 2);
    expect([use(device), use(device), use(device), use(device)]).toEqual([true, false, true, false]);
    ring.setEvent('driverEvent', 0x0000, 2);
    ring.describe(0, DATA, 64, 0, USED);
    expect(use(device)).toBe(true);
  });

  test('do not come for the first use when the driver said DISABLE', () => {
    const ring = new HandRing(4);
    const device = ring.device({ eventIdx: true });
    offer(ring, 0, 1);
    ring.setEvent('driverEvent', 0, 1);
    expect(use(device)).toBe(false);
  });
});

describe('kicks', () => {
  test('are asked for with ENABLE, or for one descriptor with EVENT_IDX', () => {
    for (const eventIdx of [false, true]) {
      const ring = new HandRing(4);
      const device = ring.device({ eventIdx });
      offer(ring, 0, 1);
      device.pop();
      device.disableKicks();
      expect(ring.event('deviceEvent')).toEqual([0, 1]);
      expect(device.enableKicks()).toBe(false);
      expect(ring.event('deviceEvent')).toEqual(eventIdx ? [0x8001, 2] : [0, 0]);
      offer(ring, 1, 1);
      expect(device.enableKicks()).toBe(true);
    }
  });

  test('for more than there is are asked for behind it, be it the whole ring', () => {
    const ring = new HandRing(4);
    const device = ring.device({ eventIdx: true });
    offer(ring, 0, 3);
    device.pop();
    expect(device.enableKicksForMore()).toBe(false);
    expect(ring.event('deviceEvent')).toEqual([0x8003, 2]);
    offer(ring, 3, 1);
    expect(device.enableKicksForMore()).toBe(false);
    expect(ring.event('deviceEvent')).toEqual([0x0000, 2]);
    device.push(0, 0);
    device.publish();
    ring.describe(0, DATA, 64, 0, USED);
    expect(device.enableKicksForMore()).toBe(false);
    expect(ring.event('deviceEvent')).toEqual([0x0001, 2]);
  });
});

test('a fault that the kind of device finds breaks the ring', () => {
  const ring = new HandRing(4);
  const device = ring.device();
  offer(ring, 0, 1);
  const error = device.fail('a header of no sense');
  expect(error).toMatchObject({ code: 'VHOST_ERR_RING', message: 'packed virtqueue: a header of no sense' });
  expect(() => device.pop()).toThrow(error);
  expect(device.fail('another')).toBe(error);
});

import { gpa } from '../../../lib/memory/address';
import { packedLayout } from '../../../lib/virtqueue/packed-layout';
import {
  advance,
  availFlags,
  distance,
  eventAt,
  positionOf,
  retreat,
  slotOf,
  usedFlags,
  wantsEvent,
  wrapOf,
} from '../../../lib/virtqueue/packed-position';
import {
  type QueueState,
  validatePackedQueueState,
  validateQueueState,
  validateSplitQueueState,
} from '../../../lib/virtqueue/queue-state';
import { TestMemory } from '../../helpers/ring-memory';

const memory = new TestMemory([{ gpa: 0x10000, size: 0x10000 }]);
const packed = { availWrap: false, nextUsed: 5, usedWrap: true };
const sound: QueueState = {
  size: 300,
  ready: true,
  descTable: gpa(0x10000),
  availRing: gpa(0x1fff8),
  usedRing: gpa(0x1fffc),
  nextAvail: 5,
  packed,
};
const refused = (field: string): Error =>
  expect.objectContaining({ code: 'VHOST_ERR_RING', message: expect.stringContaining(field) }) as Error;

test('the parts of a ring do not overlap and are aligned, whatever the size', () => {
  for (const size of [1, 2, 3, 255, 256, 1000, 32767, 32768]) {
    const { desc, driverEvent, deviceEvent, bytes } = packedLayout(0x40, size);
    expect(desc).toBe(0x40);
    expect(driverEvent).toBeGreaterThanOrEqual(desc + 16 * size);
    expect(deviceEvent).toBeGreaterThanOrEqual(driverEvent + 4);
    expect([driverEvent % 4, deviceEvent % 4]).toEqual([0, 0]);
    expect(bytes).toBe(deviceEvent + 4 - desc);
  }
  expect(() => packedLayout(8, 4)).toThrow('multiple of 16');
  for (const size of [0, 32769, 1.5, Number.NaN]) expect(() => packedLayout(0, size)).toThrow('1 to 32768');
});

describe('a queue state', () => {
  test('that is sound comes back as a copy with nothing else in it', () => {
    const state = { ...sound, more: 1, packed: { ...packed, more: 1 } };
    const copy = validateQueueState(state, memory, true);
    expect(copy).toEqual(sound);
    expect(copy.packed).not.toBe(state.packed);
  });

  test.each<[string, object]>([
    ['size', { size: 0 }],
    ['size', { size: 32769 }],
    ['size', { size: 4.5 }],
    ['size', { size: '256' }],
    ['ready', { ready: 1 }],
    ['nextAvail', { nextAvail: -1 }],
    ['nextAvail', { nextAvail: 300 }],
    ['nextAvail', { nextAvail: undefined }],
    ['packed.nextUsed', { packed: { ...packed, nextUsed: 300 } }],
    ['packed.nextUsed', { packed: { ...packed, nextUsed: 0.5 } }],
    ['packed.availWrap', { packed: { ...packed, availWrap: 1 } }],
    ['packed.usedWrap', { packed: { ...packed, usedWrap: undefined } }],
    ['packed is', { packed: null }],
    ['packed is', { packed: 5 }],
    ['is behind', { nextAvail: 4, packed: { availWrap: true, nextUsed: 5, usedWrap: true } }],
    ['is behind', { nextAvail: 6 }],
    ['descTable', { descTable: 0x10008 }],
    ['descTable', { descTable: -16 }],
    ['descTable', { descTable: 2 ** 53 }],
    ['descTable', { descTable: 0x1ed50 }],
    ['availRing', { availRing: 0x11002 }],
    ['availRing', { availRing: 0x20000 }],
    ['usedRing', { usedRing: 0x12002 }],
    ['usedRing', { usedRing: 0x20000 }],
  ])('with a wrong %s is refused by name', (field, change) => {
    const state = { ...sound, ...change } as QueueState;
    expect(() => validateQueueState(state, memory, true)).toThrow(refused(field));
  });

  test('of one format is refused by the other', () => {
    const { packed: _, ...split } = { ...sound, size: 256 };
    expect(
      validateSplitQueueState({ ...split, availRing: gpa(0x18000), usedRing: gpa(0x19000) }, memory, false),
    ).toBeDefined();
    expect(() => validateSplitQueueState({ ...sound, size: 256 }, memory, false)).toThrow(refused('packed is there'));
    expect(() => validatePackedQueueState(split, memory)).toThrow(refused('packed is undefined'));
  });
});

test('a position is index and wrap counter in one', () => {
  for (const size of [1, 2, 3, 8, 32768]) {
    let position = 0;
    let slot = 0;
    let wrap = true;
    for (let step = 0; step < 5 * Math.min(size, 100); step++) {
      expect([slotOf(position, size), wrapOf(position, size)]).toEqual([slot, wrap]);
      expect(positionOf(slot, wrap, size)).toBe(position);
      const by = size < 100 ? 1 : size >> 3;
      expect(retreat(advance(position, by, size), by, size)).toBe(position);
      expect(distance(position, advance(position, by, size), size)).toBe(by);
      position = advance(position, by, size);
      slot += by;
      if (slot >= size) {
        slot -= size;
        wrap = !wrap;
      }
    }
    expect(Math.max(position, 2 * size - 1)).toBeLessThanOrEqual(65535);
  }
});

test('flags follow the wrap counter as section 2.8.1 says', () => {
  expect([availFlags(3, 4), availFlags(4, 4)]).toEqual([0x0080, 0x8000]);
  expect([usedFlags(3, 4), usedFlags(4, 4)]).toEqual([0x8080, 0]);
});

describe('an event suppression structure', () => {
  test('with DESC holds offset, wrap counter and flags in their places', () => {
    expect([eventAt(3, 4), eventAt(7, 4), eventAt(65535, 32768)]).toEqual([0x28003, 0x20003, 0x27fff]);
  });

  test('asks exactly when the awaited descriptor was passed', () => {
    for (const size of [1, 2, 3, 4, 7]) {
      for (let from = 0; from < 2 * size; from++) {
        for (let moved = 1; moved <= size; moved++) {
          for (let ahead = 0; ahead < 2 * size; ahead++) {
            const event = eventAt(advance(from, ahead, size), size);
            expect(wantsEvent(event, advance(from, moved, size), from, size, true)).toBe(ahead < moved);
          }
        }
      }
    }
  });

  test('with ENABLE, a reserved value, or DESC without EVENT_IDX always asks, with DISABLE never', () => {
    for (const eventIdx of [false, true]) {
      expect(wantsEvent(0x00008003, 3, 2, 4, eventIdx)).toBe(true);
      expect(wantsEvent(0x00018002, 3, 2, 4, eventIdx)).toBe(false);
      expect(wantsEvent(0x00030000, 3, 2, 4, eventIdx)).toBe(true);
      expect(wantsEvent(0xfff90000, 3, 2, 4, eventIdx)).toBe(false);
    }
    expect(wantsEvent(0x00028003, 3, 2, 4, false)).toBe(true);
    expect(wantsEvent(0x00028003, 3, 2, 4, true)).toBe(false);
  });
});

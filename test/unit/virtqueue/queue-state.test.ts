import { gpa } from '../../../lib/memory/address';
import { splitLayout } from '../../../lib/virtqueue/layout';
import { needEvent } from '../../../lib/virtqueue/need-event';
import { type QueueState, validateQueueState } from '../../../lib/virtqueue/queue-state';
import { TestMemory } from '../../helpers/ring-memory';

const memory = new TestMemory([{ gpa: 0x10000, size: 0x10000 }]);
const sound: QueueState = {
  size: 256,
  ready: true,
  descTable: gpa(0x10000),
  availRing: gpa(0x11000),
  usedRing: gpa(0x12000),
  nextAvail: 65535,
};

test('a sound state comes back as a copy with nothing else in it', () => {
  const state = { ...sound, more: 1 };
  expect(validateQueueState(state, memory, true)).toEqual(sound);
});

test.each<[string, object]>([
  ['size', { size: 0 }],
  ['size', { size: 255 }],
  ['size', { size: 65536 }],
  ['size', { size: Number.NaN }],
  ['size', { size: '256' }],
  ['ready', { ready: 1 }],
  ['nextAvail', { nextAvail: -1 }],
  ['nextAvail', { nextAvail: 65536 }],
  ['nextAvail', { nextAvail: 0.5 }],
  ['nextAvail', { nextAvail: undefined }],
  ['descTable', { descTable: 0x10008 }],
  ['descTable', { descTable: -16 }],
  ['descTable', { descTable: 2 ** 53 }],
  ['descTable', { descTable: 0x1f010 }],
  ['availRing', { availRing: 0x11001 }],
  ['availRing', { availRing: 0x1fe00 }],
  ['usedRing', { usedRing: 0x12002 }],
  ['usedRing', { usedRing: 0x1f7fc }],
])('a wrong %s is refused by name', (field, change) => {
  const state = { ...sound, ...change } as QueueState;
  expect(() => validateQueueState(state, memory, true)).toThrow(
    expect.objectContaining({ code: 'VHOST_ERR_RING', message: expect.stringContaining(field) }) as Error,
  );
});

test('EVENT_IDX needs two bytes more of both rings', () => {
  for (const change of [{ availRing: gpa(0x20000 - 4 - 512) }, { usedRing: gpa(0x20000 - 4 - 2048) }]) {
    expect(validateQueueState({ ...sound, ...change }, memory, false)).toMatchObject(change);
    expect(() => validateQueueState({ ...sound, ...change }, memory, true)).toThrow('one memory region');
  }
});

test('the parts of a ring do not overlap and are aligned', () => {
  for (let power = 0; power <= 15; power++) {
    for (const eventIdx of [false, true]) {
      const size = 2 ** power;
      const { desc, avail, used, bytes } = splitLayout(0x40, size, eventIdx);
      const tail = eventIdx ? 2 : 0;
      expect(desc).toBe(0x40);
      expect(avail).toBe(desc + 16 * size);
      expect(used).toBeGreaterThanOrEqual(avail + 4 + 2 * size + tail);
      expect(used % 4).toBe(0);
      expect(bytes).toBe(used + 4 + 8 * size + tail - desc);
    }
  }
  expect(() => splitLayout(8, 4, false)).toThrow('multiple of 16');
  expect(() => splitLayout(0, 12, false)).toThrow('power of two');
});

test('needEvent is true exactly when the awaited entry was passed', () => {
  for (const from of [0, 1, 65530, 65535]) {
    for (let moved = 0; moved < 10; moved++) {
      const to = (from + moved) & 0xffff;
      for (let ahead = -3; ahead < 13; ahead++) {
        expect(needEvent((from + ahead) & 0xffff, to, from)).toBe(ahead >= 0 && ahead < moved);
      }
    }
  }
});

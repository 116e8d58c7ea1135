/** Packed rings written by hand, as section 2.8 of virtio 1.4 has them. */
import { VRING_DESC_F_INDIRECT, VRING_DESC_F_NEXT, VRING_DESC_F_WRITE } from '../../../lib/constants/virtio-ring';
import {
  VRING_PACKED_DESC_F_AVAIL,
  VRING_PACKED_DESC_F_USED,
  VRING_PACKED_EVENT_FLAG_DESC,
  VRING_PACKED_EVENT_FLAG_DISABLE,
} from '../../../lib/constants/virtio-ring-packed';
import { gpa } from '../../../lib/memory/address';
import type { PackedPosition, QueueState } from '../../../lib/virtqueue/queue-state';
import type { InspectOptions, QueueInspection, Rule } from '../../../lib/virtqueue/ring-inspection';
import { inspectQueue } from '../../../lib/virtqueue/ring-inspector';
import { inspectionText } from '../../../lib/virtqueue/ring-inspector-text';
import { TestMemory } from '../../helpers/ring-memory';

const RING = 0x10000;
const DRIVER = 0x11000;
const DEVICE = 0x11004;
const TABLE = 0x12000;
const DATA = 0x18000;
const END = 0x20000;
const NEXT = VRING_DESC_F_NEXT;
const WRITE = VRING_DESC_F_WRITE;
const INDIRECT = VRING_DESC_F_INDIRECT;

const mark = (avail: boolean, used: boolean): number =>
  (avail ? 1 << VRING_PACKED_DESC_F_AVAIL : 0) | (used ? 1 << VRING_PACKED_DESC_F_USED : 0);
const available = (wrap: boolean): number => mark(wrap, !wrap);
const usedMark = (wrap: boolean): number => mark(wrap, wrap);

interface Position extends PackedPosition {
  nextAvail: number;
}
const START: Position = { nextAvail: 0, availWrap: true, nextUsed: 0, usedWrap: true };

class PackedRing {
  readonly memory = new TestMemory([{ gpa: RING, size: END - RING }]);

  constructor(readonly size = 6) {}

  describe(index: number, address: number, length: number, id: number, flags: number, table = RING): void {
    const view = this.memory.view(table + 16 * index, 16);
    view.setBigUint64(0, BigInt(address), true);
    view.setUint32(8, length, true);
    view.setUint16(12, id, true);
    view.setUint16(14, flags, true);
  }

  event(at: number, word: number, flags: number): void {
    const view = this.memory.view(at, 4);
    view.setUint16(0, word, true);
    view.setUint16(2, flags, true);
  }

  inspect(options: InspectOptions = {}, position: Position = START): QueueInspection {
    const { nextAvail, ...packed } = position;
    const state: QueueState = {
      size: this.size,
      ready: true,
      descTable: gpa(RING),
      availRing: gpa(DRIVER),
      usedRing: gpa(DEVICE),
      nextAvail,
      packed,
    };
    return inspectQueue(this.memory, state, options);
  }
}

const rules = ({ violations }: QueueInspection): Rule[] => violations.map(({ rule }) => rule);

test('an empty ring moves', () => {
  const inspection = new PackedRing().inspect({ role: 'transmit' });
  expect(inspection).toMatchObject({ format: 'packed', verdict: 'moves', violations: [], used: [], moving: false });
  expect(inspection.indexes).toMatchObject({ pending: 0, inFlight: 0, driverNext: 0 });
});

test('lists, an indirect table, and the id in the last descriptor', () => {
  const ring = new PackedRing();
  ring.describe(0, DATA, 12, 0, available(true) | NEXT);
  ring.describe(1, DATA + 64, 100, 5, available(true) | WRITE);
  ring.describe(2, TABLE, 32, 3, available(true) | INDIRECT);
  ring.describe(0, DATA, 10, 9, 0, TABLE);
  ring.describe(1, DATA, 20, 9, WRITE, TABLE);
  const { available: chains, violations, indexes } = ring.inspect();
  expect(violations).toEqual([]);
  expect(indexes).toMatchObject({ pending: 2, pendingDescriptors: 3, driverNext: 3 });
  expect(
    chains.map(({ position, id, readableBytes, writableBytes }) => [position, id, readableBytes, writableBytes]),
  ).toEqual([
    [0, 5, 12, 100],
    [2, 3, 10, 20],
  ]);
  expect(chains[0]!.descriptors.map(({ flags, next }) => [flags, next])).toEqual([
    [['NEXT'], 1],
    [['WRITE'], null],
  ]);
  expect(chains[1]!.descriptors.map(({ table, index }) => [table, index])).toEqual(
    [
      ['direct', 0],
      ['indirect', 0],
      ['indirect', 1],
    ].map(([table, index]) => [table, table === 'direct' ? 2 : index]),
  );
});

test('a lap later: used elements before, a list across the end of the ring', () => {
  const ring = new PackedRing();
  for (const index of [0, 1, 2]) ring.describe(index, DATA, 64, index, usedMark(true) | WRITE);
  ring.describe(3, DATA, 64, 3, available(true));
  ring.describe(4, DATA, 64, 4, available(true));
  ring.describe(5, DATA, 12, 0, available(true) | NEXT);
  ring.describe(0, DATA, 64, 6, available(false));
  const inspection = ring.inspect({}, { nextAvail: 4, availWrap: true, nextUsed: 3, usedWrap: true });
  expect(inspection.violations).toEqual([]);
  expect(inspection.indexes).toMatchObject({ pending: 2, pendingDescriptors: 3, inFlight: 1, driverNext: 1 });
  expect(inspection.used.map(({ position, id, length }) => [position, id, length])).toEqual([
    [1, 1, 64],
    [2, 2, 64],
  ]);
  expect(inspection.available.map(({ position, id }) => [position, id])).toEqual([
    [4, 4],
    [5, 6],
  ]);
});

const broken: [rule: Rule, write: (ring: PackedRing) => void, options: InspectOptions][] = [
  ['loop', (ring) => [0, 1, 2, 3, 4, 5].map((at) => ring.describe(at, DATA, 8, 0, available(true) | NEXT)), {}],
  ['unmarked-descriptor', (ring) => ring.describe(0, DATA, 8, 0, available(true) | NEXT), {}],
  ['zero-length', (ring) => ring.describe(0, DATA, 0, 0, available(true)), {}],
  ['outside-memory', (ring) => ring.describe(0, END - 4, 8, 0, available(true)), {}],
  ['indirect-length', (ring) => ring.describe(0, TABLE, 8, 0, available(true) | INDIRECT), {}],
  ['transmit-writable', (ring) => ring.describe(0, DATA, 8, 0, available(true) | WRITE), { role: 'transmit' }],
  ['duplicate-id', (ring) => [0, 1].map((at) => ring.describe(at, DATA, 8, 1, available(true))), {}],
  [
    'indirect-nested',
    (ring) => {
      ring.describe(0, TABLE, 16, 0, available(true) | INDIRECT);
      ring.describe(0, TABLE, 16, 0, INDIRECT, TABLE);
    },
    {},
  ],
  [
    'indirect-not-negotiated',
    (ring) => {
      ring.describe(0, TABLE, 16, 0, available(true) | INDIRECT);
      ring.describe(0, DATA, 16, 0, 0, TABLE);
    },
    { indirect: false },
  ],
  ['event-structure', (ring) => ring.event(DRIVER, 0, 3), { eventIdx: true }],
  ['event-structure', (ring) => ring.event(DEVICE, 0, VRING_PACKED_EVENT_FLAG_DESC), { eventIdx: false }],
  ['event-structure', (ring) => ring.event(DEVICE, 6, VRING_PACKED_EVENT_FLAG_DESC), { eventIdx: true }],
];

test.each(broken)('%s is named', (rule, write, options) => {
  const ring = new PackedRing();
  write(ring);
  const inspection = ring.inspect(options);
  expect(rules(inspection)).toEqual([rule]);
  expect(inspection.verdict).toBe('broken');
  expect(inspectionText(inspection)).toContain(rule);
});

test('positions that cannot be', () => {
  const ring = new PackedRing();
  expect(rules(ring.inspect({}, { ...START, nextUsed: 1 }))).toEqual(['used-ahead']);
  ring.describe(0, DATA, 8, 0, available(true));
  ring.describe(1, DATA, 8, 1, available(true));
  expect(rules(ring.inspect({}, { ...START, nextAvail: 3 }))).toEqual(['position']);
  expect(rules(ring.inspect({ running: true }, { ...START, nextAvail: 3 }))).toEqual([]);
  expect(() => ring.inspect({}, { ...START, nextAvail: 6 })).toThrow('nextAvail 6');
});

test.each<[string, number, number, RegExp]>([
  ['DISABLE', 0, VRING_PACKED_EVENT_FLAG_DISABLE, /asked for no kicks/],
  ['ENABLE', 0, 0, /asks for every kick/],
  ['DESC passed', 4 | 0x8000, VRING_PACKED_EVENT_FLAG_DESC, /passed event 4, so a kick was due/],
  ['DESC not reached', 1, VRING_PACKED_EVENT_FLAG_DESC, /without reaching event 1/],
  ['DESC behind', 3 | 0x8000, VRING_PACKED_EVENT_FLAG_DESC, /event 3 is behind/],
  ['DESC behind in the lap before', 5, VRING_PACKED_EVENT_FLAG_DESC, /event 5 is behind/],
])('device event structure: %s', (_, word, flags, words) => {
  const ring = new PackedRing();
  for (let at = 0; at < 4; at++) ring.describe(at, DATA, 8, at, usedMark(true));
  ring.describe(4, DATA, 8, 4, available(true));
  ring.describe(5, DATA, 8, 5, available(true));
  ring.event(DEVICE, word, flags);
  const position = { nextAvail: 4, availWrap: true, nextUsed: 4, usedWrap: true };
  const inspection = ring.inspect({ role: 'transmit', eventIdx: true }, position);
  expect(inspection.violations).toEqual([]);
  expect(inspection.diagnosis[0]).toMatch(words);
});

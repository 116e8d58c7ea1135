import { VRING_DESC_F_INDIRECT, VRING_DESC_F_NEXT, VRING_DESC_F_WRITE } from '../../../lib/constants/virtio-ring';
import { gpa } from '../../../lib/memory/address';
import { splitLayout } from '../../../lib/virtqueue/layout';
import type { InspectOptions, QueueInspection, Rule } from '../../../lib/virtqueue/ring-inspection';
import { inspectQueue } from '../../../lib/virtqueue/ring-inspector';
import { inspectionText } from '../../../lib/virtqueue/ring-inspector-text';
import { DATA, type Descriptor, END, InspectedRing, RINGS, TABLES } from '../../helpers/inspected-ring';
import { TestMemory } from '../../helpers/ring-memory';

const NEXT = VRING_DESC_F_NEXT;
const WRITE = VRING_DESC_F_WRITE;
const INDIRECT = VRING_DESC_F_INDIRECT;

const rules = ({ violations }: QueueInspection): Rule[] => violations.map(({ rule }) => rule);

test('a chain is listed as its driver wrote it', () => {
  const ring = new InspectedRing();
  ring.driver.chainBegin(3);
  ring.driver.chainAdd(DATA, 0, 12, false);
  ring.driver.chainAdd(DATA + 0x100, 0, 100, false);
  ring.driver.chainAdd(DATA - 8, 0, 16, true);
  ring.driver.chainEnd();
  ring.driver.post(DATA + 0x200, 0, 64, true);
  ring.driver.publish();
  const inspection = ring.inspect();
  expect(inspection).toMatchObject({ format: 'split', size: 8, ready: true, moving: false, violations: [] });
  expect(inspection.indexes).toMatchObject({ availIdx: 2, usedIdx: 0, nextAvail: 0, pending: 2, inFlight: 0 });
  expect(inspection.available).toEqual([
    {
      position: 0,
      id: 0,
      readableBytes: 112,
      writableBytes: 16,
      whole: true,
      descriptors: [
        {
          index: 0,
          gpa: `0x${TABLES.toString(16)}`,
          length: 48,
          flags: ['INDIRECT'],
          next: null,
          place: { region: `0x${RINGS.toString(16)}`, offset: TABLES - RINGS },
          table: 'direct',
        },
        {
          index: 0,
          gpa: '0x20000',
          length: 12,
          flags: ['NEXT'],
          next: 1,
          place: { region: '0x20000', offset: 0 },
          table: 'indirect',
        },
        expect.objectContaining({ index: 1, gpa: '0x20100', length: 100, next: 2 }),
        // It crosses into the region behind.
        expect.objectContaining({
          index: 2,
          gpa: '0x1fff8',
          flags: ['WRITE'],
          place: { region: '0x10000', offset: 0xfff8 },
        }),
      ],
    },
    expect.objectContaining({ position: 1, id: 1, readableBytes: 0, writableBytes: 64 }),
  ]);
  expect(JSON.parse(JSON.stringify(inspection))).toEqual(inspection);
});

test('a limit bounds what is listed, not what is checked', () => {
  const ring = new InspectedRing();
  for (let at = 0; at < 7; at++) ring.driver.post(DATA, 0, 64, false);
  ring.driver.post(END, 0, 64, false);
  ring.driver.publish();
  const inspection = ring.inspect({ limit: 2 });
  expect(inspection.available).toHaveLength(2);
  expect(inspection.indexes.pending).toBe(8);
  expect(inspection.violations).toEqual([expect.objectContaining({ rule: 'outside-memory', section: '2.7.5' })]);
  expect(inspectionText(inspection)).toContain('  and 6 more');
});

test('used elements, the last four', () => {
  const ring = new InspectedRing();
  for (let at = 0; at < 6; at++) ring.driver.post(DATA, 0, 64, true);
  ring.driver.publish();
  const device = ring.device();
  for (let at = 0; at < 5; at++) device.push(device.pop(), 10 + at);
  device.pop();
  device.publish();
  const inspection = ring.inspect({}, { nextAvail: 6 });
  expect(inspection.used).toEqual([1, 2, 3, 4].map((at) => ({ position: at, id: at, length: 10 + at })));
  expect(inspection.indexes).toMatchObject({ pending: 0, inFlight: 1 });
  expect(inspection.diagnosis).toEqual(['moves: the device is at work on what it has taken']);
});

test('indexes that wrapped at 65536', () => {
  const ring = new InspectedRing();
  ring.describe(Array.from({ length: 8 }, () => [DATA, 64, 0] as Descriptor));
  ring.offer([0, 1, 2, 3, 4, 5, 6, 7], 2);
  ring.setUsed(1, 65534);
  const { indexes, available, violations } = ring.inspect({}, { nextAvail: 65535 });
  expect(indexes).toMatchObject({ pending: 3, inFlight: 1 });
  expect(available.map(({ position, id }) => [position, id])).toEqual([
    [65535, 7],
    [0, 0],
    [1, 1],
  ]);
  expect(violations).toEqual([]);
});

const LOOP: Descriptor[] = [
  [DATA, 64, NEXT, 1],
  [DATA, 64, NEXT, 0],
];

const broken: [rule: Rule, chain: Descriptor[], options: InspectOptions, words: string][] = [
  ['loop', LOOP, {}, 'available index 0, head 0: the chain loops at descriptor 0: the device stops here'],
  ['next-range', [[DATA, 64, NEXT, 8]], {}, 'descriptor 0: next is 8: the device stops here'],
  ['zero-length', [[DATA, 0, 0]], {}, 'takes the chain and never uses it'],
  ['outside-memory', [[END, 64, 0]], {}, 'lies outside guest memory: vhost reports an error event'],
  ['outside-memory', [[END - 32, 64, 0]], {}, 'retries at the next kick'],
  ['outside-memory', [[2n ** 64n - 64n, 128, 0]], {}, '0xffffffffffffffc0'],
  ['outside-memory', [[DATA, 0xffffffff, WRITE]], {}, 'with 4294967295 bytes'],
  ['outside-memory', [[END, 16, INDIRECT]], {}, 'the indirect table at 0x30000'],
  ['indirect-not-negotiated', [[TABLES, 16, INDIRECT]], { indirect: false }, 'INDIRECT: the device stops here'],
  ['indirect-with-next', [[TABLES, 16, INDIRECT | NEXT, 1]], {}, 'INDIRECT and NEXT'],
  ['indirect-length', [[TABLES, 24, INDIRECT]], {}, 'an indirect table of 24 bytes'],
  ['indirect-length', [[TABLES, 0, INDIRECT]], {}, 'an indirect table of 0 bytes'],
  [
    'readable-behind-writable',
    [
      [DATA, 64, WRITE | NEXT, 1],
      [DATA, 64, 0],
    ],
    {},
    'a readable buffer behind a writable one',
  ],
  ['transmit-writable', [[DATA, 64, WRITE]], { role: 'transmit' }, 'a writable buffer on a transmit queue'],
  ['receive-readable', [[DATA, 64, 0]], { role: 'receive' }, 'a readable buffer on a receive queue'],
  ['control-no-status', [[DATA, 64, 0]], { role: 'control' }, 'a command without a writable byte'],
];

test.each(broken)('%s is named', (rule, chain, options, words) => {
  const ring = new InspectedRing();
  ring.describe([[DATA, 64, WRITE]], TABLES);
  ring.describe(chain);
  ring.offer([0]);
  const inspection = ring.inspect(options);
  expect(rules(inspection)).toEqual([rule]);
  expect(inspection.verdict).toBe('broken');
  expect(inspection.diagnosis[0]).toContain(words);
  expect(inspection.violations[0]!.section).toMatch(/^(2\.7|5\.1\.6)/);
  const text = inspectionText(inspection);
  expect(text).toContain(`${rule} (virtio 1.4 section `);
  // The same chain is none of its business once it was taken and used.
  ring.setUsed(1, 1);
  expect(ring.inspect(options, { nextAvail: 1 }).violations).toEqual([]);
});

const tables: [rule: Rule, table: Descriptor[]][] = [
  ['loop', LOOP],
  ['next-range', [[DATA, 64, NEXT, 2]]],
  ['indirect-nested', [[TABLES, 32, INDIRECT]]],
  ['outside-memory', [[END, 64, 0]]],
  ['zero-length', [[DATA, 0, 0]]],
];

test.each(tables)('%s in an indirect table is named', (rule, table) => {
  const ring = new InspectedRing();
  ring.describe(table, TABLES);
  ring.describe([[TABLES, 32, INDIRECT]]);
  ring.offer([0]);
  expect(rules(ring.inspect())).toEqual([rule]);
});

test('chains that share heads or descriptors', () => {
  const ring = new InspectedRing();
  ring.describe([
    [DATA, 64, NEXT, 2],
    [DATA, 64, NEXT, 2],
    [DATA, 64, 0],
  ]);
  ring.offer([0, 0, 1, 9]);
  expect(rules(ring.inspect())).toEqual(['duplicate-id', 'shared-descriptor', 'head-range']);
});

test('a chain behind a broken one waits', () => {
  const ring = new InspectedRing();
  ring.describe([...LOOP, [DATA, 64, 0], [DATA, 64, 0]]);
  ring.offer([2, 0, 3]);
  const { diagnosis } = ring.inspect({ role: 'transmit' });
  expect(diagnosis[0]).toMatch(
    /index 1, head 0: the chain loops at descriptor 0: .*error eventfd.*; 1 chain waits behind it$/,
  );
});

test.each<[string, (ring: InspectedRing) => void, Rule, string]>([
  [
    'an available index too far ahead',
    (ring) => ring.setAvail(1, 9),
    'index-distance',
    'available index 9, used index 0',
  ],
  ['a used index ahead', (ring) => ring.setUsed(1, 1), 'used-ahead', 'available index 0, used index 1'],
])('%s', (_, plant, rule, words) => {
  const ring = new InspectedRing();
  plant(ring);
  const inspection = ring.inspect();
  expect(rules(inspection)).toContain(rule);
  expect(inspection.diagnosis[0]).toContain(words);
  expect(inspection.available).toEqual([]);
});

test('a used id that no descriptor has', () => {
  const ring = new InspectedRing();
  ring.setUsed(2, 8);
  ring.setUsed(1, 1);
  ring.setAvail(1, 1);
  const inspection = ring.inspect({}, { nextAvail: 1 });
  expect(inspection.violations).toEqual([
    {
      rule: 'used-id-range',
      section: '2.7.8',
      where: 'used index 0',
      found: 'id 8',
      expected: 'below 8, the queue size',
    },
  ]);
  expect(inspection.verdict).toBe('broken');
});

test('a position outside the ring is a violation, unless a running device may have left it behind', () => {
  const ring = new InspectedRing();
  for (let at = 0; at < 5; at++) ring.driver.post(DATA, 0, 64, false);
  ring.driver.publish();
  ring.setUsed(1, 3);
  expect(rules(ring.inspect())).toEqual(['position']);
  const { violations, indexes, available } = ring.inspect({ running: true });
  expect(violations).toEqual([]);
  expect(indexes).toMatchObject({ nextAvail: 3, nextAvailFrom: 'used index', pending: 2, inFlight: 0 });
  expect(available.map(({ position }) => position)).toEqual([3, 4]);
});

test.each<[string, object, Rule]>([
  ['outside', { usedRing: gpa(END) }, 'ring-outside-memory'],
  ['across two regions', { descTable: gpa(DATA - 16) }, 'ring-outside-memory'],
  ['misaligned', { descTable: gpa(RINGS + 8) }, 'alignment'],
  ['at an odd address', { availRing: gpa(RINGS + 0x81) }, 'alignment'],
  ['of seven entries', { size: 7 }, 'queue-size'],
])('a ring %s', (_, change, rule) => {
  const inspection = new InspectedRing().inspect({}, change);
  expect(rules(inspection)).toContain(rule);
  expect(inspection.verdict).toBe('broken');
  expect(inspectionText(inspection)).toContain(rule);
});

describe('why it does not move', () => {
  const waiting = (eventIdx: boolean, count = 3): InspectedRing => {
    const ring = new InspectedRing(8, eventIdx);
    for (let at = 0; at < count; at++) ring.driver.post(DATA, 0, 64, false);
    ring.driver.publish();
    return ring;
  };

  test('not ready, or nobody runs', () => {
    const ring = new InspectedRing();
    expect(ring.inspect({}, { ready: false }).diagnosis[0]).toMatch(/^the queue is not ready/);
    expect(ring.inspect({ running: false }).diagnosis[0]).toMatch(/^no device runs/);
  });

  test('a receive queue without buffers', () => {
    const inspection = new InspectedRing().inspect({ role: 'receive' });
    expect(inspection.verdict).toBe('stands');
    expect(inspection.diagnosis[0]).toBe('the driver has made nothing available: a receive queue needs buffers');
  });

  test('a healthy queue', () => {
    expect(new InspectedRing().inspect({ role: 'transmit' })).toMatchObject({
      verdict: 'moves',
      diagnosis: ['moves: nothing waits'],
    });
    const ring = new InspectedRing();
    ring.driver.post(DATA, 0, 64, true);
    ring.driver.publish();
    expect(ring.inspect({ role: 'receive' })).toMatchObject({
      verdict: 'moves',
      diagnosis: ['moves: its buffers wait for frames'],
    });
  });

  test.each<[string, boolean, (ring: InspectedRing) => void, RegExp]>([
    ['no kicks asked for', false, (ring) => ring.device().disableKicks(), /3 chains wait.*asked for no kicks.*sleeps/],
    ['a kick was due, by the flag', false, () => undefined, /asks for every kick, so one was due/],
    ['a kick was due, by the event', true, () => undefined, /passed event 0, so a kick was due/],
    [
      'the event lies behind',
      true,
      (ring) => ring.setUsed(34, 65531),
      /not to expect a kick \(event 65531 is behind\)/,
    ],
    ['the event was not reached', true, (ring) => ring.setUsed(34, 5), /without reaching event 5, so no kick was due/],
  ])('%s', (_, eventIdx, prepare, words) => {
    const ring = waiting(eventIdx);
    prepare(ring);
    const inspection = ring.inspect({ role: 'transmit', running: true });
    expect(inspection.verdict).toBe('stands');
    expect(inspection.diagnosis[0]).toMatch(words);
  });

  test('the kick eventfd says whether the driver kicked', () => {
    const ring = waiting(true);
    expect(ring.inspect({ kicks: 0 }).diagnosis[1]).toBe('the kick eventfd counts 0: no kick waits to be read');
    expect(ring.inspect({ kicks: 2 }).diagnosis[1]).toMatch(/counts 2/);
  });

  test('buffers that are too few for a frame', () => {
    const ring = waiting(true, 2);
    ring.describe([
      [DATA, 64, WRITE],
      [DATA, 64, WRITE],
    ]);
    expect(ring.device().enableKicksForMore()).toBe(false);
    expect(ring.inspect({ role: 'receive' }).diagnosis[0]).toMatch(/left 2 chains untaken.*needs more buffers/);
  });

  test.each([false, true])('used chains and a driver that asked not to be called (EVENT_IDX %s)', (eventIdx) => {
    const ring = waiting(eventIdx);
    ring.driver.disableCalls();
    const device = ring.device();
    for (let at = 0; at < 3; at++) device.push(device.pop(), 0);
    device.publish();
    const { diagnosis, indexes } = ring.inspect({ role: 'transmit', usedSeen: 0, calls: 0 }, { nextAvail: 3 });
    expect(indexes).toMatchObject({ usedWaiting: 3, usedWaitingFrom: 'driver' });
    expect(diagnosis[0]).toMatch(/has 3 used chains to take back and asked not to be called/);
    ring.driver.enableCalls();
    const called = ring.inspect({ role: 'transmit', usedSeen: 0, calls: 1 }, { nextAvail: 3 });
    expect(called.diagnosis).toEqual([
      'the driver has 3 used chains to take back, and a call was due',
      'the call eventfd counts 1: the driver was called and has not read it',
    ]);
    // A driver that has taken them all back is healthy.
    expect(ring.inspect({ role: 'transmit', usedSeen: 3 }, { nextAvail: 3 }).verdict).toBe('moves');
  });

  test('an event index hints at what the driver has to take back', () => {
    const ring = waiting(true);
    ring.describe(Array.from({ length: 3 }, () => [DATA, 64, WRITE] as Descriptor));
    ring.driver.enableCalls();
    const device = ring.device();
    for (let at = 0; at < 3; at++) device.push(device.pop(), 64);
    device.publish();
    const { indexes, diagnosis } = ring.inspect({ role: 'receive', calls: 1 }, { nextAvail: 3 });
    expect(indexes).toMatchObject({ usedWaiting: 3, usedWaitingFrom: 'used_event' });
    expect(diagnosis).toEqual([
      'the driver has made nothing available: a receive queue needs buffers',
      'all chains were used, of which the driver has up to 3 to take back: used_event 0 is passed',
      'the call eventfd counts 1: the driver was called and has not read it',
    ]);
  });
});

test('nothing is written, whatever is looked at', () => {
  const ring = new InspectedRing();
  ring.describe(LOOP);
  ring.offer([0, 1, 9]);
  const before = ring.memory.clone();
  ring.inspect();
  for (const [index, { u8 }] of ring.memory.regions.entries()) expect(u8).toEqual(before.regions[index]!.u8);
});

test('a queue that is used while it is read says so, and accuses nobody', () => {
  const ring = new InspectedRing();
  ring.describe(LOOP);
  // Whoever looks at the descriptor table finds the index moved: the loop was used already.
  const { memory } = ring;
  let used = 0;
  const moving = {
    regionOf(at: number, length: number) {
      if (at === ring.layout.desc) ring.setUsed(1, ++used);
      ring.offer([0], used + 1);
      return memory.regionOf(at, length);
    },
  };
  const inspection = inspectQueue(moving, ring.state, { running: true });
  expect(inspection).toMatchObject({ moving: true, verdict: 'moves', violations: [] });
  expect(inspection.diagnosis).toEqual(['the queue moves: its indexes changed while it was read']);
  expect(used).toBe(5);
});

test('the largest queue with the longest chains is read soon', () => {
  const size = 32768;
  const table = 0x200000;
  const entries = 65536;
  const memory = new TestMemory([{ gpa: 0, size: table + 16 * entries }]);
  const { desc, avail, used } = splitLayout(0, size, false);
  const describe = (at: number, address: number, length: number, flagsAndNext: number): void => {
    const view = memory.view(at, 16);
    view.setUint32(0, address, true);
    view.setUint32(8, length, true);
    view.setUint32(12, flagsAndNext, true);
  };
  for (let at = 0; at < entries; at++) describe(table + 16 * at, 0, 0, NEXT | (((at + 1) & 0xffff) << 16));
  for (let at = 0; at < size; at++) {
    describe(desc + 16 * at, table, 16 * entries, INDIRECT);
    memory.view(avail + 4 + 2 * at, 2).setUint16(0, at, true);
  }
  memory.view(avail + 2, 2).setUint16(0, size, true);
  const state = { size, ready: true, descTable: gpa(desc), availRing: gpa(avail), usedRing: gpa(used), nextAvail: 0 };
  const begin = performance.now();
  const inspection = inspectQueue(memory, state, { limit: size });
  expect(performance.now() - begin).toBeLessThan(10_000);
  expect(inspection.available).toHaveLength(size);
  expect(inspection.available.at(-1)).toMatchObject({ whole: false });
  expect(inspection.violations).toHaveLength(64);
  expect(inspection.moreViolations).toBeGreaterThan(60_000);
});

test.each<[string, object, InspectOptions]>([
  ['size', { size: 0 }, {}],
  ['size', { size: 65536 }, {}],
  ['nextAvail', { nextAvail: 65536 }, {}],
  ['descTable', { descTable: -16 }, {}],
  ['usedRing', { usedRing: 2 ** 53 }, {}],
  ['ready', { ready: 1 }, {}],
  ['limit', {}, { limit: -1 }],
  ['usedSeen', {}, { usedSeen: 65536 }],
])('%s that cannot be is refused', (name, change, options) => {
  expect(() => new InspectedRing().inspect(options, change)).toThrow(
    expect.objectContaining({
      code: 'VHOST_ERR_INVALID_ARGUMENT',
      message: expect.stringContaining(name) as string,
    }) as Error,
  );
});

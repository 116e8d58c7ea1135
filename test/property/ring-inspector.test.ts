/** Whatever lies in memory, an inspection ends, throws nothing, writes nothing and is plain data; on a sound ring it accuses nobody. */
import * as fc from 'fast-check';
import { gpa } from '../../lib/memory/address';
import type { QueueState } from '../../lib/virtqueue/queue-state';
import type { QueueInspection } from '../../lib/virtqueue/ring-inspection';
import { inspectQueue } from '../../lib/virtqueue/ring-inspector';
import { inspectionText } from '../../lib/virtqueue/ring-inspector-text';
import { DATA, InspectedRing } from '../helpers/inspected-ring';
import { TestMemory } from '../helpers/ring-memory';

const BASE = 0x1000;
const PAGE = 0x1000;

/** Words that rings are made of, and any word. */
const halfword = fc.oneof(fc.nat(20), fc.constantFrom(0x80, 0x81, 0x84, 0x8000, 0x8080, 0x1000, 0x2000), fc.nat(65535));

const address = fc.oneof(
  { weight: 9, arbitrary: fc.nat(0x2800).map((at) => (BASE + at) & ~15) },
  { weight: 1, arbitrary: fc.integer({ min: 0, max: Number.MAX_SAFE_INTEGER - 2 ** 20 }) },
);

const queue = fc.integer({ min: 1, max: 40 }).chain((size) =>
  fc.record({
    size: fc.oneof(fc.constant(size), fc.constantFrom(1, 8, 16, 32)),
    ready: fc.boolean(),
    descTable: address,
    availRing: address,
    usedRing: address,
    position: fc.nat(65535),
    /** Where a sound queue would have them, or anywhere. */
    placed: fc.boolean(),
    /** Written to the ring as indexes that can be, or null for whatever lies there. */
    indexes: fc.option(fc.record({ used: fc.nat(65535), inFlight: fc.nat(4), pending: fc.nat(16) }), { freq: 3 }),
    packed: fc.option(fc.record({ availWrap: fc.boolean(), nextUsed: fc.nat(65535), usedWrap: fc.boolean() }), {
      freq: 1,
    }),
  }),
);

const options = fc.record({
  eventIdx: fc.boolean(),
  indirect: fc.boolean(),
  role: fc.constantFrom('receive' as const, 'transmit' as const, 'control' as const, undefined),
  running: fc.option(fc.boolean(), { nil: undefined }),
  usedSeen: fc.option(fc.nat(65535), { nil: undefined }),
  kicks: fc.option(fc.nat(3), { nil: undefined }),
  calls: fc.option(fc.nat(3), { nil: undefined }),
  limit: fc.nat(40),
});

function plant(memory: TestMemory, at: number, value: number): void {
  try {
    memory.view(at, 2).setUint16(0, value & 0xffff, true);
  } catch {
    // The ring lies elsewhere.
  }
}

function memoryOf(words: readonly number[]): TestMemory {
  const memory = new TestMemory([
    { gpa: BASE, size: PAGE },
    { gpa: BASE + PAGE, size: PAGE },
    { gpa: 4 * PAGE, size: 0x80 },
  ]);
  for (const { u8 } of memory.regions) {
    const target = new Uint16Array(u8.buffer);
    for (let at = 0; at < target.length; at++) target[at] = words[at % words.length]!;
  }
  return memory;
}

test('random memory', () => {
  const seen = { chains: 0, violations: 0 };
  void fc.assert(
    fc.property(fc.array(halfword, { minLength: 8, maxLength: 600 }), queue, options, (words, shape, chosen) => {
      const memory = memoryOf(words);
      const { position, packed, indexes, placed, ...rest } = shape;
      if (placed) Object.assign(rest, { descTable: 0x1100, availRing: 0x1800, usedRing: 0x1c00 });
      let nextAvail = packed === null ? position : position % rest.size;
      if (packed === null && indexes !== null) {
        nextAvail = (indexes.used + indexes.inFlight) & 0xffff;
        plant(memory, rest.usedRing + 2, indexes.used);
        plant(memory, rest.availRing + 2, nextAvail + indexes.pending);
      }
      const before = memory.clone();
      const state: QueueState = {
        ...rest,
        descTable: gpa(rest.descTable),
        availRing: gpa(rest.availRing),
        usedRing: gpa(rest.usedRing),
        nextAvail,
        ...(packed === null ? {} : { packed: { ...packed, nextUsed: packed.nextUsed % rest.size } }),
      };
      const inspection = inspectQueue(memory, state, chosen);
      if (inspectionText(inspection).length === 0 || inspection.diagnosis.length === 0) throw new Error('no word');
      if (inspection.available.length > chosen.limit) throw new Error('more than the limit');
      if (inspection.moving) throw new Error('nothing moved');
      JSON.parse(JSON.stringify(inspection));
      seen.chains += inspection.available.length;
      if (inspection.violations.length > 0) seen.violations++;
      for (const [index, { u8 }] of memory.regions.entries()) {
        if (Buffer.compare(u8, before.regions[index]!.u8) !== 0) throw new Error('an inspection wrote to memory');
      }
    }),
    { numRuns: 3000 },
  );
  expect(seen.chains).toBeGreaterThan(2000);
  expect(seen.violations).toBeGreaterThan(1000);
});

type Step = { kind: 'post' | 'chain' | 'publish' | 'take' | 'use' | 'reap' | 'ask' | 'askDevice'; count: number };
const step: fc.Arbitrary<Step> = fc.record({
  kind: fc.constantFrom('post', 'chain', 'publish', 'take', 'use', 'reap', 'ask', 'askDevice'),
  count: fc.integer({ min: 1, max: 6 }),
});

/** What a driver and a device that keep the rules leave in memory after every step. */
test('a sound ring', () => {
  let looks = 0;
  void fc.assert(
    fc.property(fc.boolean(), fc.array(step, { maxLength: 60 }), (eventIdx, steps) => {
      const ring = new InspectedRing(16, eventIdx);
      const { driver } = ring;
      const device = ring.device();
      const taken: number[] = [];
      const ids = new Uint16Array(16);
      const lengths = new Uint32Array(16);
      let published = 0;
      let made = 0;
      for (const { kind, count } of steps) {
        if (kind === 'post' && driver.post(DATA, 0, 64, false) >= 0) made++;
        if (kind === 'chain' && driver.chainBegin(count) >= 0) {
          for (let at = 0; at < count; at++) driver.chainAdd(DATA + 64 * at, 0, 64, false);
          driver.chainEnd();
          made++;
        }
        if (kind === 'publish') {
          driver.publish();
          published = made;
        }
        for (let at = 0; at < count; at++) {
          if (kind === 'take') {
            const id = device.pop();
            if (id >= 0) taken.push(id);
          }
          if (kind === 'use' && taken.length > 0) device.push(taken.shift()!, 0);
        }
        if (kind === 'use') device.publish();
        if (kind === 'reap') driver.reap(count, ids, lengths);
        if (kind === 'ask') (count > 3 ? () => driver.enableCalls() : () => driver.disableCalls())();
        if (kind === 'askDevice') (count > 3 ? () => device.enableKicks() : () => device.disableKicks())();
        const inspection: QueueInspection = ring.inspect({ role: 'transmit' }, { nextAvail: device.nextAvail });
        if (inspection.violations.length > 0) throw new Error(JSON.stringify(inspection.violations));
        const { pending, inFlight } = inspection.indexes;
        if (inFlight !== taken.length) throw new Error(`${inFlight} in flight of ${taken.length}`);
        if (pending !== ((published - device.nextAvail) & 0xffff)) throw new Error(`${pending} pending`);
        if ((inspection.verdict === 'moves') !== (pending === 0)) {
          throw new Error(`${inspection.verdict} with ${pending} pending`);
        }
        looks++;
      }
    }),
    { numRuns: 500 },
  );
  expect(looks).toBeGreaterThan(2000);
});

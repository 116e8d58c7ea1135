import * as fc from 'fast-check';
import { encodeFrame, frameArea } from '../../../lib/net/test-frame';
import {
  FrameLedger,
  LEDGER_CORRUPTED,
  LEDGER_DUPLICATED,
  LEDGER_FOREIGN,
  LEDGER_RECEIVED,
  LEDGER_REORDERED,
  LEDGER_STALE,
} from '../../../lib/observe/frame-ledger';
import { ByteLog, TestMemory } from '../../helpers/ring-memory';

const area = frameArea(new Uint8Array(64));
const ADDRESSES = new Uint8Array(12);

function arrive(ledger: FrameLedger, sequence: number, micros = 0, flow = 9): number {
  encodeFrame(area, 0, 64, flow, sequence, 0, ADDRESSES, 0, 6);
  return ledger.account(area, 0, 64, micros);
}

test('what came in order is received, and nothing is lost', () => {
  const ledger = FrameLedger.create({ flow: 9 });
  for (let sequence = 0; sequence < 1000; sequence++) expect(arrive(ledger, sequence)).toBe(LEDGER_RECEIVED);
  expect(ledger.report(1000)).toEqual({
    sent: 1000,
    received: 1000,
    lost: 0,
    duplicated: 0,
    reordered: 0,
    corrupted: 0,
  });
  expect([ledger.first, ledger.highest, ledger.bytes]).toEqual([0, 999, 64_000]);
  expect(ledger.lostSequences(10, 1000)).toEqual([]);
});

test('a dropped, a doubled, a late, a corrupted and a foreign frame are each found and named', () => {
  const ledger = FrameLedger.create({ flow: 9 });
  for (const sequence of [0, 1, 3, 4]) arrive(ledger, sequence);
  expect(arrive(ledger, 3)).toBe(LEDGER_DUPLICATED);
  expect(arrive(ledger, 2)).toBe(LEDGER_REORDERED);
  expect(arrive(ledger, 2)).toBe(LEDGER_DUPLICATED);
  encodeFrame(area, 0, 64, 9, 5, 0, ADDRESSES, 0, 6);
  area.u8[50]! ^= 4;
  expect(ledger.account(area, 0, 64, 0)).toBe(LEDGER_CORRUPTED);
  expect(arrive(ledger, 0, 0, 8)).toBe(LEDGER_FOREIGN);
  expect(ledger.account(frameArea(new Uint8Array(64)), 0, 64, 0)).toBe(LEDGER_FOREIGN);
  arrive(ledger, 7);
  expect(ledger.report(10)).toEqual({ sent: 10, received: 6, lost: 4, duplicated: 2, reordered: 1, corrupted: 1 });
  expect(ledger.foreign).toBe(2);
  expect(ledger.lostSequences(10, 10)).toEqual([5, 6, 8, 9]);
  expect(ledger.lostSequences(2, 10)).toEqual([5, 6]);
  expect(ledger.lostSequences(10)).toEqual([5, 6]);
});

test('the account goes on when it is opened again from its bytes', () => {
  const bytes = new Uint8Array(FrameLedger.bytes(100));
  arrive(FrameLedger.create({ flow: 9, capacity: 100 }, bytes), 4, 5);
  const opened = FrameLedger.open(bytes.slice());
  expect([opened.flow, opened.capacity, opened.first, opened.received]).toEqual([9, 128, 4, 1]);
  expect(arrive(opened, 4, 20)).toBe(LEDGER_DUPLICATED);
  expect(opened.longestGap()).toEqual({ start: 5, length: 15 });
  expect(() => FrameLedger.open(new Uint8Array(bytes.length))).toThrow('no frame ledger');
  expect(() => FrameLedger.open(bytes.slice(0, 408))).toThrow('no frame ledger');
  expect(() => FrameLedger.open(new Uint8Array(8))).toThrow('no frame ledger');
});

test('the newest sequences are told apart; older ones are stale and stay lost', () => {
  const ledger = FrameLedger.create({ flow: 9, capacity: 64 });
  for (let sequence = 0; sequence < 200; sequence++) if (sequence % 10 !== 3) arrive(ledger, sequence);
  expect(arrive(ledger, 193)).toBe(LEDGER_REORDERED);
  expect(arrive(ledger, 183)).toBe(LEDGER_REORDERED);
  expect(arrive(ledger, 183)).toBe(LEDGER_DUPLICATED);
  expect(arrive(ledger, 135)).toBe(LEDGER_STALE);
  expect(arrive(ledger, 136)).toBe(LEDGER_DUPLICATED);
  expect(ledger.lostSequences(10, 200)).toEqual([143, 153, 163, 173]);
  expect(ledger.report(200)).toMatchObject({ received: 182, lost: 18 });
  expect(ledger.stale).toBe(1);
  arrive(ledger, 100_000);
  expect(ledger.lostSequences(100, 100_001)).toHaveLength(63);
  expect(arrive(ledger, 4_294_967_295)).toBe(LEDGER_RECEIVED);
});

test('gaps are kept longest first, with the time they began', () => {
  const ledger = FrameLedger.create({ flow: 9 });
  expect(ledger.longestGap()).toBeNull();
  let now = 1000;
  for (let sequence = 0; sequence < 400; sequence++) {
    arrive(ledger, sequence, now);
    now += sequence === 200 ? 90_000 : sequence === 100 ? 50_000 : 10 + (sequence % 7);
  }
  const gaps = ledger.gaps();
  expect(gaps).toHaveLength(16);
  expect(gaps[0]!.length).toBe(90_000);
  expect(gaps[1]!.length).toBe(50_000);
  expect(gaps[0]!.start).toBeGreaterThan(gaps[1]!.start);
  expect(Math.min(...gaps.map(({ length }) => length))).toBe(16);
  arrive(ledger, 400, 10);
  arrive(ledger, 401, 20);
  expect(ledger.longestGap()!.length).toBe(90_000);
});

test('every byte it writes is told to the log', () => {
  const memory = new TestMemory([{ gpa: 0x10000, size: 0x4000 }]);
  const log = new ByteLog(memory);
  const place = { log, gpa: 0x10400 };
  const ledger = FrameLedger.create({ flow: 9, capacity: 128 }, memory.bytes(0x10400, FrameLedger.bytes(128)), place);
  expect(log.takeMissed()).toEqual([]);
  for (const [at, sequence] of [0, 1, 5, 5, 3, 300, 301, 299, 900, 10].entries()) {
    arrive(ledger, sequence, at * at);
    expect(log.takeMissed()).toEqual([]);
  }
  arrive(ledger, 0, 0, 1);
  expect(log.takeMissed()).toEqual([]);
});

test('any order of arrival is accounted as a set and a maximum would', () => {
  void fc.assert(
    fc.property(fc.array(fc.nat(300), { maxLength: 200 }), (sequences) => {
      const ledger = FrameLedger.create({ flow: 9, capacity: 320 });
      const seen = new Set<number>();
      let duplicated = 0;
      let reordered = 0;
      let highest = -1;
      for (const sequence of sequences) {
        arrive(ledger, sequence);
        if (seen.has(sequence)) duplicated++;
        else if (sequence < highest) reordered++;
        seen.add(sequence);
        highest = Math.max(highest, sequence);
      }
      const lost = Array.from({ length: 301 }, (_, sequence) => sequence).filter((sequence) => !seen.has(sequence));
      expect(ledger.report(301)).toEqual({
        sent: 301,
        received: seen.size,
        lost: lost.length,
        duplicated,
        reordered,
        corrupted: 0,
      });
      expect(ledger.lostSequences(301, 301)).toEqual(lost);
    }),
    { numRuns: 60 },
  );
});

test.each([{ flow: -1 }, { flow: 65536 }, { flow: 1, capacity: 0 }, { flow: 1, capacity: 2 ** 32 }])(
  '%j is refused',
  (options) => {
    expect(() => FrameLedger.create(options)).toThrow(
      expect.objectContaining({ code: 'VHOST_ERR_INVALID_ARGUMENT' }) as Error,
    );
    expect(() => FrameLedger.create({ flow: 1 }, new Uint8Array(64))).toThrow('bytes for a ledger');
  },
);

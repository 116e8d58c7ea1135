import { type CutSide, decodeGroup, GroupEntries, GroupRecord } from '../../../lib/migration/handover/group-record';

type Entry = [CutSide, bigint, bigint];

function decode(payload: Buffer): Entry[] {
  const found: Entry[] = [];
  decodeGroup(payload, 0, (...entry) => found.push(entry));
  return found;
}

test.each(['before', 'after', 'late'] as const)(
  'entries of the kind %s come out as they went in, however many',
  (side) => {
    const entries = new GroupEntries(side);
    const given: Entry[] = Array.from({ length: 3000 }, (_, index) => [
      side,
      BigInt(index % 7),
      (1n << 64n) - 1n - BigInt(index),
    ]);
    for (const [, stream, digest] of given) entries.add(stream, digest);
    expect(entries.length).toBe(3000);
    const payload = entries.take();
    expect(payload).toHaveLength(8 + 16 * 3000);
    expect(payload.readUInt32LE(0)).toBe(['before', 'after', 'late'].indexOf(side));
    expect(decode(payload)).toEqual(given);
    expect(entries.length).toBe(0);
    entries.add(5n, 6n);
    expect(decode(entries.take())).toEqual([[side, 5n, 6n]]);
    // What was taken is not written to any more.
    expect(decode(payload)).toEqual(given);
  },
);

test('what a peer must not send', () => {
  const entries = new GroupEntries('after');
  entries.add(1n, 2n);
  entries.add(3n, 4n);
  const payload = entries.take();
  for (let length = 0; length < payload.length; length++) {
    if (length === 8 || length === 24) expect(decode(payload.subarray(0, length))).toHaveLength((length - 8) / 16);
    else expect(() => decode(payload.subarray(0, length))).toThrow(/GROUP of \d+ bytes/);
  }
  payload.writeUInt32LE(3, 0);
  expect(() => decode(payload)).toThrow(/GROUP of kind 3/);
});

test('a record keeps the order of each stream', () => {
  const record = new GroupRecord();
  for (const [stream, digest] of [
    [1n, 10n],
    [2n, 20n],
    [1n, 11n],
    [1n, 10n],
  ] as const) {
    record.add(stream, digest);
  }
  expect(record.of(1n)).toEqual([10n, 11n, 10n]);
  expect(record.of(2n)).toEqual([20n]);
  expect(record.of(3n)).toEqual([]);
  expect([...record.streams]).toEqual([1n, 2n]);
  expect(record.length).toBe(4);
  record.remove(1n, 10n);
  record.remove(1n, 12n);
  record.remove(3n, 10n);
  expect(record.of(1n)).toEqual([11n, 10n]);
  expect(record.length).toBe(3);
});

test('entries are full long before they are too long for a frame', () => {
  const entries = new GroupEntries('before');
  let count = 0;
  for (; !entries.full && count < 1_000_000; count++) entries.add(1n, 2n);
  expect(count).toBeLessThan(1_000_000);
  entries.take();
  expect(entries.full).toBe(false);
});

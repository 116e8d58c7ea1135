import { crc32 } from 'node:zlib';
import fc from 'fast-check';
import { GuestMemory } from '../../lib/memory/guest-memory';
import { encodeFrameHeader, FrameType, verifyFrame } from '../../lib/migration/frame';
import { decodePages, encodePages, type PagesPayload } from '../../lib/migration/page-frame';
import { PageEncoding, pagesHeadLength, RunKind } from '../../lib/migration/page-layout';
import { PageStore } from '../../lib/migration/page-store';
import { native } from '../../lib/native';

const PAGE = 4096;
const protocolError = expect.objectContaining({ code: 'VHOST_ERR_PROTOCOL' });

const open: { close(): void }[] = [];
afterEach(() => {
  for (const thing of open.splice(0)) thing.close();
});

function memoryOf(...regions: { gpa: number; size: number }[]): { memory: GuestMemory; store: PageStore } {
  const memory = GuestMemory.create(regions);
  const store = PageStore.of(memory);
  open.push(store, memory);
  return { memory, store };
}

function hashesOf(data: Uint8Array): bigint[] {
  const hashes = new BigUint64Array(data.byteLength / PAGE);
  native().pageHashesOf(data, hashes, 0);
  return [...hashes];
}

/** Page 1 zero, pages 2 and 3 with data. */
function sample(changes: Partial<PagesPayload> = {}): Buffer {
  const data = new Uint8Array(2 * PAGE).map((_, at) => at * 7 + (at >> 8));
  const runs = [
    { page: 1, pages: 1, kind: RunKind.ZERO },
    { page: 2, pages: 2, kind: RunKind.DATA },
  ];
  return Buffer.from(
    encodePages({ round: 0, encoding: PageEncoding.PLAIN, runs, hashes: hashesOf(data), data, ...changes }),
  );
}

test('what the addon packs is what the format says', () => {
  const { memory, store } = memoryOf({ gpa: 0, size: 8 * PAGE }, { gpa: 16 * PAGE, size: 8 * PAGE });
  memory.view(2 * PAGE, 2 * PAGE).fill(5);
  memory.view(17 * PAGE, PAGE).fill(6);
  const { payload, head, pages, zeroPages } = store.pack(Uint32Array.of(1, 3, 7, 1, 16, 2, 30, 4), 9);
  const decoded = decodePages(payload);
  expect(decoded.round).toBe(9);
  expect(decoded.runs).toEqual([
    { page: 1, pages: 1, kind: RunKind.ZERO },
    { page: 2, pages: 2, kind: RunKind.DATA },
    { page: 7, pages: 1, kind: RunKind.ZERO },
    { page: 16, pages: 1, kind: RunKind.ZERO },
    { page: 17, pages: 1, kind: RunKind.DATA },
  ]);
  expect([pages, zeroPages, head]).toEqual([6, 3, pagesHeadLength(payload)]);
  expect(decoded.hashes).toEqual(hashesOf(decoded.data));
  expect(Buffer.from(encodePages(decoded)).equals(payload)).toBe(true);
});

test('any payload comes back from its bytes', () => {
  const run = fc.record({
    page: fc.nat(2 ** 32 - 1),
    pages: fc.integer({ min: 1, max: 20 }),
    kind: fc.constantFrom(RunKind.ZERO, RunKind.DATA),
  });
  fc.assert(
    fc.property(fc.array(run, { maxLength: 8 }), fc.nat(2 ** 32 - 1), (runs, round) => {
      const pages = runs.reduce((sum, { pages, kind }) => sum + (kind === RunKind.DATA ? pages : 0), 0);
      const data = new Uint8Array(pages * PAGE).fill(round);
      const payload = { round, encoding: PageEncoding.PLAIN, runs, hashes: hashesOf(data), data };
      expect(decodePages(encodePages(payload))).toEqual(payload);
    }),
    { numRuns: 50 },
  );
});

test('a payload cut at any byte is refused, with nothing written', async () => {
  const { memory, store } = memoryOf({ gpa: 0, size: 8 * PAGE });
  const payload = sample();
  for (let length = 0; length < payload.byteLength; length += length < 80 ? 1 : 61) {
    expect(() => decodePages(payload.subarray(0, length))).toThrow(protocolError);
    await expect(store.unpack(payload.subarray(0, length), 0, 0)).rejects.toEqual(protocolError);
  }
  expect(native().memfdDataRanges(memory.regions[0]!.fd, 0, 8 * PAGE)).toEqual([]);
  expect(await store.unpack(payload, 0, 0)).toEqual({ pages: 3, zeroPages: 1 });
});

test('a flipped bit anywhere in a frame is refused: in its head by the checksum, in its data by a hash', async () => {
  const { memory, store } = memoryOf({ gpa: 0, size: 8 * PAGE });
  const payload = sample();
  const header = encodeFrameHeader(FrameType.PAGES, 1, payload, 77);
  const checked = { type: FrameType.PAGES, sequence: 1, length: payload.byteLength, checksum: header.readUInt32LE(16) };
  const head = pagesHeadLength(payload);
  for (let bit = 0; bit < payload.byteLength * 8; bit += bit < head * 8 ? 1 : 37) {
    payload[bit >> 3]! ^= 1 << (bit & 7);
    const receive = async (): Promise<unknown> => {
      verifyFrame(header, checked, payload, 77, 0);
      return await store.unpack(payload, 0, 20);
    };
    await expect(receive()).rejects.toEqual(protocolError);
    payload[bit >> 3]! ^= 1 << (bit & 7);
  }
  expect(native().memfdDataRanges(memory.regions[0]!.fd, 0, 8 * PAGE)).toEqual([]);
  verifyFrame(header, checked, payload, 77, 0);
});

test('the checksum covers the head alone', () => {
  const payload = sample();
  const header = encodeFrameHeader(FrameType.PAGES, 3, payload, 5);
  const head = payload.subarray(0, pagesHeadLength(payload));
  expect(header.readUInt32LE(16)).toBe(crc32(head, crc32(header.subarray(0, 16), 5)));
});

const data = new Uint8Array(PAGE).fill(3);
const one = { data, hashes: hashesOf(data) };
const kind = RunKind.DATA;
test.each<[string, Partial<PagesPayload>, RegExp]>([
  ['a wrong hash', { ...one, hashes: [1n], runs: [{ page: 2, pages: 1, kind }] }, /another hash at offset 124/],
  ['a page behind the region', { ...one, runs: [{ page: 8, pages: 1, kind }] }, /run of 1 pages from page 0x8/],
  [
    'a run that crosses a gap',
    { data: new Uint8Array(0), hashes: [], runs: [{ page: 7, pages: 2, kind: 0 }] },
    /run of 2/,
  ],
  [
    'a run that wraps',
    { data: new Uint8Array(0), hashes: [], runs: [{ page: 0xffff_ffff, pages: 65535, kind: 0 }] },
    /0xffffffff/,
  ],
  ['an empty run', { data: new Uint8Array(0), hashes: [], runs: [{ page: 2, pages: 0, kind: 0 }] }, /run of 0 pages/],
  ['another round', { round: 4 }, /round 4 at offset 100: expected round 0/],
  ['an unknown kind', { runs: [{ page: 2, pages: 1, kind: 2 as 0 }] }, /run of kind 2/],
  ['an unknown encoding', { encoding: 3 as 0 }, /encoding 3 at offset 112/],
  ['too little data', { data: new Uint8Array(PAGE) }, /4096 bytes of page data at offset 108: expected 8192/],
  ['a missing hash', { hashes: [1n] }, /expected \d+ by its own table/],
  ['too many data pages', { runs: [{ page: 0, pages: 257, kind }] }, /257 pages of data/],
])('%s is refused with offset and expectation', async (_name, changes, message) => {
  const { memory, store } = memoryOf({ gpa: 0, size: 8 * PAGE }, { gpa: 9 * PAGE, size: PAGE });
  await expect(store.unpack(sample(changes), 0, 100)).rejects.toThrow(message);
  expect(native().memfdDataRanges(memory.regions[0]!.fd, 0, 8 * PAGE)).toEqual([]);
});

test('zero pages stay holes, and what held data is zeroed', async () => {
  const { memory, store } = memoryOf({ gpa: 0, size: 8 * PAGE });
  await store.unpack(sample(), 0, 0);
  expect(native().memfdDataRanges(memory.regions[0]!.fd, 0, 8 * PAGE)).toEqual([2 * PAGE, 2 * PAGE]);
  const zeros = { data: new Uint8Array(0), hashes: [], runs: [{ page: 0, pages: 8, kind: RunKind.ZERO }], round: 1 };
  expect(await store.unpack(sample(zeros), 1, 0)).toEqual({ pages: 8, zeroPages: 8 });
  expect(native().memfdDataRanges(memory.regions[0]!.fd, 0, 8 * PAGE)).toEqual([2 * PAGE, 2 * PAGE]);
  expect(memory.read(0, 8 * PAGE).every((byte) => byte === 0)).toBe(true);
  expect(new Set(store.hashes()).size).toBe(1);
});

test('hashes in pieces are those of the whole; there are no others, and none of a store that is closed', async () => {
  const { store } = memoryOf({ gpa: 0, size: 8 * PAGE }, { gpa: 9 * PAGE, size: PAGE });
  await store.unpack(sample(), 0, 0);
  const all = store.hashes();
  expect([store.pages, all.length, new Set(all).size]).toEqual([9, 9, 3]);
  const pieces = [0, 2, 4, 6, 8].map((first) => [...store.hashes(first, Math.min(2, 9 - first))]);
  expect(pieces.flat()).toEqual([...all]);
  expect(store.hashes(9, 0)).toHaveLength(0);
  for (const [first, count] of [
    [8, 2],
    [10, 0],
    [9, 1],
  ] as const) {
    expect(() => store.hashes(first, count)).toThrow(expect.objectContaining({ code: 'EINVAL' }) as Error);
  }
  store.close();
  expect(() => store.hashes()).toThrow(expect.objectContaining({ code: 'VHOST_ERR_CLOSED' }) as Error);
});

import { statSync } from 'node:fs';
import { GuestMemory } from '../../../lib/memory/guest-memory';
import { native } from '../../../lib/native';
import { comparePages, decodeHashes, encodeHashes, explainPage, hashPages } from '../../../lib/observe/page-audit';
import { coded, GIB, PAGE } from '../memory/support';

const SPECS = [
  { gpa: 0, size: 8 * PAGE },
  { gpa: 5 * GIB, size: 4 * PAGE },
];
let left: GuestMemory;
let right: GuestMemory;

beforeEach(() => {
  [left, right] = [GuestMemory.create(SPECS), GuestMemory.create(SPECS)];
});

afterEach(() => {
  left.close();
  right.close();
});

const compare = async (): Promise<ReturnType<typeof comparePages>> =>
  comparePages(left, await hashPages(left), await hashPages(right));

test('equal memories do not differ, whoever allocated what', async () => {
  left.write(2 * PAGE, Uint8Array.of(1, 2));
  right.write(2 * PAGE, Uint8Array.of(1, 2));
  right.write(3 * PAGE, new Uint8Array(PAGE));
  expect(await compare()).toEqual({ total: 12, differing: 0, pages: [] });
});

test.each([0, 7 * PAGE + 4095, 5 * GIB, 5 * GIB + 4 * PAGE - 1])('one planted bit at GPA %i is found', async (gpa) => {
  right.write(gpa, Uint8Array.of(0x80));
  expect(await compare()).toEqual({ total: 12, differing: 1, pages: [Math.floor(gpa / PAGE) * PAGE] });
});

test('pages that were exchanged differ both', async () => {
  left.write(0, Uint8Array.of(1));
  right.write(PAGE, Uint8Array.of(1));
  expect((await compare()).pages).toEqual([0, PAGE]);
});

test('all that differ are counted, the first thousand named', async () => {
  const [one, other] = [0, 1].map(() => GuestMemory.create([{ gpa: 0x10000, size: 1500 * PAGE }]));
  for (let page = 0; page < 1200; page++) other!.write(0x10000 + page * PAGE, Uint8Array.of(1));
  const found = comparePages(one!, await hashPages(one!), await hashPages(other!));
  expect(found.differing).toBe(1200);
  expect(found.pages).toEqual(Array.from({ length: 1000 }, (_, page) => 0x10000 + page * PAGE));
  one!.close();
  other!.close();
});

test('hashing allocates nothing', async () => {
  const sparse = GuestMemory.create([{ gpa: 0, size: GIB }]);
  sparse.write(512 * PAGE, Uint8Array.of(1));
  const hashes = await hashPages(sparse);
  expect(hashes.length).toBe(GIB / PAGE);
  expect(hashes[512]).not.toBe(hashes[0]);
  expect(hashes[511]).toBe(hashes[0]);
  expect(statSync(`/proc/self/fd/${native().fdNumber(sparse.regions[0]!.fd)}`).blocks * 512).toBe(PAGE);
  sparse.close();
});

test.each([1n, 1n << 31n, 1n << 32n, 1n << 63n])('hashes that differ by %p only differ', async (bit) => {
  const hashes = await hashPages(left);
  const other = hashes.slice();
  other[3]! ^= bit;
  expect(comparePages(left, hashes, other)).toEqual({ total: 12, differing: 1, pages: [3 * PAGE] });
});

test('hashes of other memory are refused', async () => {
  const hashes = await hashPages(left);
  for (const other of [hashes.subarray(1), new BigUint64Array(13)]) {
    expect(() => comparePages(left, hashes, other)).toThrow(
      coded('VHOST_ERR_INVALID_ARGUMENT', `${other.length}`, '12'),
    );
    expect(() => comparePages(left, other, hashes)).toThrow(
      coded('VHOST_ERR_INVALID_ARGUMENT', `${other.length}`, '12'),
    );
  }
});

test('hashes cross the wire in any alignment', async () => {
  left.write(PAGE, Uint8Array.of(1));
  const hashes = await hashPages(left);
  const bytes = encodeHashes(hashes);
  expect(bytes.length).toBe(96);
  expect(Buffer.from(bytes).readBigUInt64LE(8)).toBe(hashes[1]);
  const odd = new Uint8Array(97);
  odd.set(bytes, 1);
  expect(decodeHashes(odd.subarray(1), 12)).toEqual(hashes);
  expect(() => decodeHashes(bytes.subarray(1), 12)).toThrow(coded('VHOST_ERR_PROTOCOL', '95 bytes', '96', '12 pages'));
  expect(() => decodeHashes(bytes, 13)).toThrow(coded('VHOST_ERR_PROTOCOL'));
});

test('closed memory', async () => {
  const memory = GuestMemory.create([{ gpa: 0, size: PAGE }]);
  memory.close();
  await expect(hashPages(memory)).rejects.toEqual(coded('VHOST_ERR_CLOSED'));
});

test('memory that is closed meanwhile', async () => {
  const memory = GuestMemory.create(SPECS);
  const hashing = hashPages(memory);
  memory.close();
  await expect(hashing).rejects.toEqual(coded('VHOST_ERR_CLOSED'));
});

test('a page is explained by what touches it', () => {
  const ranges = [
    { name: 'descriptor table', gpa: 0x1000, length: 0x1000 },
    { name: 'used ring', gpa: 0x2ff0, length: 0x20 },
    { name: 'buffers', gpa: 0x3010, length: 0x100 },
    { name: 'empty', gpa: 0x1000, length: 0 },
  ];
  expect(explainPage(0x1000, ranges)).toBe('page 0x1000: descriptor table');
  expect(explainPage(0x2000, ranges)).toBe('page 0x2000: used ring');
  expect(explainPage(0x3000, ranges)).toBe('page 0x3000: used ring, buffers');
  expect(explainPage(0x4000, ranges)).toBe('page 0x4000: nothing known');
});

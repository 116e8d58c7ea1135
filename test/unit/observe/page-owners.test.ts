/** Whose pages are whose: rings and buffers as descriptors name them, whatever lies there. */
import * as fc from 'fast-check';
import { VIRTIO_RING_F_EVENT_IDX } from '../../../lib/constants/virtio-net';
import { VRING_DESC_F_INDIRECT, VRING_DESC_F_NEXT, VRING_DESC_F_WRITE } from '../../../lib/constants/virtio-ring';
import { gpa } from '../../../lib/memory/address';
import { GuestMemory } from '../../../lib/memory/guest-memory';
import { bits } from '../../../lib/net/features';
import { hotPages, type OwningDevice, type PageOwner, PageOwners } from '../../../lib/observe/page-owners';
import type { QueueState } from '../../../lib/virtqueue/queue-state';

const PAGE = 4096;
const PAGES = 64;
const SIZE = 16;

let memory: GuestMemory;
beforeEach(() => {
  memory = GuestMemory.create([{ gpa: 0, size: PAGES * PAGE }]);
});
afterEach(() => memory.close());

/** A queue whose three parts have pages of their own, `at` and the two behind it. */
function queue(at: number, changes: Partial<QueueState> = {}): QueueState {
  const [descTable, availRing, usedRing] = [0, 1, 2].map((part) => gpa((at + part) * PAGE));
  return {
    size: SIZE,
    ready: true,
    descTable: descTable!,
    availRing: availRing!,
    usedRing: usedRing!,
    nextAvail: 0,
    ...changes,
  };
}

/** Receive, transmit and control at pages 0, 4 and 8. */
function device(changes: Partial<QueueState> = {}): OwningDevice {
  const queues = [queue(0, changes), queue(4, changes)];
  return { memory, features: bits(VIRTIO_RING_F_EVENT_IDX), queues, controlQueue: queue(8, changes) };
}

function descriptor(at: number, address: number | bigint, length: number, flags: number, packed = false): void {
  const bytes = new DataView(new ArrayBuffer(16));
  bytes.setBigUint64(0, BigInt(address), true);
  bytes.setUint32(8, length, true);
  bytes.setUint16(packed ? 14 : 12, flags, true);
  memory.write(at, new Uint8Array(bytes.buffer));
}

function look(of = device()): PageOwners {
  const owners = new PageOwners();
  owners.look(of);
  return owners;
}

const words = (owner: PageOwner | null): string =>
  owner === null ? 'nobody' : `${owner.queue} ${owner.kind} ${owner.part}`;
const of = (owners: PageOwners, page: number): string => words(owners.ownerOf(page));
const pagesOf = (owners: PageOwners): number[] =>
  Array.from({ length: PAGES }, (_, page) => page).filter((page) => owners.ownerOf(page) !== null);

test('rings of all queues, each part by itself', () => {
  const owners = look();
  expect([0, 1, 2].map((page) => of(owners, page))).toEqual([
    '0 receive driverRing',
    '0 receive driverRing',
    '0 receive usedRing',
  ]);
  expect([of(owners, 6), of(owners, 10), of(owners, 3)]).toEqual([
    '1 transmit usedRing',
    '2 control usedRing',
    'nobody',
  ]);
});

test('buffers that the device writes, over all their pages; those it reads belong to nobody', () => {
  descriptor(0, 20 * PAGE + 4000, 200, VRING_DESC_F_WRITE);
  descriptor(16, 24 * PAGE, 2048, 0);
  descriptor(4 * PAGE, 25 * PAGE, 2048, VRING_DESC_F_NEXT);
  const owners = look();
  expect([20, 21].map((page) => of(owners, page))).toEqual(Array(2).fill('0 receive buffers'));
  expect([19, 22, 24, 25].map((page) => of(owners, page))).toEqual(Array(4).fill('nobody'));
});

test("buffers of indirect tables, which are the queue's themselves", () => {
  descriptor(0, 30 * PAGE, 3 * 16, VRING_DESC_F_INDIRECT);
  descriptor(30 * PAGE, 31 * PAGE, 64, VRING_DESC_F_WRITE | VRING_DESC_F_NEXT);
  descriptor(30 * PAGE + 32, 33 * PAGE, 64, VRING_DESC_F_WRITE);
  const owners = look();
  expect(of(owners, 30)).toBe('0 receive driverRing');
  expect([31, 33].map((page) => of(owners, page))).toEqual(Array(2).fill('0 receive buffers'));
});

test('a packed virtqueue: its descriptor ring is where it is used', () => {
  const packed = { availWrap: true, nextUsed: 0, usedWrap: true };
  descriptor(0, 20 * PAGE, 2048, VRING_DESC_F_WRITE, true);
  const owners = look(device({ packed }));
  expect([0, 1, 2, 20].map((page) => of(owners, page))).toEqual([
    '0 receive usedRing',
    '0 receive driverRing',
    '0 receive usedRing',
    '0 receive buffers',
  ]);
});

test('a page of several owners counts for the first, and is told as shared', () => {
  descriptor(0, 20 * PAGE, 64, VRING_DESC_F_WRITE);
  descriptor(8 * PAGE, 20 * PAGE + 64, 1, VRING_DESC_F_WRITE);
  descriptor(8 * PAGE + 16, 2 * PAGE + 2048, 1, VRING_DESC_F_WRITE);
  const owners = look();
  expect(of(owners, 20)).toBe('0 receive buffers');
  // Rings come before any buffer, whoever's.
  expect(of(owners, 2)).toBe('0 receive usedRing');
  expect([owners.isShared(20), owners.isShared(2), owners.isShared(6)]).toEqual([true, true, false]);
});

test('a second look adds what was posted meanwhile', () => {
  const owners = look();
  descriptor(0, 40 * PAGE, 64, VRING_DESC_F_WRITE);
  owners.look(device());
  expect(of(owners, 40)).toBe('0 receive buffers');
});

test('queues that are not enabled own nothing', () => {
  expect(pagesOf(look(device({ ready: false })))).toEqual([]);
});

test('whatever lies in the rings: nothing is thrown, nothing beyond memory is owned, and it ends soon', () => {
  const anything = fc.uint8Array({ minLength: SIZE * 16, maxLength: SIZE * 16 });
  const table = fc.array(
    fc.record({
      at: fc.oneof(fc.bigInt({ min: 0n, max: 0xffffffffffffffffn }), fc.bigInt({ min: 0n, max: BigInt(PAGES * PAGE) })),
      length: fc.oneof(fc.nat(0xffffffff), fc.nat(8192)),
      flags: fc.integer({ min: 0, max: 0xffff }),
    }),
    { minLength: SIZE, maxLength: SIZE },
  );
  void fc.assert(
    fc.property(anything, table, fc.boolean(), (bytes, entries, packed) => {
      memory.write(0, bytes);
      entries.forEach(({ at, length, flags }, index) => {
        descriptor(4 * PAGE + 16 * index, at, length, flags, packed);
      });
      const changes = packed ? { packed: { availWrap: true, nextUsed: 0, usedWrap: true } } : {};
      const owners = look(device(changes));
      expect(owners.ownerOf(PAGES)).toBeNull();
      expect(of(owners, 2)).toBe('0 receive usedRing');
    }),
    { numRuns: 200 },
  );
});

test('a guest that names all of memory over and over is not followed for ever', () => {
  const large = GuestMemory.create([{ gpa: 0, size: 2 ** 30 }]);
  for (let index = 0; index < SIZE; index++) {
    const bytes = new DataView(new ArrayBuffer(16));
    bytes.setUint32(8, 0xffffffff, true);
    bytes.setUint16(12, VRING_DESC_F_WRITE, true);
    large.write(16 * index, new Uint8Array(bytes.buffer));
  }
  const owners = look({ ...device(), memory: large });
  expect(owners.cut).toBe(true);
  large.close();
});

test('hot pages: the rings of all enabled queues and nothing else, cut off where memory ends', () => {
  descriptor(0, 20 * PAGE, 64, VRING_DESC_F_WRITE);
  const hot = hotPages(device());
  expect(Array.from({ length: PAGES }, (_, page) => page).filter((page) => hot.has(page))).toEqual([
    0, 1, 2, 4, 5, 6, 8, 9, 10,
  ]);
  expect(hot.pages).toBe(PAGES);
  expect(hotPages(device({ ready: false })).count()).toBe(0);
  expect(hotPages(device({ usedRing: gpa(PAGES * PAGE + 64) })).count()).toBe(6);
});

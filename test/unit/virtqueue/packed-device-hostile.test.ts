/** A driver that breaks the rules: the ring is broken and stays so, nothing outside it is touched, and no chain is handed out. */
import {
  VRING_DESC_F_INDIRECT as INDIRECT,
  VRING_DESC_F_NEXT as NEXT,
  VRING_DESC_F_WRITE as WRITE,
} from '../../../lib/constants/virtio-ring';
import { AVAIL, DATA, END, HandRing, TABLE, USED } from '../../helpers/packed-ring';

const SIZE = 8;
type Descriptor = [address: number | bigint, length: number, flags: number, id?: number];

/** Descriptors of the first lap, available, from the first one of the ring on. */
function offer(ring: HandRing, descriptors: readonly Descriptor[]): void {
  for (const [slot, [address, length, flags, id = 0]] of descriptors.entries()) {
    ring.describe(slot, address, length, id, flags | AVAIL);
  }
}

function expectBroken(ring: HandRing, what: string, device = ring.device()): void {
  const refusal = expect.objectContaining({ code: 'VHOST_ERR_RING', message: expect.stringContaining(what) }) as Error;
  const at = device.nextAvail;
  const before = ring.memory.clone();
  expect(() => device.pop()).toThrow(refusal);
  expect(device.error).toMatchObject({ code: 'VHOST_ERR_RING' });
  for (const [index, { u8 }] of before.regions.entries()) {
    expect(Buffer.compare(u8, ring.memory.regions[index]!.u8)).toBe(0);
  }
  // Repaired or not: whoever broke it once is not trusted again.
  ring.describe(at, DATA, 64, at, AVAIL);
  expect(() => device.pop()).toThrow(refusal);
  expect(device.nextAvail).toBe(at);
}

const whole = (last: number): Descriptor[] =>
  Array.from({ length: SIZE }, (_, slot) => [DATA + slot * 64, 64, slot + 1 < SIZE ? NEXT : last]);

const chains: [string, Descriptor[], string][] = [
  ['a chain that does not end', whole(NEXT), 'longer than the 8 descriptors'],
  ['a chain into what is not available', [[DATA, 64, NEXT]], 'descriptor 1 of the chain at 0 is not available'],
  ['an id out of range', [[DATA, 64, 0, SIZE]], 'id 8 in a queue of 8'],
  ['an id far out of range', [[DATA, 64, 0, 65535]], 'id 65535 in a queue of 8'],
  [
    'an id out of range at the end of a chain',
    [
      [DATA, 64, NEXT, 0],
      [DATA, 64, 0, SIZE],
    ],
    'id 8 in a queue of 8',
  ],
  ['a buffer of no bytes', [[DATA, 0, 0]], 'no bytes'],
  [
    'a readable buffer behind a writable one',
    [
      [DATA, 64, WRITE | NEXT],
      [DATA, 64, 0],
    ],
    'behind a writable',
  ],
  ['INDIRECT and NEXT', [[TABLE, 16, INDIRECT | NEXT]], 'INDIRECT in a chain'],
  [
    'INDIRECT behind a buffer',
    [
      [DATA, 16, NEXT],
      [TABLE, 16, INDIRECT],
    ],
    'INDIRECT in a chain',
  ],
  ['an indirect table of no bytes', [[TABLE, 0, INDIRECT]], 'table of 0 bytes'],
  ['an indirect table of 24 bytes', [[TABLE, 24, INDIRECT]], 'table of 24 bytes'],
  ['an indirect table of 4 GiB less 16', [[TABLE, 0xfffffff0, INDIRECT]], 'leaves its memory region'],
  ['an indirect table outside memory', [[END, 16, INDIRECT]], 'outside guest memory'],
  ['an indirect table that leaves its region', [[DATA - 16, 32, INDIRECT]], 'leaves its memory region'],
  ['a buffer outside memory', [[END, 64, 0]], 'outside guest memory'],
  ['a buffer that begins inside and ends outside', [[END - 32, 64, 0]], 'outside guest memory'],
  ['a buffer of 4 GiB less one', [[DATA, 0xffffffff, WRITE]], 'outside guest memory'],
  ['an address that wraps', [[2n ** 64n - 64n, 128, 0]], 'address 0x'],
  ['an address above 2^53', [[2 ** 53, 64, 0]], 'address 0x'],
];

test.each(chains)('%s', (_, descriptors, what) => {
  const ring = new HandRing(SIZE);
  offer(ring, descriptors);
  expectBroken(ring, what);
});

const tables: [string, Descriptor[], string][] = [
  [
    'a buffer outside memory',
    [
      [DATA, 64, 0],
      [0, 1, 0],
    ],
    'outside guest memory',
  ],
  [
    'a buffer of no bytes',
    [
      [DATA, 64, 0],
      [DATA, 0, 0],
    ],
    'no bytes',
  ],
  [
    'a readable buffer behind a writable one',
    [
      [DATA, 64, WRITE],
      [DATA, 64, 0],
    ],
    'behind a writable',
  ],
];

test.each(tables)('an indirect table with %s', (_, descriptors, what) => {
  const ring = new HandRing(SIZE);
  for (const [index, [address, length, flags]] of descriptors.entries()) {
    ring.describe(index, address, length, 0, flags, TABLE);
  }
  offer(ring, [[TABLE, 32, INDIRECT]]);
  expectBroken(ring, what);
});

test('an indirect table that was not negotiated', () => {
  const ring = new HandRing(SIZE);
  ring.describe(0, DATA, 64, 0, 0, TABLE);
  offer(ring, [[TABLE, 16, INDIRECT]]);
  expectBroken(ring, 'not negotiated', ring.device({ indirect: false }));
});

test('an indirect table of more buffers than any device takes', () => {
  const ring = new HandRing(SIZE);
  for (let index = 0; index < 1025; index++) ring.describe(index, DATA, 1, 0, 0, TABLE);
  offer(ring, [[TABLE, 1025 * 16, INDIRECT]]);
  expectBroken(ring, 'more than 1024 buffers');
});

test('an id that is in flight', () => {
  const ring = new HandRing(SIZE);
  const device = ring.device();
  offer(ring, [
    [DATA, 64, 0, 3],
    [DATA, 64, 0, 3],
  ]);
  expect(device.pop()).toBe(3);
  expectBroken(ring, 'id 3 is in flight already', device);
});

describe('descriptors that are in flight, made available again', () => {
  test('when the whole ring is', () => {
    const ring = new HandRing(SIZE);
    const device = ring.device();
    offer(
      ring,
      Array.from({ length: SIZE }, (_, id) => [DATA, 64, 0, id]),
    );
    for (let id = 0; id < SIZE; id++) expect(device.pop()).toBe(id);
    ring.describe(0, DATA, 64, 0, USED);
    expectBroken(ring, 'longer than the 0 descriptors', device);
  });

  test('by a chain that runs into them', () => {
    const ring = new HandRing(SIZE);
    const device = ring.device();
    offer(ring, [[DATA, 64, 0, 7], [DATA, 64, 0, 6], ...whole(NEXT).slice(2)]);
    expect([device.pop(), device.pop()]).toEqual([7, 6]);
    for (const slot of [0, 1]) ring.describe(slot, DATA, 64, slot, USED);
    expectBroken(ring, 'longer than the 6 descriptors', device);
  });

  test('by a chain that runs into what was pushed but not published', () => {
    const ring = new HandRing(SIZE);
    const device = ring.device();
    offer(ring, [[DATA, 64, 0, 7], ...whole(NEXT).slice(1)]);
    expect(device.pop()).toBe(7);
    device.push(7, 0);
    ring.describe(0, DATA, 64, 7, USED);
    expectBroken(ring, 'longer than the 7 descriptors', device);
  });
});

test('a failing chain leaves the chains before it valid', () => {
  const ring = new HandRing(SIZE);
  const device = ring.device();
  offer(ring, [
    [DATA, 64, 0, 5],
    [DATA, 0, 0, 6],
  ]);
  expect(device.pop()).toBe(5);
  expect(() => device.pop()).toThrow('no bytes');
  device.push(5, 64);
  device.publish();
  expect(ring.at(0)).toEqual([64, 5, USED | AVAIL | WRITE]);
  expect(device.state()).toMatchObject({ nextAvail: 1, packed: { nextUsed: 1 } });
});

describe('what is allowed is taken', () => {
  test('an unaligned indirect table, all of it, whatever its flags and ids say', () => {
    const ring = new HandRing(SIZE);
    ring.describe(0, DATA + 1, 10, 99, NEXT | INDIRECT, TABLE + 3);
    ring.describe(1, DATA + 50, 5, 0, 0, TABLE + 3);
    ring.describe(2, DATA + 100, 20, 7, WRITE | AVAIL | USED, TABLE + 3);
    offer(ring, [[TABLE + 3, 48, INDIRECT | WRITE, 2]]);
    const device = ring.device();
    expect(device.pop()).toBe(2);
    const { chain } = device;
    expect([chain.buffers, chain.firstWritable, chain.readableBytes, chain.writableBytes]).toEqual([3, 2, 15, 20]);
    expect([...chain.addresses.subarray(0, 3)]).toEqual([DATA + 1, DATA + 50, DATA + 100]);
    device.push(2, 20);
    device.publish();
    expect(device.usedIdx).toBe(1);
  });

  test('a buffer that crosses into an adjacent region', () => {
    const ring = new HandRing(SIZE);
    offer(ring, [[DATA - 10, 30, 0]]);
    const device = ring.device();
    expect(device.pop()).toBe(0);
    expect([...device.chain.addresses.subarray(0, 2)]).toEqual([DATA - 10, DATA]);
    expect([...device.chain.lengths.subarray(0, 2)]).toEqual([10, 20]);
    device.push(0, 0);
    device.publish();
    expect(device.usedIdx).toBe(1);
  });

  test('a chain of the whole ring', () => {
    const ring = new HandRing(SIZE);
    offer(ring, whole(0));
    const device = ring.device();
    expect(device.pop()).toBe(0);
    expect(device.chain.buffers).toBe(SIZE);
    expect(device.pop()).toBe(-1);
  });

  test('a chain over the end of the ring', () => {
    const ring = new HandRing(3);
    const device = ring.device();
    for (let slot = 0; slot < 2; slot++) {
      ring.describe(slot, DATA, 64, 0, AVAIL);
      device.push(device.pop(), 0);
      device.publish();
    }
    ring.describe(2, DATA, 8, 1, AVAIL | NEXT);
    ring.describe(0, DATA + 8, 8, 2, USED | WRITE);
    expect(device.pop()).toBe(2);
    expect([device.chain.buffers, device.chain.firstWritable, device.nextAvail]).toEqual([2, 1, 1]);
  });
});

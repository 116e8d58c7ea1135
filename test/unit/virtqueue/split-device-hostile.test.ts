/** A driver that breaks the rules: the ring is broken and stays so, nothing outside it is touched, and no chain is handed out. */
import { VRING_DESC_F_INDIRECT, VRING_DESC_F_NEXT, VRING_DESC_F_WRITE } from '../../../lib/constants/virtio-ring';
import { gpa } from '../../../lib/memory/address';
import { splitLayout } from '../../../lib/virtqueue/layout';
import { SplitDevice } from '../../../lib/virtqueue/split-device';
import { TestMemory } from '../../helpers/ring-memory';

const RINGS = 0x10000;
const TABLE = 0x18000;
const DATA = 0x20000;
const END = 0x30000;
const SIZE = 8;
const NEXT = VRING_DESC_F_NEXT;
const WRITE = VRING_DESC_F_WRITE;
const INDIRECT = VRING_DESC_F_INDIRECT;

type Descriptor = [address: number, length: number, flags: number, next?: number];

class HostileRing {
  readonly memory = new TestMemory([
    { gpa: RINGS, size: DATA - RINGS },
    { gpa: DATA, size: END - DATA },
    { gpa: 0x100000, size: 4096 },
  ]);
  readonly layout = splitLayout(RINGS, SIZE, false);
  readonly device: SplitDevice;

  constructor(indirect = true) {
    this.device = new SplitDevice(
      this.memory,
      {
        size: SIZE,
        ready: true,
        descTable: gpa(this.layout.desc),
        availRing: gpa(this.layout.avail),
        usedRing: gpa(this.layout.used),
        nextAvail: 0,
      },
      { indirect },
    );
  }

  describe(table: number, index: number, [address, length, flags, next = 0]: Descriptor): void {
    const view = this.memory.view(table + 16 * index, 16);
    view.setBigUint64(0, BigInt(address), true);
    view.setUint32(8, length, true);
    view.setUint16(12, flags, true);
    view.setUint16(14, next, true);
  }

  offer(head: number, idx = 1): void {
    const view = this.memory.view(this.layout.avail, 4 + 2 * SIZE);
    view.setUint16(4, head, true);
    view.setUint16(2, idx, true);
  }

  expectBroken(what: string | RegExp): void {
    const refusal = expect.objectContaining({ code: 'VHOST_ERR_RING', message: expect.stringMatching(what) }) as Error;
    expect(() => this.device.pop()).toThrow(refusal);
    expect(this.device.error).toMatchObject({ code: 'VHOST_ERR_RING' });
    // Repaired or not: whoever broke it once is not trusted again.
    this.describe(this.layout.desc, 0, [DATA, 64, 0]);
    this.offer(0);
    expect(() => this.device.pop()).toThrow(refusal);
    expect(this.device.nextAvail).toBe(0);
  }
}

const whole = (count: number, flags = 0): Descriptor[] =>
  Array.from({ length: count }, (_, index) => [DATA + index * 64, 64, flags | NEXT, index + 1] as Descriptor);

const chains: [string, Descriptor[], string][] = [
  ['a loop of one', [[DATA, 64, NEXT, 0]], 'does not end'],
  [
    'a loop of two',
    [
      [DATA, 64, NEXT, 1],
      [DATA, 64, NEXT, 0],
    ],
    'does not end',
  ],
  ['a loop over the whole table', [...whole(7), [DATA, 64, NEXT, 0]], 'does not end'],
  ['next out of range', [[DATA, 64, NEXT, SIZE]], 'next 8'],
  ['next far out of range', [[DATA, 64, NEXT, 65535]], 'next 65535'],
  ['a buffer of no bytes', [[DATA, 0, 0]], 'no bytes'],
  [
    'a readable buffer behind a writable one',
    [
      [DATA, 64, WRITE | NEXT, 1],
      [DATA, 64, 0],
    ],
    'behind a writable',
  ],
  ['INDIRECT and NEXT', [[TABLE, 16, INDIRECT | NEXT, 1]], 'INDIRECT and NEXT'],
  ['an indirect table of no bytes', [[TABLE, 0, INDIRECT]], 'table of 0 bytes'],
  ['an indirect table of 24 bytes', [[TABLE, 24, INDIRECT]], 'table of 24 bytes'],
  ['an indirect table outside memory', [[END, 16, INDIRECT]], 'outside guest memory'],
  ['an indirect table that leaves its region', [[DATA - 16, 32, INDIRECT]], 'leaves its memory region'],
  ['a buffer outside memory', [[END, 64, 0]], 'outside guest memory'],
  ['a buffer that begins inside and ends outside', [[END - 32, 64, 0]], 'outside guest memory'],
  ['a buffer of 4 GiB less one', [[DATA, 0xffffffff, WRITE]], 'outside guest memory'],
  ['an address that wraps', [[-64 as number, 128, 0]], 'address 0x'],
  ['an address above 2^53', [[2 ** 53, 64, 0]], 'address 0x'],
];

test.each(chains)('%s', (_, descriptors, what) => {
  const ring = new HostileRing();
  for (const [index, [address, length, flags, next]] of descriptors.entries()) {
    const wrapped = address < 0 ? 2 ** 64 + address : address;
    ring.describe(ring.layout.desc, index, [address < 0 ? 0 : wrapped, length, flags, next ?? 0]);
    if (address < 0) ring.memory.view(ring.layout.desc + 16 * index, 8).setBigInt64(0, BigInt(address), true);
  }
  ring.offer(0);
  ring.expectBroken(what);
});

const tables: [string, Descriptor[], string][] = [
  [
    'a loop in it',
    [
      [DATA, 64, NEXT, 1],
      [DATA, 64, NEXT, 0],
    ],
    'does not end',
  ],
  [
    'a loop of one in it',
    [
      [DATA, 64, NEXT, 0],
      [DATA, 64, 0],
    ],
    'does not end',
  ],
  [
    'next behind it',
    [
      [DATA, 64, NEXT, 2],
      [DATA, 64, 0],
    ],
    'next 2',
  ],
  [
    'a table in it',
    [
      [TABLE, 32, INDIRECT],
      [DATA, 64, 0],
    ],
    'table within',
  ],
  [
    'a table in it behind a buffer',
    [
      [DATA, 64, NEXT, 1],
      [TABLE, 32, INDIRECT],
    ],
    'table within',
  ],
  [
    'a buffer outside memory',
    [
      [DATA, 64, NEXT, 1],
      [0, 1, 0],
    ],
    'outside guest memory',
  ],
  [
    'a readable buffer behind a writable one',
    [
      [DATA, 64, WRITE | NEXT, 1],
      [DATA, 64, 0],
    ],
    'behind a writable',
  ],
];

test.each(tables)('an indirect table with %s', (_, descriptors, what) => {
  const ring = new HostileRing();
  for (const [index, descriptor] of descriptors.entries()) ring.describe(TABLE, index, descriptor);
  ring.describe(ring.layout.desc, 0, [TABLE, 32, INDIRECT]);
  ring.offer(0);
  ring.expectBroken(what);
});

test('an indirect table that was not negotiated', () => {
  const ring = new HostileRing(false);
  ring.describe(TABLE, 0, [DATA, 64, 0]);
  ring.describe(ring.layout.desc, 0, [TABLE, 16, INDIRECT]);
  ring.offer(0);
  ring.expectBroken('not negotiated');
});

test('a head out of range', () => {
  const ring = new HostileRing();
  ring.offer(SIZE);
  ring.expectBroken('head 8');
});

test.each([SIZE + 1, 1000, 65535])('an available index that jumps by %i', (jump) => {
  const ring = new HostileRing();
  ring.describe(ring.layout.desc, 0, [DATA, 64, 0]);
  ring.offer(0, jump);
  ring.expectBroken('jumped from 0');
});

test('an indirect table of more buffers than any device takes', () => {
  const ring = new HostileRing();
  const entries = 1025;
  for (let index = 0; index < entries; index++) {
    ring.describe(TABLE, index, [DATA, 1, index + 1 < entries ? NEXT : 0, index + 1]);
  }
  ring.describe(ring.layout.desc, 0, [TABLE, entries * 16, INDIRECT]);
  ring.offer(0);
  ring.expectBroken('more than 1024 buffers');
});

test('a failing chain leaves the chains before it valid', () => {
  const ring = new HostileRing();
  ring.describe(ring.layout.desc, 0, [DATA, 64, 0]);
  ring.describe(ring.layout.desc, 1, [DATA, 0, 0]);
  const avail = ring.memory.view(ring.layout.avail, 8);
  avail.setUint16(6, 1, true);
  avail.setUint16(2, 2, true);
  expect(ring.device.pop()).toBe(0);
  expect(() => ring.device.pop()).toThrow('no bytes');
  ring.device.push(0, 64);
  ring.device.publish();
  expect(ring.device.usedIdx).toBe(1);
  expect(ring.device.state().nextAvail).toBe(1);
});

describe('what is allowed is taken', () => {
  test('an unaligned indirect table', () => {
    const ring = new HostileRing();
    ring.describe(TABLE + 3, 0, [DATA + 1, 10, NEXT, 2]);
    ring.describe(TABLE + 3, 2, [DATA + 100, 20, WRITE]);
    ring.describe(ring.layout.desc, 0, [TABLE + 3, 48, INDIRECT]);
    ring.offer(0);
    expect(ring.device.pop()).toBe(0);
    const { chain } = ring.device;
    expect([chain.buffers, chain.firstWritable, chain.readableBytes, chain.writableBytes]).toEqual([2, 1, 10, 20]);
    expect([...chain.addresses.subarray(0, 2)]).toEqual([DATA + 1, DATA + 100]);
  });

  test('a direct part before an indirect one', () => {
    const ring = new HostileRing();
    ring.describe(TABLE, 0, [DATA, 10, WRITE]);
    ring.describe(ring.layout.desc, 0, [DATA, 5, NEXT, 1]);
    ring.describe(ring.layout.desc, 1, [TABLE, 16, INDIRECT]);
    ring.offer(0);
    expect(ring.device.pop()).toBe(0);
    expect(ring.device.chain.buffers).toBe(2);
  });

  test('a buffer that crosses into an adjacent region', () => {
    const ring = new HostileRing();
    ring.describe(ring.layout.desc, 0, [DATA - 10, 30, 0]);
    ring.offer(0);
    expect(ring.device.pop()).toBe(0);
    const { chain } = ring.device;
    expect([...chain.addresses.subarray(0, 2)]).toEqual([DATA - 10, DATA]);
    expect([...chain.lengths.subarray(0, 2)]).toEqual([10, 20]);
    expect(chain.firstWritable).toBe(2);
    expect(chain.readableBytes).toBe(30);
  });

  test('a chain of the whole table', () => {
    const ring = new HostileRing();
    for (const [index, descriptor] of [...whole(7), [DATA, 64, 0] as Descriptor].entries()) {
      ring.describe(ring.layout.desc, index, descriptor);
    }
    ring.offer(0);
    expect(ring.device.pop()).toBe(0);
    expect(ring.device.chain.buffers).toBe(8);
  });
});

test('a used id or a count that the device never took is refused', () => {
  const ring = new HostileRing();
  expect(() => ring.device.push(SIZE, 0)).toThrow('used id 8');
  expect(() => ring.device.push(-1, 0)).toThrow('used id -1');
  expect(() => ring.device.unpop(SIZE + 1)).toThrow('9 chains');
});

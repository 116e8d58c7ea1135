import { constants } from 'node:buffer';
import { readdirSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { GuestMemory, maxMemRegions, type RegionSpec } from '../../../lib/memory/guest-memory';
import { type FdHandle, native } from '../../../lib/native';
import { coded, GIB, MIB, mappingsBecome, PAGE } from './support';

const open: GuestMemory[] = [];

function make(...args: Parameters<typeof GuestMemory.create>): GuestMemory {
  const memory = GuestMemory.create(...args);
  open.push(memory);
  return memory;
}

afterEach(async () => {
  for (const memory of open.splice(0)) memory.close();
  await mappingsBecome(0);
});

describe('regions that cannot be', () => {
  test.each<[string, RegionSpec, string[]]>([
    ['size 0', { gpa: 0, size: 0 }, ['0x0', 'size 0', '4096']],
    ['negative size', { gpa: 0, size: -4096 }, ['size -4096', '4096']],
    ['size that is no number', { gpa: 0, size: Number.NaN }, ['size NaN']],
    ['size of half a byte', { gpa: 0, size: 4096.5 }, ['size 4096.5']],
    ['size of half a page', { gpa: 0, size: 6144 }, ['size 6144', 'multiple of 4096']],
    ['negative address', { gpa: -4096, size: PAGE }, ['-0x1000', '2^53']],
    ['address that is no number', { gpa: Number.NaN, size: PAGE }, ['NaN']],
    ['address inside a page', { gpa: 0x1800, size: PAGE }, ['0x1800', 'multiple of 4096']],
    ['address above 2^53', { gpa: 2 ** 53, size: PAGE }, ['0x20000000000000', '2^53']],
    ['end above 2^53', { gpa: 2 ** 53 - PAGE, size: 2 * PAGE }, ['0x1ffffffffff000', 'size 8192', '2^53']],
    ['huge pages of 3 MiB', { gpa: 0, size: 6 * MIB, hugePageSize: 3 * MIB }, ['3145728', 'power of two']],
    ['huge pages that are small', { gpa: 0, size: 4 * MIB, hugePageSize: 2048 }, ['2048', 'above 4096']],
    ['part of a huge page', { gpa: 0, size: 3 * MIB, hugePageSize: 2 * MIB }, ['3145728', 'multiple of', '2097152']],
  ])('%s', (_, spec, parts) => {
    const before = native().mappingsLive();
    expect(() => GuestMemory.create([spec])).toThrow(coded('VHOST_ERR_MEMORY_TABLE', ...parts));
    const fd = native().memfdCreate('test', PAGE, 0) as FdHandle;
    expect(() => GuestMemory.adopt([{ ...spec, fd }])).toThrow(coded('VHOST_ERR_MEMORY_TABLE', ...parts));
    expect(native().fdNumber(fd)).toBe(-9);
    expect(native().mappingsLive()).toBe(before);
  });

  test('none at all', () => {
    expect(() => GuestMemory.create([])).toThrow(coded('VHOST_ERR_INVALID_ARGUMENT'));
  });

  test('overlaps name both', () => {
    const inside = [
      { gpa: 0x4000, size: 0x1000 },
      { gpa: 0, size: 0x8000 },
    ];
    expect(() => GuestMemory.create(inside)).toThrow(
      coded('VHOST_ERR_MEMORY_TABLE', '[0x0, 0x8000)', '[0x4000, 0x5000)', 'overlap'),
    );
    const twice = [
      { gpa: 0x1000, size: 0x1000 },
      { gpa: 0x1000, size: 0x1000 },
    ];
    expect(() => GuestMemory.create(twice)).toThrow(coded('VHOST_ERR_MEMORY_TABLE', '[0x1000, 0x2000)', 'overlap'));
    expect(
      make([
        { gpa: 0x1000, size: 0x1000 },
        { gpa: 0, size: 0x1000 },
      ]).end,
    ).toBe(0x2000);
  });

  (constants.MAX_LENGTH > 4 * GIB ? test.skip : test)('above what one buffer holds here (Node 20 only)', () => {
    expect(() => GuestMemory.create([{ gpa: 0, size: 4 * GIB + PAGE }])).toThrow(
      coded('VHOST_ERR_MEMORY_TABLE', `${4 * GIB + PAGE}`, `${4 * GIB}`, 'split'),
    );
  });

  test('a failure half way leaves nothing', async () => {
    const impossible = [
      { gpa: 0, size: PAGE },
      { gpa: 2 * MIB, size: 2 * MIB, hugePageSize: 8192 },
    ];
    const descriptors = (): number => readdirSync('/proc/self/fd').length;
    const before = descriptors();
    expect(() => GuestMemory.create(impossible)).toThrow(expect.objectContaining({ syscall: 'memfd_create' }));
    expect(descriptors()).toBe(before);
    await mappingsBecome(0);
  });
});

describe('what is where', () => {
  const lookUps = (memory: GuestMemory): ((gpa: number, length: number) => unknown)[] => [
    (gpa, length) => memory.regionOf(gpa, length),
    (gpa, length) => memory.view(gpa, length),
    (gpa, length) => memory.hvaOf(gpa, length),
  ];
  const specs = [
    { gpa: 5 * GIB, size: 2 * PAGE },
    { gpa: 0, size: 4 * PAGE },
    { gpa: 4 * PAGE, size: 2 * PAGE },
  ];

  test('regions are sorted', () => {
    const memory = make(specs);
    expect(memory.regions.map(({ gpa, size, end }) => [gpa, size, end])).toEqual([
      [0, 4 * PAGE, 4 * PAGE],
      [4 * PAGE, 2 * PAGE, 6 * PAGE],
      [5 * GIB, 2 * PAGE, 5 * GIB + 2 * PAGE],
    ]);
    expect(memory.end).toBe(5 * GIB + 2 * PAGE);
    expect(memory.pages).toBe(8);
  });

  test('views of a region are one memory', () => {
    const [region] = make(specs).regions;
    region!.u32[1] = 0x01020304;
    expect([...region!.u8.subarray(4, 8)]).toEqual([4, 3, 2, 1]);
    expect(region!.u16[2]).toBe(0x0304);
    expect([region!.u8, region!.u16, region!.u32].map((view) => view.byteLength)).toEqual([16384, 16384, 16384]);
    expect(region!.buffer.byteLength).toBe(16384);
  });

  test('regionOf finds the region of the first and of the last byte', () => {
    const memory = make(specs);
    const [low, middle, high] = memory.regions;
    expect(memory.regionOf(0, 4 * PAGE)).toBe(low);
    expect(memory.regionOf(4 * PAGE - 1, 1)).toBe(low);
    expect(memory.regionOf(4 * PAGE, 1)).toBe(middle);
    expect(memory.regionOf(5 * GIB + 2 * PAGE - 1, 1)).toBe(high);
  });

  test.each([
    [4 * PAGE - 1, 2],
    [6 * PAGE, 1],
    [5 * GIB - 1, 1],
    [5 * GIB - 1, 2],
    [5 * GIB + 2 * PAGE - 1, 2],
    [-1, 1],
    [0, 2 ** 52],
    [Number.NaN, 1],
    [0.5, 1],
    [2 ** 60, 1],
  ])('%p and %p bytes are in no region', (gpa, length) => {
    const memory = make(specs);
    for (const ask of lookUps(memory)) {
      expect(() => ask(gpa, length)).toThrow(coded('VHOST_ERR_MEMORY_TABLE', 'one region'));
    }
  });

  test.each([-1, 0.5, 1.5, Number.NaN, 2 ** 60])('a length of %p', (length) => {
    const memory = make(specs);
    for (const ask of [...lookUps(memory), (gpa: number, bytes: number) => memory.read(gpa, bytes)]) {
      expect(() => ask(0, length)).toThrow(coded('VHOST_ERR_INVALID_ARGUMENT', `${length}`));
    }
  });

  test('read and write cross regions that touch', () => {
    const memory = make(specs);
    const bytes = Uint8Array.from({ length: 3 * PAGE }, (_, i) => i * 7);
    memory.write(3 * PAGE, bytes);
    expect(memory.read(3 * PAGE, 3 * PAGE)).toEqual(bytes);
    expect(memory.view(4 * PAGE, 10)).toEqual(bytes.subarray(PAGE, PAGE + 10));
    expect(memory.view(4 * PAGE - 1, 1)[0]).toBe(bytes[PAGE - 1]);
    const copy = memory.read(3 * PAGE, 1);
    copy[0] = 99;
    expect(memory.view(3 * PAGE, 1)[0]).toBe(bytes[0]);
    expect(memory.read(0, 0)).toEqual(new Uint8Array(0));
  });

  test('a write that does not fit writes nothing', () => {
    const memory = make(specs);
    expect(() => memory.write(6 * PAGE - 4, new Uint8Array(8).fill(1))).toThrow(coded('VHOST_ERR_MEMORY_TABLE'));
    expect(() => memory.read(6 * PAGE - 4, 8)).toThrow(coded('VHOST_ERR_MEMORY_TABLE'));
    expect([...memory.read(6 * PAGE - 4, 4)]).toEqual([0, 0, 0, 0]);
  });
});

describe('what devices are told', () => {
  test('one entry a region, ascending, with the address of its bytes', () => {
    const memory = make([
      { gpa: 0x10000, size: PAGE },
      { gpa: 0, size: 0x10000 },
    ]);
    const { table, mappings } = memory.vhostRegions();
    const [low, high] = memory.regions;
    expect(table).toEqual([0, 0x10000, low!.hva, 0x10000, PAGE, high!.hva]);
    expect(mappings).toEqual([low!.mapping, high!.mapping]);
    expect(memory.hvaOf(0x10010, 4)).toBe(high!.hva + 0x10);
    expect(native().mappingAddress(low!.mapping)).toBe(low!.hva);
  });

  test('more regions than a limit', () => {
    const specs = Array.from({ length: 65 }, (_, i) => ({ gpa: i * 2 * PAGE, size: PAGE }));
    const memory = make(specs);
    expect(memory.vhostRegions().mappings).toHaveLength(65);
    expect(memory.vhostRegions({ limit: 65 }).table).toHaveLength(195);
    expect(() => memory.vhostRegions({ limit: 64 })).toThrow(coded('VHOST_ERR_MEMORY_TABLE', '65', '64'));
    expect(maxMemRegions()).toBeGreaterThanOrEqual(1);
  });

  test('the same mapping, or one of their own', () => {
    const same = make([{ gpa: 0, size: PAGE }]);
    expect(same.separateDeviceMapping).toBe(false);
    const own = new Uint8Array(native().mappingBuffer(same.regions[0]!.mapping) as ArrayBuffer);
    expect(own.byteLength).toBe(PAGE);

    const before = native().mappingsLive();
    const memory = make([{ gpa: 0x3000, size: 2 * PAGE }], { deviceMapping: 'separate' });
    expect(native().mappingsLive()).toBe(before + 2);
    expect(memory.separateDeviceMapping).toBe(true);
    const [region] = memory.regions;
    const device = new Uint8Array(native().mappingBuffer(region!.mapping) as ArrayBuffer);
    device[5000] = 42;
    expect(memory.view(0x3000 + 5000, 1)[0]).toBe(42);
    memory.write(0x3000, Uint8Array.of(7));
    expect(device[0]).toBe(7);
    expect(memory.hvaOf(0x4000, 1)).toBe(region!.hva + 0x1000);
  });
});

describe('memory that somebody else has made', () => {
  const memfd = (size: number): FdHandle => native().memfdCreate('test', size, 0) as FdHandle;
  const again = (fd: FdHandle): FdHandle => native().fdDup(fd) as FdHandle;
  const closed = (...fds: FdHandle[]): boolean[] => fds.map((fd) => native().fdNumber(fd) < 0);
  /** A descriptor of a file opened by its path. */
  const opened = (path: string, flags: number): FdHandle => native().fdOpen(path, flags) as FdHandle;
  const O_RDONLY = 0;
  const O_RDWR = 2;

  test('is shared, and its descriptors are closed with it', () => {
    const fd = memfd(4 * PAGE);
    const [one, two] = [again(fd), again(fd)];
    const memory = GuestMemory.adopt([
      { gpa: 8 * PAGE, size: 2 * PAGE, fd: one },
      { gpa: 0, size: 4 * PAGE, fd: two },
    ]);
    memory.write(8 * PAGE + 5, Uint8Array.of(1, 2, 3));
    expect([...memory.read(5, 3)]).toEqual([1, 2, 3]);
    expect(memory.regions.map((region) => region.fd)).toEqual([two, one]);
    memory.close();
    expect(closed(one, two, fd)).toEqual([true, true, false]);
    native().fdClose(fd);
  });

  test('two memories of one guest see what the other writes, also through a mapping for devices', () => {
    const there = make([{ gpa: 0x10_0000, size: 4 * PAGE }]);
    const here = GuestMemory.adopt(
      there.regions.map(({ gpa, size, fd }) => ({ gpa, size, fd: again(fd) })),
      { deviceMapping: 'separate' },
    );
    there.write(0x10_0000, Uint8Array.of(1, 2, 3));
    expect([...here.view(0x10_0000, 3)]).toEqual([1, 2, 3]);
    const device = new Uint8Array(native().mappingBuffer(here.regions[0]!.mapping) as ArrayBuffer);
    device[PAGE] = 9;
    expect(there.view(0x10_0000 + PAGE, 1)[0]).toBe(9);
    here.close();
    expect([...there.read(0x10_0000, 3)]).toEqual([1, 2, 3]);
  });

  test('a memfd too short is named with both sizes, and every descriptor is closed', async () => {
    const fd = memfd(PAGE);
    const before = native().mappingsLive();
    const [one, two] = [again(fd), again(fd)];
    const number = native().fdNumber(two);
    expect(() =>
      GuestMemory.adopt([
        { gpa: 0, size: PAGE, fd: one },
        { gpa: PAGE, size: 2 * PAGE, fd: two },
      ]),
    ).toThrow(coded('VHOST_ERR_MEMORY_TABLE', '0x1000', '8192', `descriptor ${number}`, '4096'));
    expect(closed(one, two)).toEqual([true, true]);
    const three = again(fd);
    expect(() =>
      GuestMemory.adopt([
        { gpa: 0, size: PAGE, fd: three },
        { gpa: PAGE, size: PAGE, fd: three },
      ]),
    ).toThrow(coded('VHOST_ERR_INVALID_ARGUMENT', '0x1000', 'two regions'));
    expect(closed(three)).toEqual([true]);
    await mappingsBecome(before);
    native().fdClose(fd);
  });

  test('what somebody could shrink is refused, as is what is no memfd', () => {
    const path = `/dev/shm/vhost-net-adopt-${process.pid}`;
    writeFileSync(path, Buffer.alloc(PAGE));
    const unsealed = opened(path, O_RDWR);
    rmSync(path);
    expect(() => GuestMemory.adopt([{ gpa: 0, size: PAGE, fd: unsealed }])).toThrow(
      coded('VHOST_ERR_MEMORY_TABLE', '0x0', 'can be shrunk', 'F_SEAL_SHRINK'),
    );
    const device = opened('/dev/zero', O_RDWR);
    expect(() => GuestMemory.adopt([{ gpa: 0, size: PAGE, fd: device }])).toThrow(
      coded('VHOST_ERR_MEMORY_TABLE', '0x0', 'no memfd'),
    );
    expect(closed(unsealed, device)).toEqual([true, true]);
  });

  test('what cannot be mapped is closed with the rest', async () => {
    const fd = memfd(PAGE);
    const good = again(fd);
    const readOnly = opened(`/proc/self/fd/${native().fdNumber(fd)}`, O_RDONLY);
    const before = native().mappingsLive();
    expect(() =>
      GuestMemory.adopt([
        { gpa: 0, size: PAGE, fd: good },
        { gpa: PAGE, size: PAGE, fd: readOnly },
      ]),
    ).toThrow(coded('EACCES', 'mmap'));
    expect(closed(good, readOnly)).toEqual([true, true]);
    await mappingsBecome(before);
    native().fdClose(fd);
  });

  test('a descriptor that is closed', () => {
    const fd = memfd(PAGE);
    native().fdClose(fd);
    expect(() => GuestMemory.adopt([{ gpa: 0, size: PAGE, fd }])).toThrow(coded('EBADF'));
  });
});

describe('memory larger than 4 GiB', () => {
  test('addresses above it are as good as any', () => {
    const at = 5 * GIB;
    const memory = make([
      { gpa: 0, size: PAGE },
      { gpa: at, size: 64 * MIB },
    ]);
    memory.write(at + 64 * MIB - 3, Uint8Array.of(1, 2, 3));
    expect([...memory.view(at + 64 * MIB - 3, 3)]).toEqual([1, 2, 3]);
    expect(memory.regions[1]!.u8[64 * MIB - 1]).toBe(3);
    expect(memory.vhostRegions().table.slice(3, 5)).toEqual([at, 64 * MIB]);
    expect(memory.hvaOf(at + PAGE, 1) - memory.regions[1]!.hva).toBe(PAGE);
  });

  test('a region of 4 GiB: every view sees its last bytes', () => {
    const memory = make([{ gpa: 4 * GIB, size: 4 * GIB }]);
    const [region] = memory.regions;
    const last = 4 * GIB - 4;
    memory.write(8 * GIB - 4, Uint8Array.of(1, 2, 3, 4));
    expect([...memory.view(8 * GIB - 4, 4)]).toEqual([1, 2, 3, 4]);
    expect([...memory.read(8 * GIB - 4, 4)]).toEqual([1, 2, 3, 4]);
    expect(region!.u8[last]).toBe(1);
    expect(region!.u16[last / 2 + 1]).toBe(0x0403);
    expect(region!.u32[last / 4]).toBe(0x04030201);
    expect(region!.u8[0]).toBe(0);
    expect(memory.pages).toBe(2 ** 20);
    const blocks = statSync(`/proc/self/fd/${native().fdNumber(region!.fd)}`).blocks;
    expect(blocks * 512).toBeLessThanOrEqual(2 * PAGE);
  });

  (constants.MAX_LENGTH > 4 * GIB ? test : test.skip)(
    'a region of 6 GiB (needs Node 22: Node 20 maps at most 4 GiB at once)',
    () => {
      const memory = make([{ gpa: 0, size: 6 * GIB }]);
      memory.write(6 * GIB - 4, Uint8Array.of(1, 2, 3, 4));
      memory.write(GIB, Uint8Array.of(9));
      memory.write(5 * GIB, Uint8Array.of(8));
      expect([...memory.view(6 * GIB - 4, 4)]).toEqual([1, 2, 3, 4]);
      expect([...memory.read(5 * GIB, 1), ...memory.read(GIB, 1)]).toEqual([8, 9]);
    },
  );
});

describe('close', () => {
  test('detaches the views and every method says so', async () => {
    const before = native().mappingsLive();
    const memory = GuestMemory.create([{ gpa: 0, size: 2 * PAGE }], { deviceMapping: 'separate' });
    const [region] = memory.regions;
    const view = memory.view(10, 100);
    const number = native().fdNumber(region!.fd);
    expect(number).toBeGreaterThanOrEqual(0);
    memory.close();
    memory.close();
    expect(memory.closed).toBe(true);
    expect([view.length, region!.u8.length, region!.u16.length, region!.u32.length]).toEqual([0, 0, 0, 0]);
    expect(region!.buffer.byteLength).toBe(0);
    expect(native().fdNumber(region!.fd)).toBeLessThan(0);
    const calls: (() => unknown)[] = [
      () => memory.regions,
      () => memory.end,
      () => memory.pages,
      () => memory.regionOf(0, 1),
      () => memory.view(0, 1),
      () => memory.read(0, 0),
      () => memory.write(0, new Uint8Array(0)),
      () => memory.hvaOf(0, 1),
      () => memory.vhostRegions(),
      () => memory.onChange(async () => undefined),
    ];
    for (const call of calls) expect(call).toThrow(coded('VHOST_ERR_CLOSED', 'GuestMemory'));
    await expect(memory.addRegion({ gpa: 4 * PAGE, size: PAGE })).rejects.toEqual(coded('VHOST_ERR_CLOSED'));
    await expect(memory.removeRegion(0)).rejects.toEqual(coded('VHOST_ERR_CLOSED'));
    await mappingsBecome(before);
  });

  test('by scope', async () => {
    let outside: GuestMemory;
    {
      await using memory = GuestMemory.create([{ gpa: 0, size: PAGE }]);
      outside = memory;
    }
    expect(outside.closed).toBe(true);
  });

  test('a hundred times leaves nothing', async () => {
    const before = native().mappingsLive();
    for (let i = 0; i < 100; i++) GuestMemory.create([{ gpa: 0, size: MIB }], { deviceMapping: 'separate' }).close();
    await mappingsBecome(before);
  });
});

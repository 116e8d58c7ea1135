import { GuestMemory, type MemoryChange } from '../../../lib/memory/guest-memory';
import { native } from '../../../lib/native';
import { coded, mappingsBecome, PAGE } from './support';

const HIGH = 0x100000;
let memory: GuestMemory;
let mappings: number;

beforeEach(async () => {
  mappings = native().mappingsLive();
  memory = GuestMemory.create([
    { gpa: 0, size: 4 * PAGE },
    { gpa: 0x8000, size: 2 * PAGE },
  ]);
});

afterEach(async () => {
  memory.close();
  await mappingsBecome(mappings);
});

const addresses = (): number[] => memory.vhostRegions().table.filter((_, i) => i % 3 === 0);
const visible = (): number[] => memory.regions.map((region) => region.gpa);

describe('adding a region', () => {
  test('map, then listeners, then visible', async () => {
    const seen: unknown[] = [];
    memory.onChange(async ({ kind, region }) => {
      await new Promise((resolve) => setTimeout(resolve, 5));
      seen.push(kind, region.gpa, region.u8.length, region.hva > 0);
      seen.push(addresses(), memory.end, visible());
      expect(() => memory.view(HIGH, 1)).toThrow(coded('VHOST_ERR_MEMORY_TABLE'));
    });
    const adding = memory.addRegion({ gpa: HIGH, size: PAGE });
    expect(visible()).toEqual([0, 0x8000]);
    const region = await adding;
    expect(seen).toEqual(['add', HIGH, PAGE, true, [0, 0x8000, HIGH], HIGH + PAGE, [0, 0x8000]]);
    expect(visible()).toEqual([0, 0x8000, HIGH]);
    expect(memory.regionOf(HIGH, PAGE)).toBe(region);
    expect(memory.pages).toBe(7);
  });

  test('between two others, with a mapping for devices when memory has them', async () => {
    const separate = GuestMemory.create([{ gpa: HIGH, size: PAGE }], { deviceMapping: 'separate' });
    await separate.addRegion({ gpa: 0x1000, size: PAGE });
    expect(separate.regions.map((region) => region.gpa)).toEqual([0x1000, HIGH]);
    expect(separate.end).toBe(HIGH + PAGE);
    const device = new Uint8Array(native().mappingBuffer(separate.regions[0]!.mapping) as ArrayBuffer);
    device[1] = 3;
    expect(separate.read(0x1001, 1)[0]).toBe(3);
    separate.close();
  });

  test('that cannot be changes nothing and tells nobody', async () => {
    const told: MemoryChange[] = [];
    memory.onChange(async (change) => void told.push(change));
    await expect(memory.addRegion({ gpa: 0x3000, size: PAGE })).rejects.toEqual(
      coded('VHOST_ERR_MEMORY_TABLE', '[0x0, 0x4000)', '[0x3000, 0x4000)'),
    );
    await expect(memory.addRegion({ gpa: HIGH, size: 0 })).rejects.toEqual(coded('VHOST_ERR_MEMORY_TABLE', 'size 0'));
    expect(told).toEqual([]);
    expect(addresses()).toEqual([0, 0x8000]);
  });

  test('is rolled back when a listener fails: those told hear the opposite, last first', async () => {
    const told: string[] = [];
    const tables: number[][] = [];
    const listener =
      (name: string, fail = false) =>
      async ({ kind }: MemoryChange): Promise<void> => {
        told.push(`${name} ${kind}`);
        tables.push(addresses());
        if (fail && kind === 'add') throw new Error('planted');
      };
    memory.onChange(listener('first'));
    memory.onChange(listener('second', true));
    memory.onChange(listener('third'));
    const before = native().mappingsLive();
    await expect(memory.addRegion({ gpa: HIGH, size: PAGE })).rejects.toThrow(/^planted$/);
    expect(told).toEqual(['first add', 'second add', 'second remove', 'first remove']);
    expect(tables).toEqual([
      [0, 0x8000, HIGH],
      [0, 0x8000, HIGH],
      [0, 0x8000],
      [0, 0x8000],
    ]);
    expect(visible()).toEqual([0, 0x8000]);
    expect(memory.end).toBe(0x8000 + 2 * PAGE);
    await mappingsBecome(before);
  });

  test('says so when undoing fails too', async () => {
    const told: string[] = [];
    memory.onChange(async ({ kind }) => {
      told.push(kind);
      if (kind === 'remove') throw new Error('second');
    });
    memory.onChange(({ kind }) => {
      if (kind === 'add') throw new Error('first');
      return Promise.resolve();
    });
    await expect(memory.addRegion({ gpa: HIGH, size: PAGE })).rejects.toEqual(
      coded('VHOST_ERR_MEMORY_TABLE', 'first', 'undoing', 'second'),
    );
    expect(told).toEqual(['add', 'remove']);
    expect(visible()).toEqual([0, 0x8000]);
  });

  test('a change after one that failed goes well', async () => {
    let fail = true;
    memory.onChange(async () => {
      if (fail) throw new Error('planted');
    });
    await expect(memory.addRegion({ gpa: HIGH, size: PAGE })).rejects.toThrow('planted');
    fail = false;
    await memory.addRegion({ gpa: HIGH, size: PAGE });
    expect(visible()).toEqual([0, 0x8000, HIGH]);
  });
});

describe('removing a region', () => {
  test('hidden, then listeners, then unmapped', async () => {
    const region = memory.regionOf(0x8000, 1);
    region.u8[0] = 1;
    const seen: unknown[] = [];
    memory.onChange(async ({ kind, region }) => {
      await new Promise((resolve) => setTimeout(resolve, 5));
      seen.push(kind, region.gpa, region.u8[0], addresses(), visible(), memory.end);
    });
    const removing = memory.removeRegion(0x8000);
    await Promise.resolve();
    expect(() => memory.view(0x8000, 1)).toThrow(coded('VHOST_ERR_MEMORY_TABLE'));
    expect(region.u8.length).toBe(2 * PAGE);
    await removing;
    expect(seen).toEqual(['remove', 0x8000, 1, [0], [0], 4 * PAGE]);
    expect(region.u8.length).toBe(0);
    await mappingsBecome(mappings + 1);
  });

  test('stays when a listener fails, with what it held', async () => {
    const region = memory.regionOf(0x8000, 1);
    region.u8[7] = 77;
    const told: string[] = [];
    memory.onChange(async ({ kind }) => void told.push(`first ${kind}`));
    memory.onChange(async ({ kind }) => {
      told.push(`second ${kind}`);
      if (kind === 'remove') throw new Error('planted');
    });
    await expect(memory.removeRegion(0x8000)).rejects.toThrow(/^planted$/);
    expect(told).toEqual(['first remove', 'second remove', 'second add', 'first add']);
    expect(visible()).toEqual([0, 0x8000]);
    expect(addresses()).toEqual([0, 0x8000]);
    expect(memory.view(0x8007, 1)[0]).toBe(77);
    expect(memory.regionOf(0x8000, 1)).toBe(region);
  });

  test('that is not there, or is the last', async () => {
    await expect(memory.removeRegion(0x9000)).rejects.toEqual(coded('VHOST_ERR_MEMORY_TABLE', '0x9000'));
    await memory.removeRegion(0);
    await expect(memory.removeRegion(0x8000)).rejects.toEqual(coded('VHOST_ERR_MEMORY_TABLE', 'last'));
    expect(visible()).toEqual([0x8000]);
  });
});

describe('several changes', () => {
  test('run one after the other', async () => {
    let running = 0;
    let most = 0;
    memory.onChange(async () => {
      most = Math.max(most, ++running);
      await new Promise((resolve) => setTimeout(resolve, 2));
      running--;
    });
    const results = await Promise.allSettled([
      memory.addRegion({ gpa: HIGH, size: PAGE }),
      memory.addRegion({ gpa: HIGH, size: PAGE }),
      memory.removeRegion(HIGH),
      memory.addRegion({ gpa: HIGH, size: 2 * PAGE }),
    ]);
    expect(results.map(({ status }) => status)).toEqual(['fulfilled', 'rejected', 'fulfilled', 'fulfilled']);
    expect(most).toBe(1);
    expect(memory.end).toBe(HIGH + 2 * PAGE);
  });

  test('a listener that stopped listening hears no more, even of the change at hand', async () => {
    const told: string[] = [];
    memory.onChange(async () => {
      told.push('first');
      stop();
    });
    const stop = memory.onChange(async () => void told.push('second'));
    await memory.addRegion({ gpa: HIGH, size: PAGE });
    expect(told).toEqual(['first']);
  });

  test.each(['add', 'remove'] as const)('close while a listener works on %s', async (kind) => {
    let listening = (): void => undefined;
    const begun = new Promise<void>((resolve) => {
      listening = resolve;
    });
    let region: MemoryChange['region'] | undefined;
    let told = 0;
    memory.onChange(async (change) => {
      told++;
      region = change.region;
      listening();
      await new Promise((resolve) => setTimeout(resolve, 5));
    });
    const change = kind === 'add' ? memory.addRegion({ gpa: HIGH, size: PAGE }) : memory.removeRegion(0x8000);
    const failed = expect(change).rejects.toEqual(coded('VHOST_ERR_CLOSED'));
    await begun;
    memory.close();
    await failed;
    expect(told).toBe(1);
    expect(region!.u8.length).toBe(0);
    await mappingsBecome(mappings);
  });
});

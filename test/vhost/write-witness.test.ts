import { GuestMemory, type GuestRegion } from '../../lib/memory/guest-memory';
import { PageBitmap } from '../../lib/memory/page-bitmap';
import { native } from '../../lib/native';
import { WriteWitness } from '../../lib/observe/write-witness';
import { errorOf } from '../helpers/vhost-wait';

const PAGE = 4096;
const HIGH = 5 * 1024 ** 3;

/** Writes one byte as a device would: through the mapping that devices are told of. */
function deviceWrites(memory: GuestMemory, ...addresses: number[]): void {
  const mapped = new Map<GuestRegion, Uint8Array>();
  for (const gpa of addresses) {
    const region = memory.regionOf(gpa, 1);
    const bytes = mapped.get(region) ?? new Uint8Array(native().mappingBuffer(region.mapping) as ArrayBuffer);
    mapped.set(region, bytes);
    bytes[gpa - region.gpa] = 0x5a;
  }
}

/** GPAs of the pages that devices wrote since the last call. */
async function seen(witness: WriteWitness): Promise<number[]> {
  const bitmap = new PageBitmap(0);
  const count = await witness.takeInto(bitmap);
  expect(bitmap.count()).toBe(count);
  const found: number[] = [];
  for (const { page, pages } of bitmap.ranges()) for (let i = 0; i < pages; i++) found.push((page + i) * PAGE);
  return found;
}

const make = (): GuestMemory =>
  GuestMemory.create(
    [
      { gpa: 3 * PAGE, size: 128 * PAGE },
      { gpa: HIGH, size: 64 * PAGE },
    ],
    { deviceMapping: 'separate' },
  );

test('memory whose devices have no mapping of their own is refused', () => {
  const memory = GuestMemory.create([{ gpa: 0, size: PAGE }]);
  expect(() => WriteWitness.start(memory)).toThrow(/only devices write/);
  memory.close();
});

(WriteWitness.available() ? describe : describe.skip)('the witness (needs PAGEMAP_SCAN, Linux 6.7)', () => {
  let memory: GuestMemory;
  let witness: WriteWitness;

  beforeEach(() => {
    memory = make();
    deviceWrites(memory, 3 * PAGE);
    witness = WriteWitness.start(memory);
  });

  afterEach(() => {
    witness.close();
    memory.close();
  });

  test('sees what devices write, in every region, and nothing else', async () => {
    expect(await seen(witness)).toEqual([]);
    memory.write(10 * PAGE, new Uint8Array(3 * PAGE).fill(1));
    memory.view(HIGH, 1)[0] = 1;
    expect(await seen(witness)).toEqual([]);
    deviceWrites(memory, 3 * PAGE + 5, 10 * PAGE, 130 * PAGE + 4095, HIGH + 63 * PAGE);
    expect(await seen(witness)).toEqual([3 * PAGE, 10 * PAGE, 130 * PAGE, HIGH + 63 * PAGE]);
    expect(await seen(witness)).toEqual([]);
  });

  test('sees a page again after every take', async () => {
    for (let round = 0; round < 5; round++) {
      deviceWrites(memory, 20 * PAGE);
      memory.write(21 * PAGE, Uint8Array.of(round));
      expect(await seen(witness)).toEqual([20 * PAGE]);
    }
  });

  test('what a device read is not written', async () => {
    memory.write(HIGH, Uint8Array.of(7));
    const device = new Uint8Array(native().mappingBuffer(memory.regionOf(HIGH, 1).mapping) as ArrayBuffer);
    expect(device[0]).toBe(7);
    expect(device[PAGE]).toBe(0);
    expect(await seen(witness)).toEqual([]);
  });

  test('counts what was not in the bitmap before', async () => {
    const bitmap = new PageBitmap(200);
    bitmap.set(50);
    deviceWrites(memory, 50 * PAGE, 51 * PAGE);
    expect(await witness.takeInto(bitmap)).toBe(1);
    expect([...bitmap.ranges()]).toEqual([{ page: 50, pages: 2 }]);
  });

  test('two takes at once share what was written', async () => {
    deviceWrites(memory, 20 * PAGE, 30 * PAGE, HIGH);
    const [one, two] = [new PageBitmap(0), new PageBitmap(0)];
    const counts = await Promise.all([witness.takeInto(one), witness.takeInto(two)]);
    expect(counts[0]! + counts[1]!).toBe(3);
    one.or(two);
    expect(one.count()).toBe(3);
  });

  test('many scattered pages', async () => {
    const big = GuestMemory.create([{ gpa: 0, size: 4096 * PAGE }], { deviceMapping: 'separate' });
    const watching = WriteWitness.start(big);
    const written = Array.from({ length: 2048 }, (_, i) => 2 * i * PAGE);
    deviceWrites(big, ...written);
    expect(await seen(watching)).toEqual(written);
    watching.close();
    big.close();
  });

  test('regions that come are watched, regions that go are not missed', async () => {
    const added = 2 * HIGH;
    await memory.addRegion({ gpa: added, size: 4 * PAGE });
    memory.write(added, Uint8Array.of(1));
    deviceWrites(memory, added + PAGE, HIGH);
    expect(await seen(witness)).toEqual([HIGH, added + PAGE]);
    deviceWrites(memory, 4 * PAGE);
    await memory.removeRegion(added);
    await memory.removeRegion(HIGH);
    expect(await seen(witness)).toEqual([4 * PAGE]);
  });

  test('a region that goes during a take is no failure of it', async () => {
    deviceWrites(memory, 4 * PAGE, HIGH);
    const taking = seen(witness);
    await memory.removeRegion(HIGH);
    expect(await taking).toEqual([4 * PAGE]);
  });

  test('closes once, and says so', async () => {
    witness.close();
    witness.close();
    expect(witness.closed).toBe(true);
    expect((await errorOf(witness.takeInto(new PageBitmap(0)))).code).toBe('VHOST_ERR_CLOSED');
    deviceWrites(memory, 4 * PAGE);
    await memory.addRegion({ gpa: 2 * HIGH, size: PAGE });
    witness = WriteWitness.start(memory);
    expect(await seen(witness)).toEqual([]);
  });
});

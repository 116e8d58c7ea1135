import { fstatSync, readdirSync, readFileSync } from 'node:fs';
import { native } from '../../lib/native';
import { EINVAL, freeMemory, makeMemory, ok, PAGE, PROT_READ_WRITE } from './support';

describe('dirty log', () => {
  test('take moves the bits and counts the new ones', () => {
    const mapping = ok(native().mappingCreate(null, 0, PAGE, 0, PROT_READ_WRITE));
    const log = new BigUint64Array(ok(native().mappingBuffer(mapping)));
    log[0] = 0b101n;
    log[511] = 1n << 63n;
    const target = new BigUint64Array(512);
    target[0] = 0b001n;
    expect(native().dirtyLogTake(mapping, target)).toBe(2);
    expect([target[0], target[511], log[0], log[511]]).toEqual([0b101n, 1n << 63n, 0n, 0n]);
    expect(native().dirtyLogTake(mapping, target)).toBe(0);
    log[3] = 1n;
    expect(native().dirtyLogTake(mapping, target.subarray(0, 3))).toBe(0);
    expect(log[3]).toBe(1n);
    native().mappingClose(mapping);
  });

  test('count and indexes', () => {
    const bitmap = new BigUint64Array([1n, 0n, (1n << 63n) | 4n]);
    const out = new Uint32Array(8);
    expect(native().bitmapCount(bitmap)).toBe(3);
    expect(native().bitmapIndexes(bitmap, 0, out)).toBe(3);
    expect([...out.subarray(0, 3)]).toEqual([0, 130, 191]);
    expect(native().bitmapIndexes(bitmap, 131, out)).toBe(1);
    expect(out[0]).toBe(191);
    expect(native().bitmapIndexes(bitmap, 0, out.subarray(0, 2))).toBe(2);
    expect(native().bitmapIndexes(bitmap, 192, out)).toBe(0);
    expect(native().bitmapIndexes(new BigUint64Array(0), 0, out)).toBe(0);
    expect(native().bitmapCount(new BigUint64Array(0))).toBe(0);
  });
});

describe('pages', () => {
  test('holes are found, read as zeros and stay holes', async () => {
    const memory = makeMemory(64);
    memory.bytes[3 * PAGE] = 1;
    memory.bytes[40 * PAGE + 7] = 2;
    const allocated = () => fstatSync(native().fdNumber(memory.fd)).blocks;
    const before = allocated();
    expect(native().memfdDataRanges(memory.fd, 0, 64 * PAGE)).toEqual([3 * PAGE, PAGE, 40 * PAGE, PAGE]);
    expect(native().memfdDataRanges(memory.fd, 4 * PAGE, 40 * PAGE)).toEqual([]);
    const page = new Uint8Array(PAGE).fill(9);
    expect(native().fdPread(memory.fd, page, 10 * PAGE)).toBe(PAGE);
    expect(native().rangeIsZero(page)).toBe(1);
    expect(native().fdPread(memory.fd, page, 63 * PAGE + 100)).toBe(PAGE - 100);
    const hashes = new BigUint64Array(64);
    expect(await native().pageHashes(memory.fd, 0, 64 * PAGE, hashes)).toBe(0);
    expect(allocated()).toBe(before);
    const zero = hashes[0];
    expect([...hashes.keys()].filter((index) => hashes[index] !== zero)).toEqual([3, 40]);

    const direct = new BigUint64Array(66);
    expect(native().pageHashesOf(memory.bytes, direct, 2)).toBe(0);
    expect(direct.subarray(2)).toEqual(hashes);
    expect(native().pageHashesOf(memory.bytes, direct, 3)).toBe(EINVAL);
    expect(native().pageHashesOf(memory.bytes.subarray(1), direct, 0)).toBe(EINVAL);
    freeMemory(memory);
  });

  test('hashes that cannot be made', async () => {
    const { fd, mapping } = makeMemory(4);
    const out = new BigUint64Array(8);
    expect(await native().pageHashes(fd, 1, PAGE, out)).toBe(EINVAL);
    expect(await native().pageHashes(fd, 0, PAGE + 1, out)).toBe(EINVAL);
    expect(await native().pageHashes(fd, 0, 8 * PAGE, out)).toBe(-61);
    expect(() => native().pageHashes(fd, 0, 9 * PAGE, out)).toThrow(/out must be/);
    native().mappingClose(mapping);
    native().fdClose(fd);
  });

  test('an output array that is detached meanwhile is left alone', async () => {
    const memory = makeMemory(1024);
    memory.bytes.fill(1);
    const out = new BigUint64Array(1024);
    const running = native().pageHashes(memory.fd, 0, 1024 * PAGE, out);
    structuredClone(out, { transfer: [out.buffer] });
    expect(out.length).toBe(0);
    expect(await running).toBe(0);
    freeMemory(memory);
  });

  test('rangeIsZero finds one bit anywhere', () => {
    const bytes = new Uint8Array(300);
    for (let at = 0; at < bytes.length; at++) {
      bytes[at] = 0x80;
      expect(native().rangeIsZero(bytes)).toBe(0);
      expect(native().rangeIsZero(bytes.subarray(0, at))).toBe(1);
      bytes[at] = 0;
    }
    expect(native().rangeIsZero(bytes)).toBe(1);
  });

  test('a call on the thread pool runs with its signals blocked, and only then', async () => {
    const memory = makeMemory(32768);
    memory.bytes.fill(5);
    const usr2 = 1n << 11n;
    const blocking = () =>
      readdirSync('/proc/self/task').filter((task) => {
        const status = readFileSync(`/proc/self/task/${task}/status`, 'utf8');
        return (BigInt(`0x${/SigBlk:\s*(\w+)/.exec(status)?.[1]}`) & usr2) !== 0n;
      });
    await native().membarrier();
    const idle = blocking();
    const hash = () => native().pageHashes(memory.fd, 0, 32768 * PAGE, new BigUint64Array(32768));
    const running = Promise.all(Array.from({ length: 16 }, hash));
    const end = Date.now() + 1000;
    let worker: string | undefined;
    while (worker === undefined && Date.now() < end) worker = blocking().find((task) => !idle.includes(task));
    expect(worker).toBeDefined();
    expect(new Set(await running)).toEqual(new Set([0]));
    expect(blocking()).not.toContain(worker);
    freeMemory(memory);
  });
});

describe('write witness', () => {
  const probe = makeMemory(1);
  const started = native().writeWitnessStart(probe.mapping);
  const available = typeof started !== 'number';
  if (typeof started !== 'number') native().fdClose(started);
  freeMemory(probe);

  (available ? test : test.skip)(
    'sees writes through its mapping and no others (needs PAGEMAP_SCAN, Linux 6.7)',
    async () => {
      const memory = makeMemory(128);
      const watched = ok(native().mappingCreate(memory.fd, 0, 128 * PAGE, 0, PROT_READ_WRITE));
      const bytes = new Uint8Array(ok(native().mappingBuffer(watched)));
      bytes[0] = 1;
      const witness = ok(native().writeWitnessStart(watched));
      const target = new BigUint64Array(3);
      expect(await native().writeWitnessTake(watched, target, 0)).toBe(0);
      memory.bytes[5 * PAGE] = 1;
      expect(bytes[5 * PAGE]).toBe(1);
      bytes[6 * PAGE] = 1;
      bytes[127 * PAGE] = 1;
      expect(await native().writeWitnessTake(watched, target, 64)).toBe(2);
      expect([...target]).toEqual([0n, 1n << 6n, 1n << 63n]);
      expect(await native().writeWitnessTake(watched, target, 64)).toBe(0);
      bytes[6 * PAGE] = 2;
      expect(await native().writeWitnessTake(watched, target, 64)).toBe(0);
      native().fdClose(witness);
      expect(await native().writeWitnessTake(watched, target, 0)).toBeLessThan(0);
      native().mappingClose(watched);
      freeMemory(memory);
    },
  );
});

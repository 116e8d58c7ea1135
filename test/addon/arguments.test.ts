import { openSync } from 'node:fs';
import type { NativeAddon } from '../../lib/native';
import { native } from '../../lib/native';
import { freeMemory, makeMemory, ok, PAGE } from './support';

type Loose = Record<string, (...args: unknown[]) => unknown>;
const addon = native() as unknown as Loose;
const WITHOUT_ARGUMENTS = ['mappingsLive', 'membarrier', 'monotonicMicros', 'socketPair'];
const FIRST_IS_NO_HANDLE = [
  'fdAdopt',
  'fdOpen',
  'memfdCreate',
  'eventFdCreate',
  'vhostOpen',
  'vhostAdopt',
  'tapOpen',
  'netdevIoctl',
  'pageStoreCreate',
  'netnsOpen',
  'socketCreate',
];
const SECOND_IS_HANDLE = ['pageStoreKeep', 'pageLinkSend', 'pageLinkReceive'];
const FIRST_IS_ARRAY = ['bitmapCount', 'bitmapIndexes', 'rangeIsZero', 'pageHashesOf'];

const wrongType = expect.objectContaining({ code: 'ERR_INVALID_ARG_TYPE' });
const outOfRange = expect.objectContaining({ code: 'ERR_OUT_OF_RANGE' });

describe('every function refuses wrong types before it does anything', () => {
  const names = Object.keys(addon).filter((name) => !WITHOUT_ARGUMENTS.includes(name));

  test('the addon has functions', () => {
    expect(names.length).toBeGreaterThan(85);
  });

  test.each(names)('%s without arguments', (name) => {
    expect(() => addon[name]?.()).toThrow(wrongType);
  });

  test.each(names)('%s with values of other types', (name) => {
    for (const value of [undefined, {}, Symbol('x'), true, [], new Date(), () => {}]) {
      expect(() => addon[name]?.(...Array(8).fill(value))).toThrow();
    }
  });

  test.each(names.filter((name) => !FIRST_IS_NO_HANDLE.includes(name) && !FIRST_IS_ARRAY.includes(name)))(
    '%s with a handle of another kind',
    (name) => {
      const memory = makeMemory(1);
      const poll = ok(native().pollStart(ok(native().eventFdCreate(0, 0)), 1, () => {}));
      const vhost = ok(native().vhostAdopt(native().fdNumber(ok(native().fdDup(memory.fd)))));
      const store = ok(native().pageStoreCreate([0, PAGE], [memory.mapping], [memory.fd]));
      const link = ok(native().pageLinkCreate(memory.fd, 0, 1, 1));
      const handles: Record<string, unknown> = { fd: memory.fd, mapping: memory.mapping, poll, vhost, store, link };
      const refused = Object.values(handles).filter((handle) => {
        try {
          addon[name]?.(handle);
          return false;
        } catch (error) {
          return (error as { message: string }).message.includes('handle');
        }
      });
      expect(refused.length).toBe(SECOND_IS_HANDLE.includes(name) ? 6 : 5);
      native().pollStop(poll);
      freeMemory(memory);
    },
  );
});

describe('numbers', () => {
  const { fd, mapping } = makeMemory(2);
  afterAll(() => {
    native().mappingClose(mapping);
    native().fdClose(fd);
  });

  test.each([-1, 0.5, Number.NaN, Number.POSITIVE_INFINITY, 2 ** 53])('a size of %d', (size) => {
    expect(() => native().memfdCreate('x', size, 0)).toThrow(outOfRange);
    expect(() => native().fdPread(fd, new Uint8Array(1), size)).toThrow(outOfRange);
    expect(() => native().mappingCreate(fd, size, PAGE, 0, 3)).toThrow(outOfRange);
  });

  test.each([2 ** 31, -(2 ** 31) - 1, 1.5])('an int of %d', (number) => {
    expect(() => native().fdAdopt(number)).toThrow(outOfRange);
  });

  test('strings with a zero byte', () => {
    expect(() => native().fdOpen('/dev/null\0/etc/passwd', 0)).toThrow(outOfRange);
    expect(() => native().memfdCreate('a\0b', PAGE, 0)).toThrow(outOfRange);
  });

  test('typed arrays of another element type', () => {
    expect(() => native().fdPread(fd, new Uint16Array(4) as unknown as Uint8Array, 0)).toThrow(wrongType);
    expect(() => native().bitmapCount(new BigInt64Array(4) as unknown as BigUint64Array)).toThrow(wrongType);
    expect(() => native().rangeIsZero(new ArrayBuffer(4) as unknown as Uint8Array)).toThrow(wrongType);
  });

  test('frames that do not fit the arena or the lengths', () => {
    const arena = new Uint8Array(1000);
    expect(() => native().framesRead(fd, arena, 100, 11, new Int32Array(11))).toThrow(outOfRange);
    expect(() => native().framesRead(fd, arena, 100, 10, new Int32Array(9))).toThrow(outOfRange);
    expect(() => native().framesRead(fd, arena, 0, 10, new Int32Array(10))).toThrow(outOfRange);
    expect(() => native().framesWrite(fd, arena, 2 ** 32 - 1, 2 ** 32 - 1, new Int32Array(1))).toThrow(outOfRange);
  });

  test('poll events', () => {
    expect(() => native().pollStart(fd, 0, () => {})).toThrow(outOfRange);
    expect(() => native().pollStart(fd, 16, () => {})).toThrow(outOfRange);
    expect(native().pollStart(fd, 1, () => {})).toBe(-1);
  });
});

describe('a vhost handle around something that is no vhost device', () => {
  const open = () => ok(native().vhostAdopt(openSync('/dev/null', 'r+')));
  const ENOTTY = -25;

  test('answers the errno of every ioctl and closes once', async () => {
    const vhost = open();
    const log = ok(native().mappingCreate(null, 0, PAGE, 0, 3));
    const results = await Promise.all([
      native().vhostSetOwner(vhost),
      native().vhostResetOwner(vhost),
      native().vhostGetFeatures(vhost),
      native().vhostSetFeatures(vhost, 0n),
      native().vhostGetFeaturesArray(vhost),
      native().vhostSetFeaturesArray(vhost, 0n, 0n),
      native().vhostGetBackendFeatures(vhost),
      native().vhostSetBackendFeatures(vhost, 0n),
      native().vhostSetForkFromOwner(vhost, 0),
      native().vhostGetForkFromOwner(vhost),
      native().vhostSetMemTable(vhost, [0, PAGE, native().mappingAddress(log)], [log], 0),
      native().vhostSetLogBase(vhost, native().mappingAddress(log), log),
      native().vhostSetLogBase(vhost, 0n, null),
      native().vhostSetLogFd(vhost, -1),
      native().vhostSetVringNum(vhost, 0, 256),
      native().vhostSetVringBase(vhost, 0, 0),
      native().vhostGetVringBase(vhost, 0),
      native().vhostSetVringAddr(vhost, 0, 0, 0, 0n, 0, 2n ** 64n - 1n),
      native().vhostSetVringKick(vhost, 0, 0),
      native().vhostSetVringCall(vhost, 0, 99999),
      native().vhostSetVringErr(vhost, 0, -1),
      native().vhostSetVringEndian(vhost, 0, 0),
      native().vhostGetVringEndian(vhost, 0),
      native().vhostSetVringBusyloopTimeout(vhost, 0, 0),
      native().vhostGetVringBusyloopTimeout(vhost, 0),
      native().vhostNetSetBackend(vhost, 0, -1),
      native().vhostNewWorker(vhost),
      native().vhostFreeWorker(vhost, 0),
      native().vhostAttachVringWorker(vhost, 0, 0),
      native().vhostGetVringWorker(vhost, 0),
      native().vhostIoctl(vhost, 0xaf01, null),
      native().vhostIoctl(vhost, 0xaf01, new Uint8Array(0)),
      native().vhostIoctl(vhost, 0xaf01, new Uint8Array(5000)),
    ]);
    expect(new Set(results)).toEqual(new Set([ENOTTY]));
    native().mappingClose(log);
    const closings = [native().vhostClose(vhost), native().vhostClose(vhost)];
    expect(native().vhostFdNumber(vhost)).toBe(-9);
    expect(await native().vhostSetOwner(vhost)).toBe(-9);
    expect(await Promise.all(closings)).toEqual([0, 0]);
    expect(await native().vhostClose(vhost)).toBe(0);
  });

  test('closing lets running calls finish first', async () => {
    const vhost = open();
    const order: string[] = [];
    const calls = Array.from({ length: 50 }, async () => {
      expect(await native().vhostSetOwner(vhost)).toBe(ENOTTY);
      order.push('call');
    });
    const closing = native()
      .vhostClose(vhost)
      .then(() => order.push('close'));
    await Promise.all([...calls, closing]);
    expect(order.length).toBe(51);
    expect(order[50]).toBe('close');
  });

  test('u64 arguments', async () => {
    const vhost = open();
    const addr = (value: number | bigint) => native().vhostSetVringAddr(vhost, 0, 0, value, 0, 0, 0);
    expect(await addr(2n ** 64n - 1n)).toBe(ENOTTY);
    expect(await addr(Number.MAX_SAFE_INTEGER)).toBe(ENOTTY);
    for (const value of [2n ** 64n, -1n, -1, 0.5, 2 ** 53]) expect(() => addr(value)).toThrow(outOfRange);
    expect(() => native().vhostSetMemTable(vhost, [0, 1], [], 0)).toThrow(outOfRange);
    expect(() => native().vhostSetMemTable(vhost, [0, 1, '2' as unknown as number], [], 0)).toThrow(wrongType);
    expect(() =>
      native().vhostSetMemTable(vhost, [], [{}] as unknown as Parameters<NativeAddon['vhostSetMemTable']>[2], 0),
    ).toThrow(wrongType);
    expect(() => native().vhostSetMemTable(vhost, new Array(2 ** 32 - 1), [], 0)).toThrow(wrongType);
    expect(() => native().vhostIoctl(vhost, 0, new Uint8Array(2 ** 21))).toThrow(outOfRange);
    const closed = ok(native().mappingCreate(null, 0, PAGE, 0, 3));
    native().mappingClose(closed);
    expect(await native().vhostSetMemTable(vhost, [], [closed], 0)).toBe(-22);
    expect(await native().vhostSetLogBase(vhost, 0, closed)).toBe(-22);
    await native().vhostClose(vhost);
  });

  test('opening what is not there', async () => {
    expect(await native().vhostOpen('/nonexistent')).toBe(-2);
    expect(native().vhostAdopt(-1)).toBe(-9);
  });
});

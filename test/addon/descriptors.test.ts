import { closeSync, fstatSync, openSync, readFileSync, writeSync } from 'node:fs';
import { native } from '../../lib/native';
import { EAGAIN, EBADF, ENOENT, inChild, makeMemory, ok, PAGE } from './support';

const O_RDONLY = 0;
const cloexec = (fd: number): boolean =>
  (Number.parseInt(/flags:\s*(\d+)/.exec(readFileSync(`/proc/self/fdinfo/${fd}`, 'utf8'))?.[1] ?? '0', 8) &
    0o2000000) !==
  0;

describe('descriptors', () => {
  test('adopt takes ownership and sets close-on-exec', () => {
    const number = openSync('/dev/null', 'r');
    const fd = ok(native().fdAdopt(number));
    expect(native().fdNumber(fd)).toBe(number);
    expect(cloexec(number)).toBe(true);
    expect(native().fdClose(fd)).toBe(0);
    expect(() => fstatSync(number)).toThrow(expect.objectContaining({ code: 'EBADF' }));
  });

  test('adopt refuses what is not open', () => {
    expect(native().fdAdopt(-1)).toBe(EBADF);
    expect(native().fdAdopt(1_000_000)).toBe(EBADF);
  });

  test('open adds close-on-exec and answers the errno', () => {
    const fd = ok(native().fdOpen('/dev/null', O_RDONLY));
    expect(cloexec(native().fdNumber(fd))).toBe(true);
    native().fdClose(fd);
    expect(native().fdOpen('/nonexistent', O_RDONLY)).toBe(ENOENT);
  });

  test('a duplicate lives on when the original is closed', () => {
    const one = ok(native().eventFdCreate(5, 0));
    const two = ok(native().fdDup(one));
    expect(native().fdNumber(two)).not.toBe(native().fdNumber(one));
    native().fdClose(one);
    expect(native().eventFdDrain(two)).toBe(5);
    native().fdClose(two);
  });

  test('a released descriptor stays open and is the caller’s', () => {
    const fd = ok(native().eventFdCreate(0, 0));
    const number = native().fdNumber(fd);
    const poll = ok(native().pollStart(fd, 1, () => {}));
    expect(native().fdRelease(fd)).toBe(-16);
    native().pollStop(poll);
    const other = ok(native().eventFdCreate(0, 0));
    const released = native().fdRelease(other);
    expect(native().fdNumber(other)).toBe(EBADF);
    expect(fstatSync(released).isFile()).toBe(false);
    closeSync(released);
    expect(native().fdNumber(fd)).toBe(number);
    native().fdClose(fd);
  });

  test('a closed descriptor answers -EBADF everywhere and closes again', async () => {
    const fd = ok(native().eventFdCreate(0, 0));
    expect(native().fdClose(fd)).toBe(0);
    expect(native().fdClose(fd)).toBe(0);
    expect(await native().fdCloseAsync(fd)).toBe(0);
    expect(native().fdNumber(fd)).toBe(EBADF);
    expect(native().fdDup(fd)).toBe(EBADF);
    expect(native().fdRelease(fd)).toBe(EBADF);
    expect(native().fdSeals(fd)).toBe(EBADF);
    expect(native().socketAccept(fd)).toBe(EBADF);
    expect(native().socketBind(fd, '/tmp/x', 0)).toBe(EBADF);
    expect(native().socketSendDescriptors(fd, new Uint8Array(1), [])).toBe(EBADF);
    expect(native().socketReceiveDescriptors(fd, new Uint8Array(1), 0)).toBe(EBADF);
    expect(native().eventFdSignal(fd)).toBe(EBADF);
    expect(native().eventFdDrain(fd)).toBe(EBADF);
    expect(native().fdPread(fd, new Uint8Array(1), 0)).toBe(EBADF);
    expect(native().fdSetNonblocking(fd, true)).toBe(EBADF);
    expect(native().memfdDataRanges(fd, 0, 1)).toBe(EBADF);
    expect(native().mappingCreate(fd, 0, PAGE, 0, 3)).toBe(EBADF);
    expect(native().pollStart(fd, 1, () => {})).toBe(EBADF);
    expect(await native().pageHashes(fd, 0, PAGE, new BigUint64Array(1))).toBe(EBADF);
    expect(await native().tunSetCarrier(fd, 1)).toBe(EBADF);
    expect(await native().tunGetFilter(fd)).toBe(EBADF);
    expect(native().tunGetIff(fd)).toBe(EBADF);
    expect(native().framesRead(fd, new Uint8Array(64), 64, 1, new Int32Array(1))).toBe(EBADF);
  });

  test('the asynchronous close closes', async () => {
    const fd = ok(native().eventFdCreate(0, 0));
    const number = native().fdNumber(fd);
    const closing = native().fdCloseAsync(fd);
    expect(native().fdNumber(fd)).toBe(EBADF);
    expect(await closing).toBe(0);
    expect(() => fstatSync(number)).toThrow(expect.objectContaining({ code: 'EBADF' }));
  });

  test('closing while a call runs leaves the call its descriptor', async () => {
    const { fd, mapping, bytes } = makeMemory(4096);
    bytes.fill(3);
    const out = new BigUint64Array(4096);
    const number = native().fdNumber(fd);
    const running = native().pageHashes(fd, 0, 4096 * PAGE, out);
    native().fdClose(fd);
    expect(fstatSync(number).size).toBe(4096 * PAGE);
    expect(await running).toBe(0);
    expect(new Set(out).size).toBe(1);
    expect(out[0]).not.toBe(0n);
    expect(() => fstatSync(number)).toThrow(expect.objectContaining({ code: 'EBADF' }));
    native().mappingClose(mapping);
  });

  test('1000 cycles leak no descriptor', () => {
    const { stdout } = inChild(`
      await n.membarrier();
      const before = fds();
      for (let i = 0; i < 1000; i++) {
        const one = ok(n.eventFdCreate(0, 0));
        const two = ok(n.fdDup(one));
        n.fdClose(one);
        if (i % 2 === 0) n.fdClose(two);
        else await n.fdCloseAsync(two);
      }
      console.log(fds() - before);`);
    expect(stdout).toBe('0');
  });
});

describe('eventfd', () => {
  test('counts and drains', () => {
    const fd = ok(native().eventFdCreate(0, 0));
    expect(native().eventFdDrain(fd)).toBe(EAGAIN);
    for (let i = 0; i < 3; i++) expect(native().eventFdSignal(fd)).toBe(0);
    expect(native().eventFdDrain(fd)).toBe(3);
    expect(native().eventFdDrain(fd)).toBe(EAGAIN);
    native().fdClose(fd);
  });

  test('a full counter refuses one more instead of blocking', () => {
    const fd = ok(native().eventFdCreate(0, 0));
    const full = new BigUint64Array([0xffff_ffff_ffff_fffen]);
    writeSync(native().fdNumber(fd), full);
    expect(native().eventFdSignal(fd)).toBe(EAGAIN);
    expect(native().eventFdDrain(fd)).toBe(2 ** 64);
    native().fdClose(fd);
  });

  test('a descriptor that is no eventfd answers its errno', () => {
    const number = openSync('/dev/null', 'r');
    const fd = ok(native().fdAdopt(number));
    expect(native().eventFdSignal(fd)).toBe(EBADF);
    expect(native().eventFdDrain(fd)).toBeLessThan(0);
    native().fdClose(fd);
    expect(() => closeSync(number)).toThrow(expect.objectContaining({ code: 'EBADF' }));
  });
});

test('the monotonic clock is that of other processes', () => {
  const uptime = Number(readFileSync('/proc/uptime', 'utf8').split(' ')[0]);
  const before = native().monotonicMicros();
  expect(Math.abs(before / 1e6 - uptime)).toBeLessThan(5);
  expect(native().monotonicMicros()).toBeGreaterThan(before);
  expect(Math.abs(before - Number(process.hrtime.bigint() / 1000n))).toBeLessThan(1e6);
});

test('membarrier answers 0', async () => {
  expect(await native().membarrier()).toBe(0);
});

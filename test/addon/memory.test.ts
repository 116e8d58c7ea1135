import { native } from '../../lib/native';
import { EACCES, EINVAL, freeMemory, inChild, makeMemory, ok, PAGE, PROT_READ, PROT_READ_WRITE } from './support';

const MADV_DONTNEED = 4;

describe('mappings', () => {
  test('two mappings of one memfd show the same bytes', () => {
    const memory = makeMemory(16);
    const second = ok(native().mappingCreate(memory.fd, 4 * PAGE, PAGE, 0, PROT_READ_WRITE));
    const bytes = new Uint8Array(ok(native().mappingBuffer(second)));
    bytes[5] = 42;
    expect(memory.bytes[4 * PAGE + 5]).toBe(42);
    expect(native().mappingAddress(second)).not.toBe(native().mappingAddress(memory.mapping) + 4 * PAGE);
    native().mappingClose(second);
    freeMemory(memory);
  });

  test.each([0, 2 * 1024 * 1024, 1024 ** 3])('alignment %d', (align) => {
    const mapping = ok(native().mappingCreate(null, 0, PAGE, align, PROT_READ_WRITE));
    expect(native().mappingAddress(mapping) % Math.max(align, PAGE)).toBe(0);
    native().mappingClose(mapping);
  });

  test('refusals', () => {
    const { fd, mapping } = makeMemory(4);
    expect(native().mappingCreate(fd, 0, 5 * PAGE, 0, PROT_READ_WRITE)).toBe(EINVAL);
    expect(native().mappingCreate(fd, 100, PAGE, 0, PROT_READ_WRITE)).toBe(EINVAL);
    expect(native().mappingCreate(fd, 0, 0, 0, PROT_READ_WRITE)).toBe(EINVAL);
    expect(native().mappingCreate(fd, 0, PAGE, 3, PROT_READ_WRITE)).toBe(EINVAL);
    expect(native().mappingCreate(null, 0, PAGE, 0, 4)).toBe(EINVAL);
    expect(native().memfdCreate('x', 0, 0)).toBe(EINVAL);
    expect(native().memfdCreate('x', PAGE, 3)).toBe(EINVAL);
    expect(native().mappingAdvise(mapping, 3 * PAGE, 2 * PAGE, MADV_DONTNEED)).toBe(EINVAL);
    expect(native().mappingAdvise(mapping, 0, 4 * PAGE, MADV_DONTNEED)).toBe(0);
    const readOnly = ok(native().mappingCreate(fd, 0, PAGE, 0, PROT_READ));
    expect(native().mappingBuffer(readOnly)).toBe(EACCES);
    native().mappingClose(readOnly);
    native().mappingClose(mapping);
    native().fdClose(fd);
  });

  test('close detaches every buffer, and everything answers -EINVAL', async () => {
    const { fd, mapping, bytes } = makeMemory(4);
    const second = ok(native().mappingBuffer(mapping));
    const view = new DataView(second);
    expect(second).not.toBe(bytes.buffer);
    expect(native().mappingClose(mapping)).toBe(0);
    expect(bytes.length).toBe(0);
    expect(second.byteLength).toBe(0);
    expect(() => view.getUint8(0)).toThrow();
    expect(native().mappingClose(mapping)).toBe(0);
    expect(native().mappingAddress(mapping)).toBe(0);
    expect(native().mappingBuffer(mapping)).toBe(EINVAL);
    expect(native().mappingAdvise(mapping, 0, 1, 4)).toBe(EINVAL);
    expect(native().dirtyLogTake(mapping, new BigUint64Array(1))).toBe(EINVAL);
    expect(native().writeWitnessStart(mapping)).toBe(EINVAL);
    expect(await native().writeWitnessTake(mapping, new BigUint64Array(1), 0)).toBe(EINVAL);
    native().fdClose(fd);
  });

  test('the last of handle and buffers unmaps', () => {
    const { stdout } = inChild(`
      const mapping = ok(n.mappingCreate(null, 0, 4096, 0, 3));
      const buffers = [ok(n.mappingBuffer(mapping)), ok(n.mappingBuffer(mapping))];
      const before = n.mappingsLive();
      n.mappingClose(mapping);
      for (let turn = 0; turn < 100 && n.mappingsLive() > 0; turn++) await sleep(1);
      console.log(before, n.mappingsLive(), ...buffers.map((buffer) => buffer.byteLength));`);
    expect(stdout).toBe('1 0 0 0');
  });

  test('1000 cycles leak neither mapping nor descriptor', () => {
    const { stdout, stderr, status } = inChild(`
      const maps = () => require('fs').readFileSync('/proc/self/maps', 'utf8').split('\\n').filter((line) => line.includes('leak-test')).length;
      const before = fds();
      for (let i = 0; i < 1000; i++) {
        const fd = ok(n.memfdCreate('leak-test', 65536, 0));
        const mapping = ok(n.mappingCreate(fd, 0, 65536, 0, 3));
        const buffer = ok(n.mappingBuffer(mapping));
        new Uint8Array(buffer)[0] = 1;
        n.mappingClose(mapping);
        n.fdClose(fd);
        if (i % 100 === 0) await sleep(1);
      }
      await collect();
      console.log(fds() - before, n.mappingsLive(), maps());`);
    expect({ stdout, stderr, status }).toEqual({ stdout: '0 0 0', stderr: '', status: 0 });
  });

  test('a thousand buffers of one mapping', () => {
    const { stdout } = inChild(`
      const mapping = ok(n.mappingCreate(null, 0, 4096, 0, 3));
      for (let i = 0; i < 1000; i++) ok(n.mappingBuffer(mapping));
      await collect();
      const last = ok(n.mappingBuffer(mapping));
      n.mappingClose(mapping);
      await collect();
      console.log(last.byteLength, n.mappingsLive());`);
    expect(stdout).toBe('0 0');
  });
});

describe('lifetime without close', () => {
  test('a buffer keeps the mapping when its handle is collected', () => {
    const { stdout } = inChild(`
      let buffer;
      (() => {
        const fd = ok(n.memfdCreate('m', 8192, 0));
        buffer = ok(n.mappingBuffer(ok(n.mappingCreate(fd, 0, 8192, 0, 3))));
      })();
      await collect();
      const held = n.mappingsLive();
      new Uint8Array(buffer).fill(9);
      buffer = undefined;
      await collect();
      console.log(held, n.mappingsLive());`);
    expect(stdout).toBe('1 0');
  });

  test('descriptors are closed by the collector', () => {
    const { stdout } = inChild(`
      const before = fds();
      (() => { for (let i = 0; i < 50; i++) ok(n.eventFdCreate(0, 0)); })();
      const open = fds() - before;
      await collect();
      console.log(open, fds() - before);`);
    expect(stdout).toBe('50 0');
  });

  test('a transferred buffer outlives close', () => {
    const { stdout } = inChild(`
      if (typeof ArrayBuffer.prototype.transfer !== 'function') { console.log('1 7 0'); return; }
      const mapping = ok(n.mappingCreate(null, 0, 4096, 0, 3));
      let moved = ok(n.mappingBuffer(mapping)).transfer();
      n.mappingClose(mapping);
      await collect();
      new Uint8Array(moved)[0] = 7;
      const seen = [n.mappingsLive(), new Uint8Array(moved)[0]];
      moved = undefined;
      await collect();
      console.log(...seen, n.mappingsLive());`);
    expect(stdout).toBe('1 7 0');
  });

  test('a buffer too large for this Node is refused and leaks nothing', () => {
    const { stdout } = inChild(`
      const mapping = ok(n.mappingCreate(null, 0, 5 * 1024 ** 3, 0, 3));
      let code = 'none';
      try { ok(n.mappingBuffer(mapping)); } catch (error) { code = error.code; }
      n.mappingClose(mapping);
      await collect();
      const expected = require('buffer').constants.MAX_LENGTH < 5 * 1024 ** 3 ? 'ERR_BUFFER_TOO_LARGE' : 'none';
      console.log(code === expected, n.mappingsLive());`);
    expect(stdout).toBe('true 0');
  });
});

describe('guard pages', () => {
  /** The permissions, as the kernel shows them, of the byte at an address. */
  const touch = (position: string) =>
    inChild(`
      const fd = ok(n.memfdCreate('guard', 8192, 0));
      const mapping = ok(n.mappingCreate(fd, 0, 8192, 0, 3));
      const start = n.mappingAddress(mapping);
      const lines = require('fs').readFileSync('/proc/self/maps', 'utf8').split('\\n').map((line) => {
        const [, from, to, mode] = /^(\\w+)-(\\w+) (....)/.exec(line) ?? [];
        return { from: parseInt(from, 16), to: parseInt(to, 16), mode };
      });
      const at = ${position};
      console.log(lines.find(({ from, to }) => from <= at && at < to).mode);`).stdout;

  test('lie on both sides and nothing may be done with them', () => {
    expect(touch('start - 1')).toBe('---p');
    expect(touch('start')).toBe('rw-s');
    expect(touch('start + 8191')).toBe('rw-s');
    expect(touch('start + 8192')).toBe('---p');
  });

  test('a log that is longer than its mapping is cut, not overrun', () => {
    const mapping = ok(native().mappingCreate(null, 0, PAGE, 0, PROT_READ_WRITE));
    new Uint8Array(ok(native().mappingBuffer(mapping))).fill(0xff);
    const target = new BigUint64Array(2 * (PAGE / 8));
    expect(native().dirtyLogTake(mapping, target)).toBe(PAGE * 8);
    native().mappingClose(mapping);
  });
});

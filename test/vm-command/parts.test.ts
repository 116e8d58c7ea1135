import { spawnSync } from 'node:child_process';
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import fc from 'fast-check';
import { defaultEnvironment, ensureVmPrepared } from '../../lib/vm';
import { cached } from '../../lib/vm/cache';
import { cpioArchive, S_IFDIR, S_IFLNK, S_IFREG } from '../../lib/vm/cpio';
import { shellQuoted } from '../../lib/vm/job';
import { newestOf } from '../../lib/vm/kernel';
import { dependenciesOf } from '../../lib/vm/kernel-modules';
import { TrailerFilter } from '../../lib/vm/trailer';

describe('TrailerFilter', () => {
  const trailer = '0123456789abcdef0123456789abcdef';
  const pieces = fc.array(
    fc.oneof(fc.uint8Array({ maxLength: 50 }), fc.constantFrom('0', '0123', '01230123', trailer.slice(0, -1))),
  );

  test('gives back exactly the bytes before the trailer, however they are cut', () => {
    fc.assert(
      fc.property(pieces, fc.array(fc.integer({ min: 1, max: 40 }), { minLength: 1 }), (parts, cuts) => {
        const stream = Buffer.concat(parts.map((part) => Buffer.from(part as Uint8Array)));
        const whole = Buffer.concat([stream, Buffer.from(trailer), Buffer.from('late')]);
        // Pieces may add up to the trailer itself, which ends the stream there; a real one is drawn anew for each run.
        fc.pre(whole.indexOf(trailer) === stream.length);
        const filter = new TrailerFilter(trailer);
        const out: Buffer[] = [];
        for (let at = 0, i = 0; at < whole.length; i++) {
          const length = cuts[i % cuts.length]!;
          out.push(filter.push(whole.subarray(at, at + length)));
          at += length;
        }
        expect(Buffer.concat(out)).toEqual(stream);
        expect(filter.ended).toBe(true);
      }),
    );
  });

  test('holds back nothing but a possible beginning, and gives that up at the end', () => {
    const filter = new TrailerFilter(trailer);
    expect(filter.push(Buffer.from('hello')).toString()).toBe('hello');
    expect(filter.push(Buffer.from('x0123')).toString()).toBe('x');
    expect(filter.ended).toBe(false);
    expect(filter.flush().toString()).toBe('0123');
  });
});

test('a quoted word comes through a shell unchanged', () => {
  const words = ["it's", '', 'a\nb', '$HOME', '`id`', '\\', '"', "'''", 'é\u0081🜁', '-n'];
  const script = `for word in ${words.map(shellQuoted).join(' ')}; do printf '%s\\0' "$word"; done`;
  const result = spawnSync('sh', ['-c', script]);
  expect(result.stdout.toString()).toBe(words.map((word) => `${word}\0`).join(''));
});

test('an archive is one that cpio reads', async () => {
  // Brings busybox where it is missing.
  await ensureVmPrepared();
  const folder = mkdtempSync(join(tmpdir(), 'vm-cpio-'));
  try {
    const archive = cpioArchive([
      { name: 'folder', mode: S_IFDIR | 0o755 },
      { name: 'folder/odd', mode: S_IFREG | 0o644, data: Buffer.from('12345') },
      { name: 'link', mode: S_IFLNK | 0o777, data: Buffer.from('folder/odd') },
    ]);
    expect(archive.length % 4).toBe(0);
    const result = spawnSync('busybox', ['cpio', '-i'], { cwd: folder, input: archive });
    expect(result.status).toBe(0);
    expect(readFileSync(join(folder, 'link'), 'utf8')).toBe('12345');
  } finally {
    rmSync(folder, { recursive: true });
  }
});

test('the newest kernel is chosen by number, the unsigned package among equals', () => {
  const names = [
    'linux-image-6.12.99+deb12-cloud-amd64-unsigned',
    'linux-image-6.12.117+deb12-cloud-amd64',
    'linux-image-6.12.117+deb12-cloud-amd64-unsigned',
    'linux-image-6.12.12+deb12-cloud-amd64',
  ];
  expect(newestOf(names)).toBe('linux-image-6.12.117+deb12-cloud-amd64-unsigned');
  expect(newestOf(['linux-image-6.1.0-9-cloud-amd64', 'linux-image-6.1.0-56-cloud-amd64'])).toBe(
    'linux-image-6.1.0-56-cloud-amd64',
  );
  expect(newestOf([])).toBeUndefined();
});

test('module dependencies are read from .modinfo', () => {
  expect(dependenciesOf(Buffer.from('\0license=GPL\0depends=vhost,tap,tun\0name=vhost_net\0'))).toEqual([
    'vhost',
    'tap',
    'tun',
  ]);
  expect(dependenciesOf(Buffer.from('\0depends=\0'))).toEqual([]);
});

test('the default environment keeps what it documents and nothing else', () => {
  const env = defaultEnvironment({
    PATH: '/x',
    SECRET: 's',
    NODE_OPTIONS: '--no-warnings',
    NODE_CHANNEL_FD: '3',
    CI: 'true',
  });
  expect(env).toMatchObject({
    PATH: '/x',
    NODE_OPTIONS: '--no-warnings',
    CI: 'true',
    VHOST_NET_VM: '1',
    LANG: 'C.UTF-8',
  });
  expect(Object.keys(env)).not.toEqual(expect.arrayContaining(['SECRET']));
  expect(env).not.toHaveProperty('NODE_CHANNEL_FD');
});

describe('cached()', () => {
  test('two at once make one whole entry; a failed one leaves nothing', async () => {
    const folder = mkdtempSync(join(tmpdir(), 'vm-cache-'));
    try {
      let filled = 0;
      const fill = async (staging: string): Promise<void> => {
        filled++;
        writeFileSync(join(staging, 'a'), 'a');
        await new Promise((done) => setTimeout(done, 20));
        writeFileSync(join(staging, 'b'), 'b');
      };
      const paths = await Promise.all([cached(folder, 'entry', fill), cached(folder, 'entry', fill)]);
      expect(paths[0]).toBe(paths[1]);
      expect(filled).toBe(2);
      expect(readdirSync(paths[0]).sort()).toEqual(['a', 'b']);
      await cached(folder, 'entry', fill);
      expect(filled).toBe(2);

      await expect(
        cached(folder, 'broken', async (staging) => {
          await fill(staging);
          throw new Error('planted');
        }),
      ).rejects.toThrow('planted');
      expect(existsSync(join(folder, 'broken'))).toBe(false);
      expect(readdirSync(folder)).toEqual(['entry']);
    } finally {
      rmSync(folder, { recursive: true });
    }
  });
});

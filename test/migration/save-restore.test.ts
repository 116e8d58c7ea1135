/** A guest goes into a file and comes out of it, on real taps; and what a file system or a damaged file does to either side. */

import { spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, mkdtempSync, readdirSync, rmSync, statSync, symlinkSync, writeFileSync } from 'node:fs';
import { type FileHandle, open, readFile, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Backend } from '../../lib/backend/backend';
import { VIRTIO_F_VERSION_1 } from '../../lib/constants/virtio-net';
import { VirtioNetDevice } from '../../lib/device/virtio-net-device';
import { gpa, PAGE_SIZE } from '../../lib/memory/address';
import { GuestWriteLog } from '../../lib/memory/dirty-log';
import { GuestMemory } from '../../lib/memory/guest-memory';
import type { DestinationHost } from '../../lib/migration/destination';
import type { SaveFile } from '../../lib/migration/file-stream';
import { encodeFrameHeader, FrameType, streamSeed } from '../../lib/migration/frame';
import type { Difference } from '../../lib/migration/messages';
import type { MigratableGuest } from '../../lib/migration/options';
import { restoreFromFile } from '../../lib/migration/restore';
import { saveToFile } from '../../lib/migration/save';
import { native } from '../../lib/native';
import { bits } from '../../lib/net/features';
import { hashPages } from '../../lib/observe/page-audit';
import { Rig } from '../helpers/migration-rig';
import { StubBackend } from '../helpers/stub-backend';

const SIZE = 64 * PAGE_SIZE;
const HIGH = 0x4000_0000;
const MAC = '02:00:00:00:00:02';
const folder = mkdtempSync(join(tmpdir(), 'vhost-net-save-'));
const path = join(folder, 'saved');

afterAll(() => rmSync(folder, { recursive: true }));
afterEach(() => {
  for (const name of readdirSync(folder)) rmSync(join(folder, name), { recursive: true });
});

const failure = (promise: Promise<unknown>): Promise<unknown> =>
  promise.then(
    () => new Error('it did not fail'),
    (error) => error,
  );

/** A guest of which only its pauses are told. */
class StubGuest implements MigratableGuest {
  running = true;
  readonly dirtySource = new GuestWriteLog(1);
  async pause(): Promise<void> {
    this.running = false;
  }
  resume(): void {
    this.running = true;
  }
  startDirtyLog(): void {}
  stopDirtyLog(): void {}
  save(): Record<string, unknown> {
    return { gpa: 4096 };
  }
}

interface Saved {
  memory: GuestMemory;
  backend: StubBackend;
  device: VirtioNetDevice;
  guest: StubGuest;
}

async function machine(): Promise<Saved> {
  const memory = GuestMemory.create([
    { gpa: 0, size: SIZE },
    { gpa: HIGH, size: SIZE },
  ]);
  memory.write(5 * PAGE_SIZE, Buffer.from('low'));
  memory.write(HIGH + 63 * PAGE_SIZE, new Uint8Array(PAGE_SIZE).fill(7));
  // Written once, and zero again.
  memory.write(9 * PAGE_SIZE, new Uint8Array(PAGE_SIZE));
  const backend = new StubBackend();
  const queue = {
    ready: true,
    nextAvail: 0,
    size: 64,
    descTable: gpa(0),
    availRing: gpa(0x1000),
    usedRing: gpa(0x2000),
  };
  const other = { ...queue, descTable: gpa(0x3000), availRing: gpa(0x4000), usedRing: gpa(0x6000) };
  const features = bits(VIRTIO_F_VERSION_1);
  const device = new VirtioNetDevice({ memory, backend, features, queues: [queue, other], mac: MAC });
  await device.start();
  return { memory, backend, device, guest: new StubGuest() };
}

async function discard({ device, memory }: { device: VirtioNetDevice; memory: GuestMemory }): Promise<void> {
  await device.close();
  memory.close();
}

class Host implements DestinationHost<StubGuest> {
  readonly made: string[] = [];
  readonly backend = new StubBackend();
  compare = async (): Promise<Difference[]> => [];
  createMemory = ({ regions }: { regions: { gpa: number; size: number }[] }) => GuestMemory.create(regions);
  createBackend = async () => this.backend;
  async createDevice(state: unknown, memory: GuestMemory, backend: Backend): Promise<VirtioNetDevice> {
    this.made.push('device');
    return VirtioNetDevice.restore(state, { memory, backend });
  }
  async createGuest(saved: Record<string, unknown>): Promise<StubGuest> {
    this.made.push(`guest ${JSON.stringify(saved)}`);
    const guest = new StubGuest();
    guest.running = false;
    return guest;
  }
}

describe('a guest with traffic', () => {
  let rig: Rig;
  beforeEach(async () => {
    rig = await Rig.create();
  });
  afterEach(() => rig.close());

  test('is saved, ends here, is restored at another tap, and has lost nothing that it sent', async () => {
    const [here, there] = [await rig.place('emulated'), await rig.place('emulated')];
    const before = await rig.boot(here);
    await rig.flows(before);
    const saved = await saveToFile(path, { device: before.device, guest: before.runner });
    expect(before.runner.running).toBe(false);
    expect(before.device.running).toBe(false);
    const hashes = await hashPages(before.memory);
    expect(saved.bytes).toBe(statSync(path).size);
    expect(saved.pages).toBeGreaterThan(100);
    await rig.discard(before);

    const still = await restoreFromFile(path, there.host(), { resume: false });
    expect(await hashPages(still.memory)).toEqual(hashes);
    expect(still.device.running).toBe(false);
    await discard(still);

    const { memory, device, guest: runner, pages, bytes } = await restoreFromFile(path, there.host());
    expect({ pages, bytes }).toEqual({ pages: saved.pages, bytes: saved.bytes });
    const after = { memory, device, runner };
    await rig.flows(after);
    const { toNetwork, toGuest } = await rig.settle(after);
    expect(toNetwork).toMatchObject({ lost: 0, duplicated: 0, reordered: 0, corrupted: 0 });
    expect(toNetwork.received).toBe(toNetwork.sent);
    expect(toGuest).toMatchObject({ duplicated: 0, reordered: 0, corrupted: 0 });
    await rig.discard(after);
  });

  test('goes on when it is asked to', async () => {
    const here = await rig.place('emulated');
    const { device, runner, memory } = await rig.boot(here);
    await rig.flows({ device, runner, memory });
    await saveToFile(path, { device, guest: runner }, { resume: true });
    expect(runner.running).toBe(true);
    await rig.flows({ device, runner, memory });
  });
});

describe('saving', () => {
  let saved: Saved;
  beforeEach(async () => {
    saved = await machine();
  });
  afterEach(() => discard(saved));

  /** A save that must fail: what it said, with the machine as before and no file more. */
  async function failing(run: () => Promise<unknown>): Promise<unknown> {
    const hashes = await hashPages(saved.memory);
    const files = readdirSync(folder);
    const open = readdirSync('/proc/self/fd').length;
    const error = await failure(run());
    expect(saved.guest.running).toBe(true);
    expect(saved.device.running).toBe(true);
    expect(await hashPages(saved.memory)).toEqual(hashes);
    expect(readdirSync(folder)).toEqual(files);
    expect(readdirSync('/proc/self/fd').length).toBeLessThanOrEqual(open);
    // Memory may change again.
    await saved.memory.addRegion({ gpa: 0x8000_0000, size: PAGE_SIZE });
    await saved.memory.removeRegion(0x8000_0000);
    return error;
  }

  test('is on the disk for its owner alone, and comes back as it was', async () => {
    const { pages, bytes, pausedMs } = await saveToFile(path, saved);
    expect({ pages, bytes }).toEqual({ pages: 3, bytes: statSync(path).size });
    expect(pausedMs).toBeGreaterThan(0);
    expect(statSync(path).mode & 0o777).toBe(0o600);
    expect(readdirSync(folder)).toEqual(['saved']);
    expect([saved.guest.running, saved.device.running]).toEqual([false, false]);
    const host = new Host();
    const restored = await restoreFromFile(path, host);
    expect(await hashPages(restored.memory)).toEqual(await hashPages(saved.memory));
    expect(host.made).toEqual(['device', 'guest {"gpa":4096}']);
    expect([restored.guest.running, restored.device.running]).toEqual([true, true]);
    await restored.device.stop();
    expect(restored.device.save()).toEqual(saved.device.save());
    await discard(restored);
  });

  test('replaces a file in one step', async () => {
    writeFileSync(path, 'what was there before');
    await saveToFile(path, saved, { resume: true });
    expect([saved.guest.running, saved.device.running]).toEqual([true, true]);
    await discard(await restoreFromFile(path, new Host()));
  });

  test('a full disk', async () => {
    writeFileSync(path, 'what was there before');
    const error = await failing(() => saveToFile(path, saved, { open: () => open('/dev/full', 'w') }));
    expect(error).toMatchObject({
      code: 'ENOSPC',
      errno: -28,
      syscall: 'write',
      path: `${path}.partial`,
      hint: expect.stringContaining('disk is full'),
    });
    expect(await readFile(path, 'utf8')).toBe('what was there before');
  });

  test('a file that may grow no further', () => {
    const lib = join(__dirname, '../..');
    const script = `
      const { GuestMemory } = require('${lib}/lib/memory/guest-memory');
      const { VirtioNetDevice } = require('${lib}/lib/device/virtio-net-device');
      const { StubBackend } = require('${lib}/test/helpers/stub-backend');
      const { saveToFile } = require('${lib}/lib/migration/save');
      const memory = GuestMemory.create([{ gpa: 0, size: 1 << 20 }]);
      memory.view(0, 1 << 20).fill(1);
      const queue = { ready: true, nextAvail: 0, size: 64, descTable: 0, availRing: 0x1000, usedRing: 0x2000 };
      const queues = [queue, queue];
      const device = new VirtioNetDevice({ memory, backend: new StubBackend(), features: 1n << 32n, queues, mac: '${MAC}' });
      // Not before: a memfd is a file too.
      require('child_process').execFileSync('prlimit', ['--pid', String(process.pid), '--fsize=65536']);
      const said = [];
      const guest = { pause: async () => said.push('paused'), resume: () => said.push('resumed'), save: () => ({}) };
      saveToFile('${path}', { device, guest }).catch((error) => console.log(error.code, error.hint, ...said));`;
    const child = spawnSync(process.execPath, ['-e', script], { encoding: 'utf8' });
    expect(child.stderr).toBe('');
    expect(child.stdout.trim()).toBe('EFBIG files may not be so large: see ulimit -f paused resumed');
    expect(readdirSync(folder)).toEqual([]);
  });

  /** A real file, of which one call fails. */
  const breaking =
    (call: 'write' | 'sync' | 'close', after = 0) =>
    async (name: string): Promise<SaveFile> => {
      const file: FileHandle = await open(name, 'wx');
      let left = after;
      const fault = async (): Promise<void> => {
        if (left-- > 0) return;
        throw Object.assign(new Error('EIO: planted'), { code: 'EIO', errno: -5, syscall: call });
      };
      return {
        write: async (bytes) => {
          if (call === 'write') await fault();
          // In pieces, as a disk that is nearly full takes them.
          return file.write(bytes.subarray(0, 1000));
        },
        sync: async () => (call === 'sync' ? fault() : file.sync()),
        close: async () => {
          await file.close();
          if (call === 'close') await fault();
        },
      };
    };

  test.each([
    ['write', 0],
    ['write', 7],
    ['sync', 0],
    ['close', 0],
  ] as const)('a disk that fails in %s after %d calls', async (call, after) => {
    const error = await failing(() => saveToFile(path, saved, { open: breaking(call, after) }));
    expect(error).toMatchObject({ code: 'EIO', syscall: call, hint: 'the disk failed' });
    const resumed = await failing(() => saveToFile(path, saved, { resume: true, open: breaking(call, after) }));
    expect(resumed).toMatchObject({ code: 'EIO' });
  });

  test('a disk that takes pieces only', async () => {
    await saveToFile(path, saved, { open: breaking('write', 1_000_000) });
    await discard(await restoreFromFile(path, new Host()));
  });

  test('a disk that stands still, and a save that is cancelled meanwhile', async () => {
    // More than the stream holds back.
    saved.memory.view(HIGH, SIZE).fill(1);
    await saved.memory.addRegion({ gpa: 0x1_0000_0000, size: 4 << 20 });
    saved.memory.view(0x1_0000_0000, 4 << 20).fill(1);
    let free: (() => void) | undefined;
    const stuck = async (name: string): Promise<SaveFile> => {
      const file = await open(name, 'wx');
      const gate = new Promise<void>((resolve) => {
        free = resolve;
      });
      return {
        write: (bytes) => gate.then(() => file.write(bytes)),
        sync: () => file.sync(),
        close: () => file.close(),
      };
    };
    const timedOut = failure(saveToFile(path, saved, { open: stuck, timeoutMs: 50 }));
    expect(await timedOut).toMatchObject({ code: 'VHOST_ERR_TIMEOUT' });
    const controller = new AbortController();
    const aborted = failure(saveToFile(path, saved, { open: stuck, signal: controller.signal }));
    setTimeout(() => controller.abort(new Error('not now')), 50);
    expect(await aborted).toMatchObject({ code: 'VHOST_ERR_ABORTED' });
    free?.();
    expect([saved.guest.running, saved.device.running]).toEqual([true, true]);
    expect(readdirSync(folder)).toEqual([]);
  });

  test('cancelled before', async () => {
    const signal = AbortSignal.abort(new Error('not now'));
    expect(await failing(() => saveToFile(path, saved, { signal }))).toMatchObject({ code: 'VHOST_ERR_ABORTED' });
  });

  test('targets that cannot be', async () => {
    mkdirSync(join(folder, 'directory'));
    writeFileSync(join(folder, 'busy.partial'), 'of another save');
    for (const [target, code, message] of [
      [join(folder, 'none', 'saved'), 'ENOENT', 'folder'],
      [join(folder, 'directory'), 'VHOST_ERR_INVALID_ARGUMENT', 'no file'],
      ['/dev/null', 'VHOST_ERR_INVALID_ARGUMENT', 'no file'],
      [join(folder, 'busy'), 'EEXIST', 'another save is under way'],
      ['/proc/version/saved', 'ENOTDIR', 'no folder'],
    ] as const) {
      expect(await failing(() => saveToFile(target, saved))).toMatchObject({
        code,
        message: expect.stringContaining(message),
      });
    }
    // It was looked at before the guest was paused.
    expect(saved.backend.calls).not.toContain('stop');
  });

  test('onto what guest memory lies in', async () => {
    const number = native().fdNumber(saved.memory.regions[1]!.fd);
    symlinkSync(`/proc/${process.pid}/fd/${number}`, path);
    expect(await failing(() => saveToFile(path, saved))).toMatchObject({
      code: 'VHOST_ERR_INVALID_ARGUMENT',
      message: expect.stringContaining('is guest memory: the region at GPA 0x40000000'),
    });
  });

  test('a device that does not stop', async () => {
    saved.backend.fail('stop');
    expect(await failure(saveToFile(path, saved))).toMatchObject({ message: expect.stringContaining('planted: stop') });
    expect(saved.guest.running).toBe(true);
    expect(existsSync(`${path}.partial`)).toBe(false);
  });

  test('a device that does not start again after a failure is told with it', async () => {
    saved.backend.fail('start');
    expect(await failure(saveToFile(path, saved, { open: () => open('/dev/full', 'w') }))).toMatchObject({
      code: 'VHOST_ERR_MIGRATION',
      message: expect.stringMatching(/ENOSPC.*could not go on: planted: start/),
    });
  });

  test('memory keeps its layout meanwhile', async () => {
    let added: Promise<unknown> | undefined;
    const adding = async (name: string): Promise<SaveFile> => {
      const file = await open(name, 'wx');
      const write = async (bytes: Uint8Array) => {
        added ??= failure(saved.memory.addRegion({ gpa: 0x8000_0000, size: PAGE_SIZE }));
        await added;
        return file.write(bytes);
      };
      return { write, sync: () => file.sync(), close: () => file.close() };
    };
    await saveToFile(path, saved, { open: adding });
    expect(await added).toMatchObject({
      code: 'VHOST_ERR_STATE',
      message: 'guest memory cannot change while it is saved',
    });
  });
});

describe('restoring what is not whole', () => {
  let bytes: Buffer;
  let mappings: number;
  const damaged = join(folder, 'damaged');

  beforeAll(async () => {
    const saved = await machine();
    await saveToFile(path, saved);
    bytes = await readFile(path);
    await discard(saved);
  });
  beforeEach(() => {
    mappings = native().mappingsLive();
  });

  async function refused(content: Buffer, host = new Host()): Promise<Error> {
    await writeFile(damaged, content);
    const error = (await failure(restoreFromFile(damaged, host))) as Error;
    expect(host.made).toEqual([]);
    // What was opened before the first page is closed.
    if (host.backend.calls.length > 0) expect(host.backend.calls.at(-1)).toBe('close');
    return error;
  }

  /** Where each frame begins, and what it is. */
  function frames(): { at: number; type: number; end: number }[] {
    const found: { at: number; type: number; end: number }[] = [];
    for (let at = 0; at < bytes.length; ) {
      const end = at + 20 + bytes.readUInt32LE(at + 12);
      found.push({ at, type: bytes.readUInt16LE(at + 4), end });
      at = end;
    }
    return found;
  }

  afterEach(async () => {
    const end = Date.now() + 3000;
    while (native().mappingsLive() > mappings && Date.now() < end)
      await new Promise((resolve) => setTimeout(resolve, 2));
    expect(native().mappingsLive()).toBeLessThanOrEqual(mappings);
  });

  test('cut anywhere', async () => {
    const cuts = new Set<number>([0, 1, bytes.length - 1]);
    for (const { at, end } of frames())
      for (const cut of [at - 1, at, at + 1, at + 19, at + 20, at + 21, end - 1]) cuts.add(cut);
    for (let cut = 64; cut < bytes.length; cut += 997) cuts.add(cut);
    for (const cut of [...cuts].filter((each) => each >= 0 && each < bytes.length)) {
      expect(await refused(bytes.subarray(0, cut))).toMatchObject({
        code: 'VHOST_ERR_PROTOCOL',
        offset: cut,
        message: expect.stringMatching(/the stream ends after \d+ of \d+ bytes at offset \d+: expected \w+/),
      });
    }
  });

  test('one bit turned anywhere', async () => {
    for (let at = 0; at < bytes.length; at += 101) {
      const turned = Buffer.from(bytes);
      turned[at] = turned[at]! ^ (1 << (at % 8));
      expect(await refused(turned)).toMatchObject({ code: 'VHOST_ERR_PROTOCOL', offset: expect.any(Number) });
    }
  });

  test('frames left out, doubled or swapped', async () => {
    const parts = frames().map(({ at, end }) => bytes.subarray(at, end));
    for (let i = 0; i < parts.length; i++) {
      expect(await refused(Buffer.concat(parts.filter((_, at) => at !== i)))).toMatchObject({
        code: 'VHOST_ERR_PROTOCOL',
      });
      expect(
        await refused(Buffer.concat(parts.flatMap((part, at) => (at === i ? [part, part] : [part])))),
      ).toMatchObject({
        code: 'VHOST_ERR_PROTOCOL',
      });
    }
  });

  test('more after its end', async () => {
    expect(await refused(Buffer.concat([bytes, Buffer.from('x')]))).toMatchObject({
      code: 'VHOST_ERR_PROTOCOL',
      offset: bytes.length,
      message: expect.stringContaining('1 bytes after END'),
    });
  });

  /** The file with one frame's payload replaced, its checksum right. */
  function forged(type: number, change: (message: Record<string, never>) => unknown): Buffer {
    const list = frames();
    const identity = JSON.parse(bytes.toString('utf8', 20, list[0]!.end)).identity as string;
    const seed = streamSeed(Buffer.from(identity, 'hex'));
    return Buffer.concat(
      list.flatMap(({ at, end, type: found }, sequence) => {
        if (found !== type) return [bytes.subarray(at, end)];
        const message = JSON.parse(bytes.toString('utf8', at + 20, end));
        const payload = Buffer.from(JSON.stringify(change(message)));
        return [encodeFrameHeader(type as FrameType, sequence, payload, seed), payload];
      }),
    );
  }

  test.each<[string, number, (message: Record<string, never>) => unknown, string]>([
    ['hash of other memory', FrameType.END, () => ({ memory: { pages: 128, sha256: 'ff' } }), 'END: sha256 is "ff"'],
    ['no hash', FrameType.END, () => ({ audit: null }), 'END: sha256 is undefined'],
    ['an end that is null', FrameType.END, () => null, 'no object'],
    ['a state that is null', FrameType.STATE, () => null, 'no object'],
    ['another number of pages', FrameType.ROUND_END, (end) => ({ ...end, pages: 2 }), 'round 0 with 2 pages'],
    ['a round that is not the last', FrameType.ROUND_END, (end) => ({ ...end, final: false }), 'one round'],
    ['no regions', FrameType.SETUP, (setup) => ({ ...setup, regions: [] }), 'SETUP: regions'],
  ])('well-formed, with %s', async (_, type, change, message) => {
    expect(await refused(forged(type, change))).toMatchObject({
      code: 'VHOST_ERR_PROTOCOL',
      message: expect.stringContaining(message),
    });
  });

  test('the planted changes are the reason: the same file unchanged is restored', async () => {
    await writeFile(
      damaged,
      forged(FrameType.END, (end) => end),
    );
    await discard(await restoreFromFile(damaged, new Host()));
  });

  test('a device that cannot be, or cannot be run here', async () => {
    await writeFile(
      damaged,
      forged(FrameType.STATE, (state) => ({ ...state, device: { version: 99 } })),
    );
    expect(await failure(restoreFromFile(damaged, new Host()))).toMatchObject({
      message: expect.stringContaining('version'),
    });
    const host = new Host();
    host.compare = async () => [{ what: 'mtu', source: '9000', destination: '1500', severity: 'fatal' }];
    expect(await refused(bytes, host)).toMatchObject({
      code: 'VHOST_ERR_INCOMPATIBLE',
      message: expect.stringContaining('mtu: 9000 saved, 1500 here'),
    });
    host.compare = new Host().compare;
    host.backend.fail('start', new Error('no network'));
    expect(await failure(restoreFromFile(damaged.replace('damaged', 'none'), host))).toMatchObject({ code: 'ENOENT' });
    await writeFile(damaged, bytes);
    expect(await failure(restoreFromFile(damaged, host))).toMatchObject({ message: 'no network' });
  });

  test('what is no file at all', async () => {
    expect(await failure(restoreFromFile(folder, new Host()))).toMatchObject({ code: 'VHOST_ERR_INVALID_ARGUMENT' });
    expect(await failure(restoreFromFile('/dev/zero', new Host()))).toMatchObject({
      code: 'VHOST_ERR_INVALID_ARGUMENT',
    });
    expect(await refused(Buffer.from('#!/bin/sh\necho this is no stream\n'))).toMatchObject({
      code: 'VHOST_ERR_PROTOCOL',
      message: expect.stringContaining('expected a vhost-net migration stream'),
    });
    const signal = AbortSignal.abort(new Error('never mind'));
    await writeFile(damaged, bytes);
    expect(await failure(restoreFromFile(damaged, new Host(), { signal }))).toMatchObject({
      code: 'VHOST_ERR_ABORTED',
    });
  });
});

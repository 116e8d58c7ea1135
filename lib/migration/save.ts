/**
 * Saves a running machine to a file. The guest stands still while its memory is written, under another name: a file with the name asked for
 * is complete and on the disk, or it is what it was before.
 */
import { fstatSync } from 'node:fs';
import { open, rename, rm, stat } from 'node:fs/promises';
import { dirname } from 'node:path';
import type { VirtioNetDevice } from '../device/virtio-net-device';
import { abortedError, invalidArgument, reasonOf, VhostError } from '../errors';
import type { GuestMemory } from '../memory/guest-memory';
import { native } from '../native';
import { Channel } from './channel';
import { describeSide } from './environment';
import { FileWriter, fileError, type SaveFile } from './file-stream';
import { elapsed, type MigratableGuest } from './options';
import { writeSaved } from './saved-stream';

export interface SaveOptions {
  /** The guest goes on as soon as its memory is written. Without, it stays paused and its device stopped. */
  resume?: boolean | undefined;
  /** Longest wait for the disk to take what was written. Milliseconds, default 30,000. */
  timeoutMs?: number | undefined;
  /** Ends the save: the guest goes on. */
  signal?: AbortSignal | undefined;
  /** Makes the file that is written; by default a new one with mode 0600. */
  open?: ((path: string) => Promise<SaveFile>) | undefined;
}

export interface SavedFile {
  bytes: number;
  pages: number;
  /** How long the guest stood still until its memory was written. Milliseconds. */
  pausedMs: number;
}

const OWNER_ONLY = 0o600;

/** Resolves when the file is on the disk. Rejects with the guest running as before and nothing new beside the file. */
export async function saveToFile(
  path: string,
  { device, guest }: { device: VirtioNetDevice; guest: MigratableGuest },
  options: SaveOptions = {},
): Promise<SavedFile> {
  const partial = `${path}.partial`;
  throwIfAborted(options.signal);
  for (const name of [path, partial]) await refuseTarget(name, device.memory);
  let file: SaveFile;
  try {
    file = await (options.open ?? create)(partial);
  } catch (error) {
    throw openError(error, partial);
  }
  const writer = new FileWriter(file);
  // It is asked for what went wrong after each step.
  writer.on('error', () => undefined);
  const standstill = new Standstill(device, guest);
  try {
    const channel = new Channel(writer, {
      timeoutMs: options.timeoutMs,
      signal: options.signal,
    });
    const environment = await describeSide(device.backend);
    await standstill.begin();
    const pages = await writeSaved(channel, device, guest, environment);
    await writer.flushed();
    const pausedMs = standstill.ms;
    if (options.resume === true) await standstill.end();
    await file.sync();
    throwIfAborted(options.signal);
    await file.close();
    await rename(partial, path);
    await syncFolder(dirname(path));
    return { bytes: channel.bytesSent, pages, pausedMs };
  } catch (error) {
    // What the file said comes before what became of it in the stream.
    const cause = fileError(writer.errored ?? error, partial);
    writer.destroy();
    await file.close().catch(() => undefined);
    await rm(partial, { force: true }).catch(() => undefined);
    await standstill.endAfter(cause);
    throw cause;
  } finally {
    standstill.release();
  }
}

function create(path: string): Promise<SaveFile> {
  return open(path, 'wx', OWNER_ONLY);
}

function throwIfAborted(signal: AbortSignal | undefined): void {
  if (signal?.aborted === true) throw abortedError('saving', signal.reason);
}

function openError(error: unknown, path: string): unknown {
  if ((error as NodeJS.ErrnoException).code !== 'EEXIST') return fileError(error, path);
  return fileError(error, path, 'another save is under way, or one was killed: then remove it');
}

/** What a save may replace: a file, or nothing; and none that the guest's memory lies in. */
async function refuseTarget(path: string, memory: GuestMemory): Promise<void> {
  let there: Awaited<ReturnType<typeof statOf>>;
  try {
    there = await statOf(path);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return;
    throw fileError(error, path);
  }
  for (const { fd, gpa } of memory.regions) {
    const { dev, ino } = fstatSync(native().fdNumber(fd), { bigint: true });
    if (dev === there.dev && ino === there.ino) {
      throw invalidArgument(
        `"${path}" is guest memory: the region at GPA 0x${gpa.toString(16)}`,
        'save to another file',
      );
    }
  }
  if (!there.isFile()) throw invalidArgument(`"${path}" exists and is no file`, 'save to a new file, or replace one');
}

const statOf = (path: string) => stat(path, { bigint: true });

/** A new name is on the disk when its folder is. */
async function syncFolder(path: string): Promise<void> {
  const folder = await open(path, 'r');
  try {
    await folder.sync();
  } finally {
    await folder.close();
  }
}

/** The time during which the guest executes nothing, its device is stopped and its memory keeps its layout. */
class Standstill {
  readonly #device: VirtioNetDevice;
  readonly #guest: MigratableGuest;
  readonly #release: () => void;
  #began: number | null = null;
  #wasRunning = false;

  constructor(device: VirtioNetDevice, guest: MigratableGuest) {
    this.#device = device;
    this.#guest = guest;
    const refused = new Set<unknown>();
    this.#release = device.memory.onChange(async ({ region }) => {
      // The opposite of what was refused is told as well.
      if (refused.delete(region)) return;
      refused.add(region);
      throw new VhostError('VHOST_ERR_STATE', 'guest memory cannot change while it is saved');
    });
  }

  /** Milliseconds so far. */
  get ms(): number {
    return elapsed(this.#began ?? performance.now());
  }

  async begin(): Promise<void> {
    this.#wasRunning = this.#device.running;
    this.#began = performance.now();
    await this.#guest.pause();
    await this.#device.stop();
  }

  /** Everything goes on as before. */
  async end(): Promise<void> {
    if (this.#began === null) return;
    this.#began = null;
    if (this.#wasRunning && !this.#device.running) await this.#device.start();
    this.#guest.resume();
  }

  async endAfter(cause: unknown): Promise<void> {
    try {
      await this.end();
    } catch (error) {
      const [first, second] = [cause, error].map(reasonOf);
      throw new VhostError('VHOST_ERR_MIGRATION', `${first}; and the guest could not go on: ${second}`, { cause });
    }
  }

  release(): void {
    this.#release();
  }
}

/**
 * Builds a machine of a file that was saved. All of the file is read and checked before a device is made of it, and nothing is left behind
 * when it is refused.
 */
import { type FileHandle, open, stat } from 'node:fs/promises';
import type { VirtioNetDevice } from '../device/virtio-net-device';
import { invalidArgument } from '../errors';
import type { GuestMemory } from '../memory/guest-memory';
import { type Announcements, announce } from './announce';
import { type AnnounceOptions, AnnounceRounds } from './announce-rounds';
import { Channel } from './channel';
import type { DestinationHost } from './destination';
import { FileReader, fileError } from './file-stream';
import { readSaved, type SavedMachine } from './saved-stream';

export interface RestoreOptions extends AnnounceOptions {
  /** False leaves the device not started and the guest paused. Default true. */
  resume?: boolean | undefined;
  /** Longest wait for the disk at any one step. Milliseconds, default 30,000. */
  timeoutMs?: number | undefined;
  signal?: AbortSignal | undefined;
}

export interface RestoredMachine<Guest> {
  memory: GuestMemory;
  device: VirtioNetDevice;
  guest: Guest;
  pages: number;
  bytes: number;
  /** Goes on by itself in the background; null when the guest was left paused. */
  announcing: AnnounceRounds | null;
}

/** Resolves with the guest running here. */
export async function restoreFromFile<Guest extends { resume(): void }>(
  path: string,
  host: DestinationHost<Guest>,
  options: RestoreOptions = {},
): Promise<RestoredMachine<Guest>> {
  const { file, size } = await openSaved(path);
  const reader = new FileReader(file);
  reader.on('error', () => undefined);
  let saved: SavedMachine | undefined;
  let device: VirtioNetDevice | undefined;
  try {
    const channel = new Channel(reader, {
      timeoutMs: options.timeoutMs,
      signal: options.signal,
    });
    saved = await readSaved(channel, host, size);
    const { memory, backend, state, pages } = saved;
    device = await host.createDevice(state.device, memory, backend);
    const guest = await host.createGuest(state.guest, memory, device);
    channel.throwIfAborted('starting what was restored');
    let announcing: AnnounceRounds | null = null;
    if (options.resume !== false) {
      await device.prepare();
      const announcements: Announcements = { macs: state.addresses, vlans: state.vlans };
      const tap = backend.taps?.[0];
      if (tap !== undefined && device.linkUp && device.driverOk) announce(tap, announcements);
      await device.start();
      guest.resume();
      announcing = new AnnounceRounds(device, announcements, options);
    }
    return { memory, device, guest, pages, bytes: channel.bytesReceived, announcing };
  } catch (error) {
    await device?.close();
    await saved?.backend.close();
    saved?.memory.close();
    throw fileError(reader.errored ?? error, path);
  } finally {
    reader.destroy();
    await file.close();
  }
}

/** A file, and nothing that would keep its reader waiting. */
async function openSaved(path: string): Promise<{ file: FileHandle; size: number }> {
  try {
    if (!(await stat(path)).isFile()) throw invalidArgument(`"${path}" is no file`);
    const file = await open(path, 'r');
    const { size } = await file.stat();
    return { file, size };
  } catch (error) {
    throw fileError(error, path);
  }
}

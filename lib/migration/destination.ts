/**
 * The side that takes the guest over. Nothing runs here before GO, and a failure before it leaves nothing behind. From GO on this side runs the
 * guest whatever becomes of the connection.
 */
import type { Duplex } from 'node:stream';
import type { Backend } from '../backend/backend';
import type { DeviceProperties } from '../device/device-properties';
import type { VirtioNetDevice } from '../device/virtio-net-device';
import type { Tap } from '../host/tap';
import type { GuestMemory } from '../memory/guest-memory';
import type { AnnounceRounds } from './announce-rounds';
import { Channel } from './channel';
import { DestinationRun } from './destination-run';
import type { HandoverAccount } from './handover/account';
import type { AuditResult, Difference, SetupMessage } from './messages';
import type { MigrationOptions } from './options';
import { StreamRecording } from './record-stream';

/** What the owner of a destination provides: it alone knows taps, backends and guests. */
export interface DestinationHost<Guest extends { resume(): void }> {
  /** What the device is to be, where it is known: all that differs is told before the first page. */
  properties?: DeviceProperties;
  /** What differs beside what the library finds itself (`compareSides`); a fatal difference ends the migration before the first page. */
  compare?(setup: SetupMessage): Promise<Difference[]>;
  createMemory(setup: SetupMessage): GuestMemory;
  /**
   * The data path that is to serve the guest here, opened and with its taps, before the first page. `taps` are the source's own where they were
   * passed, which the source still uses: nothing may be read from them or set.
   */
  createBackend(setup: SetupMessage, taps: readonly Tap[] | null): Promise<Backend>;
  /** The device on a backend, not started. `state` is validated by VirtioNetDevice.restore. */
  createDevice(state: unknown, memory: GuestMemory, backend: Backend): Promise<VirtioNetDevice>;
  /** The guest, standing still, rebuilt from memory and what the source said. */
  createGuest(saved: Record<string, unknown>, memory: GuestMemory, device: VirtioNetDevice): Promise<Guest>;
}

export interface ReceivedMigration<Guest> {
  memory: GuestMemory;
  device: VirtioNetDevice;
  guest: Guest;
  rounds: number;
  pages: number;
  bytes: number;
  /** GO to running. Milliseconds. */
  startMs: number;
  /** What became of the frames meanwhile; null where none were handed over. */
  handover: HandoverAccount | null;
  /** Why the guest is not on the data path that was meant for it but on the emulated one; null when it is. */
  degraded: unknown;
  /** Goes on by itself in the background. */
  announcing: AnnounceRounds;
  /** Taps that the source passed; they are the owner's to close. */
  taps: readonly Tap[];
  /** The source's comparison of both memories; null when it wanted none or could not be reached any more. */
  audit: AuditResult | null;
}

export class MigrationDestination<Guest extends { resume(): void }> {
  readonly #host: DestinationHost<Guest>;
  readonly #options: MigrationOptions;
  /** Of the option `record`, why the recording is not whole. */
  recordFailure: Error | null = null;

  constructor(host: DestinationHost<Guest>, options: MigrationOptions = {}) {
    this.#host = host;
    this.#options = options;
  }

  /**
   * Receives over a connected stream and resolves with the guest running here. Rejects with nothing left behind; should that fail, the message
   * says so, and only the end of this process makes it certain that the guest does not run here.
   */
  async receive(stream: Duplex): Promise<ReceivedMigration<Guest>> {
    const { timeoutMs, signal } = this.#options;
    const recording = this.#options.record === undefined ? null : new StreamRecording(this.#options.record);
    const channel = new Channel(stream, {
      timeoutMs,
      signal,
      onSent: recording?.write,
    });
    try {
      return await new DestinationRun(this.#host, channel, this.#options).receive();
    } finally {
      channel.close();
      await recording?.close();
      this.recordFailure = recording?.failure ?? null;
    }
  }
}

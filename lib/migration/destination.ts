/**
 * The side that takes the guest over.
 *
 *     compare, receive pages until the last round, state, build everything but the last step, READY, [GO] start, RUNNING, audit
 *
 * Nothing runs here before GO, and a failure before it leaves nothing behind. From GO on this side runs the guest whatever becomes of
 * the connection.
 */
import type { Duplex } from 'node:stream';
import type { VirtioNetDevice } from '../device/virtio-net-device';
import { VhostError } from '../errors';
import type { GuestMemory } from '../memory/guest-memory';
import { encodeHashes } from '../observe/page-audit';
import { Channel } from './channel';
import { FRAME_HEADER_SIZE, FrameType } from './frame';
import type {
  AuditResult,
  Difference,
  RoundEndMessage,
  RunningMessage,
  SetupAckMessage,
  SetupMessage,
  StateMessage,
} from './messages';
import { elapsed, type MigrationOptions, type MigrationPhase } from './options';
import { PageReceiver } from './page-receiver';
import { validateSetup } from './setup';

/** What the owner of a destination provides: it alone knows taps, backends and guests. */
export interface DestinationHost<Guest extends { resume(): void }> {
  /** Everything that differs from what this side can run; a fatal difference ends the migration before the first page. */
  compare(setup: SetupMessage): Promise<Difference[]>;
  createMemory(setup: SetupMessage): GuestMemory;
  /** The device with its backend and tap, not started. `state` is validated by VirtioNetDevice.restore. */
  createDevice(state: unknown, memory: GuestMemory): Promise<VirtioNetDevice>;
  /** The guest, standing still, rebuilt from memory and what the source said. */
  createGuest(saved: Record<string, unknown>, memory: GuestMemory, device: VirtioNetDevice): Promise<Guest>;
  /** Right after the device started: tell the network. */
  announce(device: VirtioNetDevice): void;
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
  /** The source's comparison of both memories; null when it wanted none or could not be reached any more. */
  audit: AuditResult | null;
}

export class MigrationDestination<Guest extends { resume(): void }> {
  readonly #host: DestinationHost<Guest>;
  readonly #options: MigrationOptions;

  constructor(host: DestinationHost<Guest>, options: MigrationOptions = {}) {
    this.#host = host;
    this.#options = options;
  }

  /** Receives over a connected stream and resolves with the guest running here. Rejects with nothing left behind. */
  async receive(stream: Duplex): Promise<ReceivedMigration<Guest>> {
    const { timeoutMs, signal } = this.#options;
    const channel = new Channel(stream, {
      ...(timeoutMs === undefined ? {} : { timeoutMs }),
      ...(signal === undefined ? {} : { signal }),
    });
    const run = new DestinationRun(this.#host, channel, this.#options);
    try {
      return await run.receive();
    } finally {
      channel.close();
    }
  }
}

class DestinationRun<Guest extends { resume(): void }> {
  #memory: GuestMemory | undefined;
  #device: VirtioNetDevice | undefined;
  #pages = 0;
  #rounds = 0;
  #committed = false;

  constructor(
    readonly host: DestinationHost<Guest>,
    readonly channel: Channel,
    readonly options: MigrationOptions,
  ) {}

  async receive(): Promise<ReceivedMigration<Guest>> {
    try {
      const setup = await this.#setup();
      const memory = this.host.createMemory(setup);
      this.#memory = memory;
      const hashes = await this.#receivePages(memory);
      const { device, guest } = await this.#build(memory);
      // From READY on only the source decides: a cancel of this side could cross its GO.
      this.channel.throwIfAborted('getting ready');
      this.channel.commit();
      await this.channel.send(FrameType.READY, Buffer.alloc(0));
      this.#phase('ready');
      await this.channel.receive([FrameType.GO]);
      this.#committed = true;
      this.#phase('commit');
      const startMs = await this.#start(device, guest);
      const audit = await this.#finish(hashes, startMs);
      this.#phase('done');
      const { bytesReceived: bytes } = this.channel;
      return { memory, device, guest, rounds: this.#rounds, pages: this.#pages, bytes, startMs, audit };
    } catch (error) {
      await this.#abandon(error);
      throw error;
    }
  }

  async #setup(): Promise<SetupMessage> {
    this.#phase('setup');
    await this.channel.answer();
    const frame = await this.channel.receive([FrameType.SETUP]);
    const setup = validateSetup(this.channel.parseJson<unknown>(frame), frame.offset + FRAME_HEADER_SIZE);
    const differences = await this.host.compare(setup);
    const ack: SetupAckMessage = { differences };
    await this.channel.sendJson(FrameType.SETUP_ACK, ack);
    const fatal = differences.filter((difference) => difference.severity === 'fatal');
    if (fatal.length > 0) {
      throw new VhostError(
        'VHOST_ERR_INCOMPATIBLE',
        `refused: ${fatal.map(({ what }) => what).join(', ')} cannot be run here`,
      );
    }
    return setup;
  }

  /** Hashes of what came, for the audit. */
  async #receivePages(memory: GuestMemory): Promise<BigUint64Array | null> {
    this.#phase('precopy');
    const receiver = new PageReceiver(memory);
    try {
      for (;;) {
        const frame = await this.channel.receive([FrameType.PAGES, FrameType.ROUND_END]);
        if (frame.type === FrameType.PAGES) {
          await receiver.apply(frame);
          continue;
        }
        const end = this.channel.parseJson<RoundEndMessage>(frame);
        await receiver.endRound(end, frame.offset + FRAME_HEADER_SIZE);
        if (end.final) return this.options.audit === false ? null : receiver.hashes();
        await this.channel.sendJson(FrameType.ROUND_ACK, end);
      }
    } finally {
      this.#rounds = receiver.round;
      this.#pages = receiver.moved.pages;
      receiver.close();
    }
  }

  async #build(memory: GuestMemory): Promise<{ device: VirtioNetDevice; guest: Guest }> {
    this.#phase('switchover');
    const state = await this.channel.receiveJson<StateMessage>(FrameType.STATE);
    const device = await this.host.createDevice(state.device, memory);
    this.#device = device;
    const guest = await this.host.createGuest(state.guest, memory, device);
    await device.prepare();
    return { device, guest };
  }

  async #start(device: VirtioNetDevice, guest: Guest): Promise<number> {
    const go = performance.now();
    await device.start();
    this.host.announce(device);
    guest.resume();
    this.#phase('running');
    return elapsed(go);
  }

  /** The guest runs: nothing that happens to the connection from here on is an error of the migration. */
  async #finish(hashes: BigUint64Array | null, startMs: number): Promise<AuditResult | null> {
    try {
      const running: RunningMessage = { startMs };
      await this.channel.sendJson(FrameType.RUNNING, running);
      if (hashes !== null) await this.channel.send(FrameType.AUDIT, encodeHashes(hashes));
      const end = await this.channel.receiveJson<{ audit: AuditResult | null }>(FrameType.END);
      return end.audit;
    } catch {
      return null;
    }
  }

  async #abandon(error: unknown): Promise<void> {
    const reason = error instanceof Error ? error.message : String(error);
    // After GO a failed start is told as an error too, but the source will not take the guest back by itself.
    const aborted = !this.#committed && error instanceof VhostError && error.code === 'VHOST_ERR_ABORTED';
    await this.channel.sendLast(aborted ? FrameType.CANCEL : FrameType.ERROR, reason);
    await this.#device?.close();
    this.#memory?.close();
  }

  #phase(phase: MigrationPhase): void {
    this.options.onEvent?.({ kind: 'phase', phase });
  }
}

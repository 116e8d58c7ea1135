/**
 * The side that takes the guest over.
 *
 *     compare, receive pages until the last round, state, build everything but the last step, READY, [GO] start, RUNNING, audit
 *
 * Nothing runs here before GO, and a failure before it leaves nothing behind. From GO on this side runs the guest whatever becomes of
 * the connection.
 */
import type { Duplex } from 'node:stream';
import type { Backend } from '../backend/backend';
import { STRIDE } from '../backend/frame-arena';
import type { VirtioNetDevice } from '../device/virtio-net-device';
import { ProtocolError, VhostError } from '../errors';
import { PAGE_SIZE } from '../memory/address';
import type { GuestMemory } from '../memory/guest-memory';
import { PageBitmap } from '../memory/page-bitmap';
import { headerLength } from '../net/header';
import { type Announcements, announce, newNonce } from './announce';
import { AnnounceRounds } from './announce-rounds';
import { ReceivedHashes } from './audit';
import { Channel, type Frame } from './channel';
import { describeSide } from './environment';
import { FRAME_HEADER_SIZE, FrameType } from './frame';
import { compareAccounts, type HandoverAccount } from './handover/account';
import { DestinationIntake } from './handover/destination-intake';
import { decodeFrames } from './handover/frame-batch';
import { type Grace, gracePeriods } from './handover/grace';
import { decodeGroup } from './handover/group-record';
import { outlinedDevice } from './handover/outlined-device';
import { TapCounters } from './handover/tap-counters';
import type {
  AuditResult,
  Difference,
  DrainedMessage,
  OpenedMessage,
  OpenMessage,
  RoundEndMessage,
  RunningMessage,
  SettledMessage,
  SetupAckMessage,
  SetupMessage,
  StateMessage,
} from './messages';
import { elapsed, type MigrationOptions, type MigrationPhase } from './options';
import { applyPages } from './pages';
import { compareSides } from './preflight';
import { validateAddresses, validateSetup, validateVlans } from './setup';

/** What the owner of a destination provides: it alone knows taps, backends and guests. */
export interface DestinationHost<Guest extends { resume(): void }> {
  /** What differs beside what the library finds itself (`compareSides`); a fatal difference ends the migration before the first page. */
  compare?(setup: SetupMessage): Promise<Difference[]>;
  createMemory(setup: SetupMessage): GuestMemory;
  /** The data path that is to serve the guest here, opened and with its taps, before the first page. */
  createBackend(setup: SetupMessage): Promise<Backend>;
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

/** What there is when the guest runs. */
interface Started<Guest> {
  memory: GuestMemory;
  device: VirtioNetDevice;
  guest: Guest;
  announcements: Announcements;
  hashes: ReceivedHashes | null;
  startMs: number;
}

class DestinationRun<Guest extends { resume(): void }> {
  #memory: GuestMemory | undefined;
  #backend: Backend | undefined;
  #device: VirtioNetDevice | undefined;
  #grace: Grace | null = null;
  #intake: DestinationIntake | null = null;
  #nonce: Uint8Array | null = null;
  #degraded: unknown = null;
  #pages = 0;
  #rounds = 0;
  #committed = false;

  constructor(
    readonly host: DestinationHost<Guest>,
    readonly channel: Channel,
    readonly options: MigrationOptions,
  ) {}

  async receive(): Promise<ReceivedMigration<Guest>> {
    let started: Started<Guest>;
    try {
      started = await this.#untilRunning();
    } catch (error) {
      await this.#abandon(error);
      throw error;
    }
    return this.#afterStart(started);
  }

  async #untilRunning(): Promise<Started<Guest>> {
    const setup = await this.#setup();
    const memory = this.host.createMemory(setup);
    this.#memory = memory;
    const hashes = await this.#receivePages(memory);
    const { device, guest, announcements } = await this.#build(memory);
    // From READY on only the source decides: a cancel of this side could cross its GO.
    this.channel.throwIfAborted('getting ready');
    this.channel.commit();
    await this.channel.send(FrameType.READY, Buffer.alloc(0));
    this.#phase('ready');
    await this.channel.receive([FrameType.GO]);
    this.#committed = true;
    this.#phase('commit');
    const startMs = await this.#start(device, guest, announcements);
    return { memory, device, guest, announcements, hashes, startMs };
  }

  /** The guest runs here, and nothing that happens from now on may end it. */
  async #afterStart(started: Started<Guest>): Promise<ReceivedMigration<Guest>> {
    const { memory, device, guest, announcements, hashes, startMs } = started;
    const handover = await this.#takeOver(device).catch((error: unknown) => {
      this.#degraded ??= error;
      return null;
    });
    const announcing = new AnnounceRounds(device, announcements, this.options);
    const audit = await this.#finish(hashes);
    this.#phase('done');
    return {
      memory,
      device,
      guest,
      rounds: this.#rounds,
      pages: this.#pages,
      bytes: this.channel.bytesReceived,
      startMs,
      handover,
      degraded: this.#degraded,
      audit,
      announcing,
    };
  }

  async #setup(): Promise<SetupMessage> {
    this.#phase('setup');
    await this.channel.answer();
    this.channel.keepAlive(this.options.deadAfterMs ?? 10_000);
    const frame = await this.channel.receive([FrameType.SETUP]);
    const setup = validateSetup(this.channel.parseJson<unknown>(frame), frame.offset + FRAME_HEADER_SIZE);
    this.#backend = await this.host.createBackend(setup);
    // Taps that nobody uses yet: what this kernel carries of offloads can be found out.
    await this.#backend.probe();
    const environment = await describeSide(this.#backend);
    const differences = [...compareSides(setup, environment), ...((await this.host.compare?.(setup)) ?? [])];
    const fatal = differences.filter((difference) => difference.severity === 'fatal');
    const relay = setup.relay && this.#backend.taps !== null && this.options.handover !== false;
    if (relay) this.#grace = gracePeriods(setup.environment.bootId === environment.bootId);
    const ack: SetupAckMessage = { differences, environment, relay };
    await this.channel.sendJson(FrameType.SETUP_ACK, ack);
    if (setup.dryRun) throw new VhostError('VHOST_ERR_ABORTED', 'a dry run: nothing was to be moved');
    if (fatal.length > 0) {
      throw new VhostError(
        'VHOST_ERR_INCOMPATIBLE',
        `refused: ${fatal.map(({ what }) => what).join(', ')} cannot be run here`,
      );
    }
    return setup;
  }

  async #receivePages(memory: GuestMemory): Promise<ReceivedHashes | null> {
    this.#phase('precopy');
    const written = new PageBitmap(memory.end / PAGE_SIZE);
    const hashes = this.options.audit === false ? null : new ReceivedHashes(memory);
    let inRound = 0;
    for (;;) {
      const frame = await this.channel.receive([FrameType.PAGES, FrameType.ROUND_END, FrameType.OPEN]);
      if (frame.type === FrameType.OPEN) {
        await this.#open(frame, memory);
        continue;
      }
      if (frame.type === FrameType.PAGES) {
        const { pages, round } = applyPages(memory, frame, written, (page, count) =>
          hashes?.update(page, count, written),
        );
        if (round !== this.#rounds)
          throw new ProtocolError(`PAGES of round ${round}`, frame.offset, `round ${this.#rounds}`);
        inRound += pages;
        this.#pages += pages;
        continue;
      }
      const end = this.#checkRoundEnd(frame, inRound);
      inRound = 0;
      this.#rounds++;
      if (end.final) return hashes;
      await this.channel.sendJson(FrameType.ROUND_ACK, end);
    }
  }

  /** The tap gets its settings and is kept from being forgotten; after a grace period nothing that reaches the other tap later is missing here. */
  async #open(frame: Frame, memory: GuestMemory): Promise<void> {
    const grace = this.#grace;
    const taps = this.#backend?.taps;
    if (grace === null || taps == null || this.#intake !== null) {
      throw new ProtocolError('OPEN', frame.offset, 'no OPEN: frames are not handed over, or it came before');
    }
    const open = this.channel.parseJson<OpenMessage>(frame);
    const outline = outlinedDevice(open.device, memory);
    const counters = await TapCounters.begin(taps[0]!);
    const intake = new DestinationIntake(taps, headerLength(outline.features), counters);
    this.#intake = intake;
    await intake.backend.prepare(outline);
    const pairs = taps.length;
    this.channel.on(FrameType.FRAMES, ({ payload, offset }) =>
      decodeFrames(payload, offset + FRAME_HEADER_SIZE, { pairs, largest: STRIDE }, (pair, bytes) =>
        intake.receive(pair, bytes),
      ),
    );
    this.channel.on(FrameType.GROUP, ({ payload, offset }) =>
      decodeGroup(payload, offset + FRAME_HEADER_SIZE, (side, stream, hash) => intake.seen(side, stream, hash)),
    );
    intake.open(validateAddresses(open.addresses, frame.offset + FRAME_HEADER_SIZE));
    if (!(await grace())) intake.weakGraces++;
    this.#nonce = newNonce();
    const opened: OpenedMessage = { nonce: Buffer.from(this.#nonce).toString('hex') };
    await this.channel.sendJson(FrameType.OPENED, opened);
  }

  #checkRoundEnd(frame: Frame, pages: number): RoundEndMessage {
    const end = this.channel.parseJson<RoundEndMessage>(frame);
    if (end.round !== this.#rounds || end.pages !== pages) {
      throw new ProtocolError(
        `ROUND_END of round ${end.round} with ${end.pages} pages`,
        frame.offset + FRAME_HEADER_SIZE,
        `round ${this.#rounds} with ${pages} pages`,
      );
    }
    return end;
  }

  async #build(memory: GuestMemory): Promise<{ device: VirtioNetDevice; guest: Guest; announcements: Announcements }> {
    this.#phase('switchover');
    const frame = await this.channel.receive([FrameType.STATE]);
    const state = this.channel.parseJson<StateMessage>(frame);
    const at = frame.offset + FRAME_HEADER_SIZE;
    const announcements: Announcements = {
      macs: validateAddresses(state.addresses, at),
      vlans: validateVlans(state.vlans, at),
      nonce: this.#nonce,
    };
    this.#intake?.setAddresses(announcements.macs);
    const device = await this.host.createDevice(state.device, memory, this.#intake?.backend ?? this.#backend!);
    this.#device = device;
    const guest = await this.host.createGuest(state.guest, memory, device);
    await device.prepare();
    return { device, guest, announcements };
  }

  async #start(device: VirtioNetDevice, guest: Guest, announcements: Announcements): Promise<number> {
    const go = performance.now();
    this.#intake?.started();
    const tap = this.#backend?.taps?.[0];
    if (tap !== undefined && device.linkUp && device.driverOk) announce(tap, announcements);
    await device.start();
    guest.resume();
    this.#phase('running');
    const startMs = elapsed(go);
    const running: RunningMessage = { startMs };
    // The guest runs: whether the source hears of it is no matter any more.
    await this.channel.sendJson(FrameType.RUNNING, running).catch(() => undefined);
    return startMs;
  }

  /** The rest of the frames; then the guest goes on with the data path that was meant for it. */
  async #takeOver(device: VirtioNetDevice): Promise<HandoverAccount | null> {
    const intake = this.#intake;
    if (intake === null) return null;
    const drained = await this.channel.receiveJson<DrainedMessage>(FrameType.DRAINED).catch(() => null);
    const account = await intake.finish(drained !== null);
    const settled: SettledMessage = { account };
    await this.channel.sendJson(FrameType.SETTLED, settled).catch(() => undefined);
    await this.#leaveIntake(device, intake);
    return compareAccounts(drained?.account ?? null, account);
  }

  async #leaveIntake(device: VirtioNetDevice, intake: DestinationIntake): Promise<void> {
    try {
      await device.switchBackend(this.#backend!);
      await intake.backend.close();
    } catch (error) {
      // It runs, if slower than meant.
      this.#degraded = error;
    }
    intake.counters.close();
  }

  /** The guest runs: nothing that happens to the connection from here on is an error of the migration. */
  async #finish(hashes: ReceivedHashes | null): Promise<AuditResult | null> {
    try {
      if (hashes !== null) await this.channel.send(FrameType.AUDIT, hashes.encode());
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
    this.#intake?.close();
    await this.#device?.close();
    await this.#intake?.backend.close();
    this.#intake?.counters.close();
    await this.#backend?.close();
    this.#memory?.close();
  }

  #phase(phase: MigrationPhase): void {
    this.options.onEvent?.({ kind: 'phase', phase });
  }
}

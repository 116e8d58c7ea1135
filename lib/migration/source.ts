/**
 * The side that gives the guest away.
 *
 *     setup, rounds of dirty pages, frames recorded, tap opened there, one more round, then:
 *     guest paused, backend stopped, last sync, last pages, state, [READY] GO [RUNNING], the rest of the frames, both accounts
 *
 * Before GO every failure and every cancel leaves the guest running here with logging off. From GO on this side never runs the guest
 * again by itself; when RUNNING does not come, the error says that the state is uncertain.
 */
import type { Duplex } from 'node:stream';
import type { VirtioNetDevice } from '../device/virtio-net-device';
import { VhostError } from '../errors';
import { PAGE_SIZE } from '../memory/address';
import { dataRanges } from '../memory/data-ranges';
import { type DirtySource, DirtyUnion } from '../memory/dirty-log';
import { PageBitmap } from '../memory/page-bitmap';
import { hashPages } from '../observe/page-audit';
import { compareHashes } from './audit';
import { Channel } from './channel';
import { Convergence } from './convergence';
import { describeSide, readEnvironment } from './environment';
import { FrameType } from './frame';
import { compareAccounts, type DestinationAccount, type HandoverAccount } from './handover/account';
import { type Grace, gracePeriods } from './handover/grace';
import { type RelaySink, SourceRelay } from './handover/source-relay';
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
import {
  elapsed,
  type MigratableGuest,
  type MigrationOptions,
  type MigrationPhase,
  type MigrationResult,
  type Round,
} from './options';
import { PageSender } from './pages';

export interface MigrationSourceParts {
  device: VirtioNetDevice;
  guest: MigratableGuest;
}

export class MigrationSource {
  readonly #device: VirtioNetDevice;
  readonly #guest: MigratableGuest;
  readonly #options: MigrationOptions;
  #used = false;

  constructor(parts: MigrationSourceParts, options: MigrationOptions = {}) {
    this.#device = parts.device;
    this.#guest = parts.guest;
    this.#options = options;
  }

  /**
   * Migrates over a connected stream and resolves when the destination runs. Rejects with the guest running here as before, unless
   * the error's code is VHOST_ERR_UNCERTAIN.
   */
  async migrate(stream: Duplex): Promise<MigrationResult> {
    if (this.#used) throw new VhostError('VHOST_ERR_STATE', 'a MigrationSource migrates once: make another');
    this.#used = true;
    const channel = new Channel(stream, this.#channelOptions());
    const run = new SourceRun(this.#device, this.#guest, channel, this.#options);
    try {
      return await run.migrate();
    } finally {
      channel.close();
    }
  }

  /** Compares the two sides and moves nothing. Everything that differs, also what would end a migration. */
  async preflight(stream: Duplex): Promise<Difference[]> {
    const channel = new Channel(stream, this.#channelOptions());
    try {
      return await new SourceRun(this.#device, this.#guest, channel, this.#options).compare(true);
    } finally {
      channel.close();
    }
  }

  #channelOptions(): { timeoutMs?: number; signal?: AbortSignal } {
    const { timeoutMs, signal } = this.#options;
    return { ...(timeoutMs === undefined ? {} : { timeoutMs }), ...(signal === undefined ? {} : { signal }) };
  }
}

/** One migration as it happens. */
class SourceRun {
  readonly #started = performance.now();
  readonly #rounds: Round[] = [];
  readonly #convergence: Convergence;
  readonly #sender: PageSender;
  #bitmap: PageBitmap;
  #dirtyBy: Record<string, number> = {};
  #logging = false;
  #paused = false;
  #committed = false;
  readonly #stopListening: () => void;
  /** What happened to guest memory since SETUP told the destination of it. */
  #layoutChange: string | null = null;
  #grace: Grace | null = null;
  /** Once frames pass through this process. */
  #relay: SourceRelay | null = null;
  #nonce: Uint8Array | null = null;

  constructor(
    readonly device: VirtioNetDevice,
    readonly guest: MigratableGuest,
    readonly channel: Channel,
    readonly options: MigrationOptions,
  ) {
    const { downtimeLimitMs, maxRounds } = options;
    this.#convergence = new Convergence({ downtimeLimitMs, maxRounds });
    this.#sender = new PageSender(device.memory, channel);
    this.#bitmap = new PageBitmap(device.memory.end / PAGE_SIZE);
    this.#stopListening = device.memory.onChange(async ({ kind, region }) => {
      if (this.#paused) {
        throw new VhostError('VHOST_ERR_STATE', 'guest memory cannot change while the guest is handed over');
      }
      this.#layoutChange = `a region was ${kind === 'add' ? 'added' : 'removed'} at GPA 0x${region.gpa.toString(16)}`;
    });
  }

  async migrate(): Promise<MigrationResult> {
    try {
      const differences = await this.#setup();
      const union = await this.#startLogging();
      await this.#precopy(union);
      await this.#openRelay(union);
      const result = await this.#switchover(union);
      return { ...result, differences };
    } catch (error) {
      if (this.#committed) {
        // Should it turn out that the guest does not run there, a start here begins with what was collected for it.
        this.#relay?.giveBack();
        throw uncertain(error);
      }
      await this.#resumeHere(error);
      throw error;
    } finally {
      this.#stopListening();
    }
  }

  async #setup(): Promise<Difference[]> {
    this.#phase('setup');
    const differences = await this.compare(false);
    const fatal = differences.filter((difference) => difference.severity === 'fatal');
    if (fatal.length > 0) {
      const list = fatal.map(({ what, source, destination }) => `${what}: ${source} here, ${destination} there`);
      throw new VhostError('VHOST_ERR_INCOMPATIBLE', `the destination cannot run this device: ${list.join('; ')}`);
    }
    return differences;
  }

  /** The first words of both sides. */
  async compare(dryRun: boolean): Promise<Difference[]> {
    const { memory, queues } = this.device;
    await this.channel.greet();
    this.channel.keepAlive(this.options.deadAfterMs ?? 10_000);
    const environment = await describeSide(this.device.backend);
    const relay = this.device.running && this.device.backend.taps !== null && this.options.handover !== false;
    const setup: SetupMessage = {
      regions: memory.regions.map((region) => ({ gpa: region.gpa, size: region.size })),
      features: `0x${this.device.features.toString(16)}`,
      pairs: Math.max(1, Math.ceil((queues.findLastIndex(({ ready }) => ready) + 1) / 2)),
      mac: this.device.mac,
      mtu: this.device.mtu,
      environment,
      relay,
      sharedMemory: false,
      dryRun,
    };
    await this.channel.sendJson(FrameType.SETUP, setup);
    const ack = await this.channel.receiveJson<SetupAckMessage>(FrameType.SETUP_ACK);
    const there = readEnvironment(ack.environment);
    if (relay && ack.relay) this.#grace = gracePeriods(there.bootId === environment.bootId);
    return ack.differences;
  }

  /** Both logs on before the first page is read: whatever is written from here on is found by a later round. */
  async #startLogging(): Promise<DirtyUnion> {
    this.guest.startDirtyLog();
    this.#logging = true;
    const vhost: DirtySource = await this.device.startDirtyLog();
    return new DirtyUnion([vhost, this.guest.dirtySource]);
  }

  async #precopy(union: DirtyUnion): Promise<void> {
    this.#phase('precopy');
    for (const { page, pages } of dataRanges(this.device.memory)) this.#bitmap.setRange(page, pages);
    for (let round = 0; ; round++) {
      const sent = await this.#sendRound(round, false);
      this.#take(union);
      const dirtyAfter = this.#bitmap.count();
      sent.dirtyAfter = dirtyAfter;
      this.options.onEvent?.({ kind: 'round', round: { ...sent } });
      this.channel.throwIfAborted('pre-copy');
      this.#throwIfLayoutChanged();
      if (this.#convergence.decide({ ...sent, dirtyPages: dirtyAfter, dirtyBy: this.#dirtyBy }).action !== 'continue')
        return;
    }
  }

  /** Whatever takes time is done while the guest still runs: from here on every frame passes here, and the destination keeps what it gets. */
  async #openRelay(union: DirtyUnion): Promise<void> {
    const grace = this.#grace;
    if (grace === null || !this.device.running) return;
    this.#phase('relay');
    this.#relay = await SourceRelay.begin(this.device, grace);
    const open: OpenMessage = { device: this.device.outline(), addresses: this.#relay.addresses.list };
    await this.channel.sendJson(FrameType.OPEN, open);
    const { nonce } = await this.channel.receiveJson<OpenedMessage>(FrameType.OPENED);
    this.#nonce = Buffer.from(nonce, 'hex');
    this.#take(union);
    await this.#sendRound(this.#rounds.length, false);
    this.#take(union);
    this.channel.throwIfAborted('opening the relay');
  }

  #throwIfLayoutChanged(): void {
    if (this.#layoutChange === null) return;
    throw new VhostError('VHOST_ERR_MIGRATION', `${this.#layoutChange}, which the destination does not know of`, {
      hint: 'migrate again: the next migration begins with all of guest memory',
    });
  }

  /** Every bit is cleared before its page is read, so a page written meanwhile is marked again and sent in a later round. */
  #take(union: DirtyUnion): void {
    for (const [name, pages] of union.takeInto(this.#bitmap)) this.#dirtyBy[name] = (this.#dirtyBy[name] ?? 0) + pages;
  }

  async #sendRound(round: number, final: boolean): Promise<Round> {
    const sending = this.#bitmap;
    this.#bitmap = new PageBitmap(sending.pages);
    const started = performance.now();
    const sent = await this.#sender.send(sending, round);
    const end: RoundEndMessage = { round, pages: sent.pages, final };
    await this.channel.sendJson(FrameType.ROUND_END, end);
    // The last pages are acknowledged by READY: one round trip less while the guest stands still.
    if (!final) await this.channel.receiveJson<RoundEndMessage>(FrameType.ROUND_ACK);
    const result: Round = { round, ...sent, ms: elapsed(started), dirtyAfter: 0, dirtyBy: this.#dirtyBy };
    this.#rounds.push(result);
    this.#dirtyBy = {};
    return result;
  }

  async #switchover(union: DirtyUnion): Promise<Omit<MigrationResult, 'differences'>> {
    this.#phase('switchover');
    const { faults } = this.options;
    const paused = performance.now();
    this.#paused = true;
    // A change that began before this moment is told of by now; one that begins after it is refused.
    this.#throwIfLayoutChanged();
    await this.guest.pause();
    await this.device.stop();
    this.#relay?.collect(this.#sink, this.#nonce!);
    const stopped = performance.now();
    // Only now is the log complete: the kernel publishes used entries before it marks the page of the data.
    if (faults?.next('migration:final-sync') == null) this.#take(union);
    const synced = performance.now();
    if (faults?.next('migration:last-page') != null) {
      const [first] = this.#bitmap.ranges();
      if (first !== undefined) this.#bitmap.clear(first.page);
    }
    const last = await this.#sendRound(this.#rounds.length, true);
    this.options.onEvent?.({ kind: 'round', round: { ...last } });
    const lastPages = performance.now();
    const state: StateMessage = {
      device: this.device.save(),
      guest: this.guest.save(),
      addresses: this.#relay?.addresses.list ?? this.device.addresses,
      vlans: this.#relay?.vlans ?? this.device.vlans,
    };
    await this.channel.sendJson(FrameType.STATE, state);
    await this.channel.receive([FrameType.READY]);
    this.#phase('ready');
    this.channel.throwIfAborted('waiting for GO');
    const ready = performance.now();
    this.#committed = true;
    this.channel.commit();
    this.#phase('commit');
    await this.channel.send(FrameType.GO, Buffer.alloc(0));
    await this.channel.receiveJson<RunningMessage>(FrameType.RUNNING);
    const running = performance.now();
    this.#phase('running');
    const downtimeParts = {
      stop: elapsed(paused, stopped),
      sync: elapsed(stopped, synced),
      lastPages: elapsed(synced, lastPages),
      state: elapsed(lastPages, ready),
      start: elapsed(ready, running),
    };
    const vrings = [...this.device.backend.stoppedRings];
    // The destination runs: what fails from here on is the proof, not the migration.
    const handover = await this.#finishRelay();
    const audit = await this.#finish().catch(() => null);
    this.#phase('done');
    return {
      rounds: this.#rounds,
      totalMs: elapsed(this.#started, running),
      downtimeMs: elapsed(paused, running),
      downtimeParts,
      bytes: this.channel.bytesSent,
      vrings,
      handover,
      audit,
    };
  }

  readonly #sink: RelaySink = {
    // What fails to be sent ends the channel, which whoever waits for it is told.
    frames: (payload) => void this.channel.send(FrameType.FRAMES, payload).catch(() => undefined),
    group: (payload) => void this.channel.send(FrameType.GROUP, payload).catch(() => undefined),
  };

  /** The rest of the frames, and both accounts of them. */
  async #finishRelay(): Promise<HandoverAccount | null> {
    const relay = this.#relay;
    if (relay === null) return null;
    let destination: DestinationAccount | null = null;
    try {
      const drained: DrainedMessage = { account: await relay.finish(this.#grace!) };
      await this.channel.sendJson(FrameType.DRAINED, drained);
      destination = (await this.channel.receiveJson<SettledMessage>(FrameType.SETTLED)).account;
    } catch {
      // The destination goes on by itself, and accounts for it.
    }
    const { account } = relay;
    await relay.end();
    return destination === null ? null : compareAccounts(account, destination);
  }

  /** After RUNNING: this side's memory stands as it was at the stop, so it can still be compared with what the destination began with. */
  async #finish(): Promise<AuditResult | null> {
    await this.#stopLogging();
    if (this.options.audit === false) {
      await this.channel.sendJson(FrameType.END, { audit: null });
      return null;
    }
    const mine = await hashPages(this.device.memory);
    const frame = await this.channel.receive([FrameType.AUDIT]);
    const audit = compareHashes(this.device.memory, mine, frame);
    await this.channel.sendJson(FrameType.END, { audit });
    return audit;
  }

  /** A failure before GO: the guest goes on here, with logging off, whatever else fails on the way. */
  async #resumeHere(error: unknown): Promise<void> {
    const reason = error instanceof Error ? error.message : String(error);
    const aborted = error instanceof VhostError && error.code === 'VHOST_ERR_ABORTED';
    const told = this.channel.sendLast(aborted ? FrameType.CANCEL : FrameType.ERROR, reason);
    try {
      this.#relay?.giveBack();
      if (this.#paused) {
        if (!this.device.running) await this.device.start();
        this.guest.resume();
        this.#paused = false;
      }
      await this.#relay?.end();
      await this.#stopLogging();
    } catch (cause) {
      const why = cause instanceof Error ? cause.message : String(cause);
      throw new VhostError('VHOST_ERR_MIGRATION', `${reason}; and the source could not go on: ${why}`, { cause });
    } finally {
      await told;
    }
  }

  async #stopLogging(): Promise<void> {
    if (!this.#logging) return;
    this.#logging = false;
    this.guest.stopDirtyLog();
    await this.device.stopDirtyLog();
  }

  #phase(phase: MigrationPhase): void {
    this.options.onEvent?.({ kind: 'phase', phase });
  }
}

function uncertain(cause: unknown): VhostError {
  const why = cause instanceof Error ? cause.message : String(cause);
  return new VhostError('VHOST_ERR_UNCERTAIN', `GO was sent, but the destination did not say RUNNING: ${why}`, {
    cause,
    hint: 'look whether the destination runs the guest; only if it certainly does not, start the device here',
  });
}

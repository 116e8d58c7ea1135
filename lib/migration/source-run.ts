/**
 * One migration as the source does it. Who may run the guest is decided by the SourceMachine; here is how its actions are done.
 *
 *     setup, rounds of dirty pages, frames recorded, tap opened there, one more round, then:
 *     guest paused, backend stopped, last sync, last pages, state, [READY] GO [RUNNING], the rest of the frames, both accounts
 */
import { randomBytes } from 'node:crypto';
import type { StoppedRing } from '../backend/backend';
import type { VirtioNetDevice } from '../device/virtio-net-device';
import { VhostError } from '../errors';
import { native } from '../native';
import { compareWithHashes } from './audit';
import type { Channel } from './channel';
import { type SourceAction, type SourceEvent, type SourceLocalKind, SourceMachine } from './commit/source-machine';
import { endOfAttempt } from './endings';
import { describeSide } from './environment';
import { FrameType } from './frame';
import { compareAccounts, type DestinationAccount, type HandoverAccount } from './handover/account';
import { type Grace, gracePeriods } from './handover/grace';
import { type RelaySink, SourceRelay } from './handover/source-relay';
import type { AuditResult, Difference, DrainedMessage, OpenMessage, RunningMessage, StateMessage } from './messages';
import {
  elapsed,
  type MigratableGuest,
  type MigrationOptions,
  type MigrationPhase,
  type MigrationResult,
} from './options';
import type { PageCarrier } from './page-carrier';
import { ControlPages } from './page-channel';
import type { PageConnection } from './page-connection';
import { PageSender } from './page-sender';
import { passMachine } from './passed-descriptors';
import { Precopy } from './precopy';
import { receiveDestinationAccount, receiveNonce, receiveSetupAck } from './read-messages';
import type { MigrationOutcome, MigrationRecord } from './record';
import { Recorder } from './recorder';
import { describeSetup } from './setup';
import { type Dial, openDescriptors, openPageConnections } from './source-links';
import { SwitchoverClock } from './switchover-clock';

export interface SourceLinks {
  /** Null where there is the control connection alone. */
  dial: Dial | null;
  pageConnections: number;
  /** Memory and taps are passed, not copied. */
  local: boolean;
}

export class SourceRun {
  readonly identity = randomBytes(16);
  readonly #machine = new SourceMachine(this.identity.toString('hex'));
  readonly #device: VirtioNetDevice;
  readonly #guest: MigratableGuest;
  readonly #channel: Channel;
  readonly #links: SourceLinks;
  /** The control channel, until there are page connections. */
  readonly #carriers: PageCarrier[];
  #pageConnections: PageConnection[] = [];
  readonly #options: MigrationOptions;
  readonly #recorder: Recorder;
  readonly #precopy: Precopy;
  /** What ended it, and whether the channel can still be used to say so. */
  #cause: unknown = null;
  #paused = false;
  #grace: Grace | null = null;
  /** Once frames pass through this process. */
  #relay: SourceRelay | null = null;
  #nonce: Uint8Array | null = null;
  /** Of the taps, from the device's stop to GO: until then the guest may have to go on here. */
  #claims: (() => void)[] = [];
  readonly #clock = new SwitchoverClock();
  #vrings: readonly StoppedRing[] = [];

  /** `links`: how to make further connections, where there are any. */
  constructor(
    parts: { device: VirtioNetDevice; guest: MigratableGuest },
    channel: Channel,
    links: SourceLinks,
    options: MigrationOptions,
  ) {
    this.#device = parts.device;
    this.#guest = parts.guest;
    this.#channel = channel;
    this.#links = links;
    this.#options = options;
    this.#recorder = new Recorder(parts.device.memory, options.onEvent);
    const { began, event: onEvent } = this.#recorder;
    const { signal, maxBandwidth } = options;
    this.#carriers = [new ControlPages(channel, options.compression)];
    const sender = new PageSender(parts.device.memory, this.#carriers, {
      signal,
      maxBandwidth,
    });
    this.#precopy = new Precopy({ ...parts, channel, sender, options, began, onEvent });
  }

  get state(): SourceMachine['state'] {
    return this.#machine.state;
  }

  /** Resolves when the destination runs; otherwise throws what became of it. */
  async migrate(): Promise<MigrationResult> {
    try {
      await this.#attempt(() => this.#begin());
      if (this.state === 'done') return await this.#result();
      throw this.#outcome();
    } finally {
      await this.#precopy.end();
      for (const pages of this.#pageConnections) pages.close();
    }
  }

  async #begin(): Promise<void> {
    this.#phase('setup');
    const differences = await this.compare(false);
    const fatal = differences.filter((difference) => difference.severity === 'fatal');
    if (fatal.length > 0) {
      const list = fatal.map(({ what, source, destination }) => `${what}: ${source} here, ${destination} there`);
      throw new VhostError('VHOST_ERR_INCOMPATIBLE', `the destination cannot run this device: ${list.join('; ')}`);
    }
    await this.#openPageConnections();
    await this.#on({ kind: 'agreed', attempt: this.#machine.attempt });
    if (this.state !== 'precopy') return;
    this.#phase('precopy');
    if (!this.#links.local) await this.#precopy.run();
    await this.#on({ kind: 'converged' });
  }

  async #openPageConnections(): Promise<void> {
    const { dial, pageConnections } = this.#links;
    if (dial === null || pageConnections === 0) return;
    const { timeoutMs, signal, compression, record } = this.#options;
    const options = { timeoutMs, signal, compression, record };
    this.#pageConnections = await openPageConnections(dial, this.identity, pageConnections, options);
    this.#carriers.splice(0, 1, ...this.#pageConnections);
  }

  async #passMachine(): Promise<void> {
    const { memory, backend } = this.#device;
    const { timeoutMs, signal } = this.#options;
    const over = await openDescriptors(this.#links.dial!, this.identity, { timeoutMs, signal });
    try {
      await passMachine(over, memory, backend.taps ?? []);
    } finally {
      native().fdClose(over);
    }
  }

  /** The first words of both sides. */
  async compare(dryRun: boolean): Promise<Difference[]> {
    const device = this.#device;
    const channel = this.#channel;
    await channel.greet(this.identity);
    channel.keepAlive(this.#options.deadAfterMs);
    const environment = await describeSide(device.backend);
    this.#recorder.source = environment;
    // Without a link no frame is for the guest.
    const reads = device.running && device.linkUp && device.backend.taps !== null;
    const relay = reads && this.#options.handover !== false;
    const { pageConnections, local } = this.#links;
    const setup = describeSetup(device, environment, { relay: relay && !local, dryRun, pageConnections, local });
    await channel.sendJson(FrameType.SETUP, setup);
    if (local && !dryRun) await this.#passMachine();
    const ack = await receiveSetupAck(channel, FrameType.SETUP_ACK);
    const there = ack.environment;
    this.#recorder.destination = there;
    this.#recorder.differences = ack.differences;
    if (relay && ack.relay) this.#grace = gracePeriods(there.bootId === environment.bootId);
    return ack.differences;
  }

  /** Tells the machine what has happened and does what it says. */
  async #on(event: SourceEvent): Promise<void> {
    for (const action of this.#machine.on(event)) {
      if (!(await this.#attempt(this.#actions[action]))) return;
    }
  }

  /** Answers false when it failed: then the machine knows, and has led elsewhere. */
  async #attempt(step: () => Promise<void>): Promise<boolean> {
    try {
      await step();
      return true;
    } catch (error) {
      this.#cause ??= error;
      await this.#on(this.#failure(error));
      return false;
    }
  }

  #failure(error: unknown): SourceEvent {
    const { attempt } = this.#machine;
    if (this.#channel.peerHasEnded) return { kind: 'ended', attempt };
    // A cancel comes too late there: whatever fails leaves the source without an answer.
    if (this.state === 'committed') return { kind: 'step-failed' };
    const code = error instanceof VhostError ? error.code : '';
    const kinds: Record<string, SourceLocalKind> = { VHOST_ERR_ABORTED: 'cancel', VHOST_ERR_TIMEOUT: 'timeout' };
    return { kind: kinds[code] ?? 'step-failed' };
  }

  readonly #actions: Readonly<Record<SourceAction, () => Promise<void>>> = {
    // What both processes see need not be copied, and so not be logged.
    'start-logging': async () => (this.#links.local ? undefined : this.#precopy.startLogging()),
    'stop-logging': () => this.#precopy.stopLogging().catch(() => undefined),
    open: () => this.#open(),
    pause: () => this.#pause(),
    'send-state': () => this.#sendState(),
    'send-go': () => this.#sendGo(),
    resume: () => this.#resume(),
    tell: () => this.#tell(),
    close: async () => this.#channel.close(),
  };

  /** Whatever takes time is done while the guest still runs: from here on every frame passes here, and the destination keeps what it gets. */
  async #open(): Promise<void> {
    const { attempt } = this.#machine;
    if (this.#grace !== null && this.#device.running) {
      this.#phase('relay');
      this.#relay = await SourceRelay.begin(this.#device, this.#grace);
      const open: OpenMessage = { device: this.#device.outline(), addresses: this.#relay.addresses.list };
      await this.#channel.sendJson(FrameType.OPEN, open);
      this.#nonce = await receiveNonce(this.#channel, FrameType.OPENED);
      this.#precopy.take();
      await this.#precopy.round(false);
      this.#channel.throwIfAborted('opening the relay');
    }
    await this.#on({ kind: 'opened', attempt });
  }

  async #pause(): Promise<void> {
    this.#phase('switchover');
    this.#clock.mark('paused');
    this.#paused = true;
    // A change that began before this moment is told of before the last pages; one that begins after it is refused.
    this.#precopy.freeze();
    await this.#guest.pause();
    await this.#device.stop();
    this.#claims = (this.#device.backend.taps ?? []).map((tap) => tap.claim('a migration'));
    this.#relay?.collect(this.#sink, this.#nonce!);
    this.#clock.mark('stopped');
    await this.#precopy.endThrottle();
    this.#vrings = [...this.#device.backend.stoppedRings];
    await this.#on({ kind: 'stopped' });
  }

  async #sendState(): Promise<void> {
    const { faults } = this.#options;
    // Only now is the log complete: the kernel publishes used entries before it marks the page of the data.
    if (faults?.next('migration:final-sync') == null && !this.#links.local) this.#precopy.take();
    if (faults?.next('migration:last-page') != null) this.#precopy.forgetOne();
    this.#clock.mark('synced');
    await this.#precopy.round(true);
    this.#clock.mark('lastPages');
    const state: StateMessage = {
      device: this.#device.save(),
      guest: this.#guest.save(),
      addresses: this.#relay?.addresses.list ?? this.#device.addresses,
      vlans: this.#relay?.vlans ?? this.#device.vlans,
    };
    await this.#channel.sendJson(FrameType.STATE, state);
    await this.#channel.receive([FrameType.READY]);
    this.#phase('ready');
    this.#channel.throwIfAborted('waiting for GO');
    this.#clock.mark('ready');
    await this.#on({ kind: 'ready', attempt: this.#machine.attempt });
  }

  async #sendGo(): Promise<void> {
    this.#channel.commit();
    this.#phase('commit');
    // Of a hand-over on one host the destination takes the same queues now.
    this.#unclaim();
    await this.#channel.send(FrameType.GO, Buffer.alloc(0));
    await this.#channel.receiveJson<RunningMessage>(FrameType.RUNNING);
    this.#clock.mark('running');
    this.#phase('running');
    this.#recorder.downtimeMs = this.#clock.downtimeMs;
    this.#recorder.downtimeParts = { ...this.#clock.parts };
    await this.#on({ kind: 'running', attempt: this.#machine.attempt });
  }

  /** The guest goes on here, first with the frames that were read for it meanwhile. */
  async #resume(): Promise<void> {
    this.#relay?.giveBack();
    if (this.#paused) {
      this.#unclaim();
      if (!this.#device.running) await this.#device.start();
      this.#guest.resume();
      this.#paused = false;
    }
    await this.#leaveRelay();
    await this.#on({ kind: 'resumed' });
  }

  #unclaim(): void {
    for (const release of this.#claims.splice(0)) release();
  }

  async #leaveRelay(): Promise<void> {
    const relay = this.#relay;
    this.#relay = null;
    await relay?.end();
  }

  async #tell(): Promise<void> {
    await this.#channel.sendCause(this.#cause);
    // A failure while the guest runs here: frames need not pass through this process any more.
    if (!this.#paused) await this.#leaveRelay();
  }

  readonly #sink: RelaySink = {
    // What fails to be sent ends the channel, which whoever waits for it is told.
    frames: (payload) => void this.#channel.send(FrameType.FRAMES, payload).catch(() => undefined),
    group: (payload) => void this.#channel.send(FrameType.GROUP, payload).catch(() => undefined),
  };

  /** The destination runs: what fails from here on is the proof, not the migration. */
  async #result(): Promise<MigrationResult> {
    const recorder = this.#recorder;
    recorder.handover = await this.#finishRelay();
    recorder.audit = await this.#finish().catch(() => null);
    this.#phase('done');
    this.#channel.close();
    const { handover, audit, downtimeMs, differences } = recorder;
    return {
      rounds: this.#precopy.rounds,
      totalMs: elapsed(recorder.began, this.#clock.at('running')),
      downtimeMs,
      downtimeParts: this.#clock.parts,
      bytes: this.#channel.bytesSent + this.#pageBytes,
      vrings: [...this.#vrings],
      differences,
      handover,
      audit,
    };
  }

  /** What went over page connections. */
  get #pageBytes(): number {
    if (this.#pageConnections.length === 0) return 0;
    return this.#precopy.rounds.reduce((sum, { bytes }) => sum + bytes, 0);
  }

  /** The rest of the frames, and both accounts of them. */
  async #finishRelay(): Promise<HandoverAccount | null> {
    const relay = this.#relay;
    if (relay === null) return null;
    let destination: DestinationAccount | null = null;
    try {
      const drained: DrainedMessage = { account: await relay.finish(this.#grace!) };
      await this.#channel.sendJson(FrameType.DRAINED, drained);
      destination = await receiveDestinationAccount(this.#channel, FrameType.SETTLED);
    } catch {
      // The destination goes on by itself, and accounts for it.
    }
    const { account } = relay;
    await this.#leaveRelay();
    return compareAccounts(account, destination);
  }

  /** After RUNNING: this side's memory stands as it was at the stop, so it can still be compared with what the destination began with. */
  async #finish(): Promise<AuditResult | null> {
    if (this.#options.audit === false || this.#links.local) {
      await this.#channel.sendJson(FrameType.END, { audit: null });
      return null;
    }
    const audit = await compareWithHashes(this.#channel, this.#device.memory);
    await this.#channel.sendJson(FrameType.END, { audit });
    return audit;
  }

  /** What the end of an attempt that did not succeed is called. */
  #outcome(): unknown {
    const cause = this.#cause;
    // Should it turn out that the guest does not run there, a start here begins with what was collected for it.
    if (this.state === 'uncertain' || this.state === 'returned') this.#relay?.giveBack();
    return endOfAttempt(this.state, cause);
  }

  /** An order from outside, where nothing here tells. 'here': the destination certainly does not run the guest and never will. */
  async resolve(where: 'here' | 'there'): Promise<void> {
    this.#cause = null;
    await this.#on({ kind: where === 'here' ? 'resolve-here' : 'resolve-there' });
    if (this.state === 'stranded') throw this.#cause;
    if (where === 'there') await this.#leaveRelay();
  }

  record(): MigrationRecord | null {
    const { rounds, heat } = this.#precopy;
    return this.#recorder.record(this.#told(), this.#cause, rounds, heat);
  }

  #told(): MigrationOutcome {
    if (this.state === 'done') return 'completed';
    if (this.state === 'uncertain') return 'uncertain';
    return this.#cause instanceof VhostError && this.#cause.code === 'VHOST_ERR_ABORTED' ? 'cancelled' : 'failed';
  }

  #phase(phase: MigrationPhase): void {
    this.#recorder.event({ kind: 'phase', phase });
  }
}

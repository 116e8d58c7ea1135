/**
 * One migration as the destination does it. Who may run the guest is decided by the DestinationMachine; here is how its actions are done.
 *
 *     compare, receive pages until the last round, state, build everything but the last step, READY, [GO] start, RUNNING, audit
 */
import type { Backend } from '../backend/backend';
import type { VirtioNetDevice } from '../device/virtio-net-device';
import { ProtocolError, reasonOf, VhostError } from '../errors';
import type { GuestMemory } from '../memory/guest-memory';
import type { FdHandle } from '../native';
import { type Announcements, announce } from './announce';
import { AnnounceRounds } from './announce-rounds';
import { sendHashes } from './audit';
import type { Channel, Frame } from './channel';
import { type DestinationAction, type DestinationEvent, DestinationMachine } from './commit/destination-machine';
import type { DestinationHost, ReceivedMigration } from './destination';
import { describeSide, type SideEnvironment } from './environment';
import { FRAME_HEADER_SIZE, FrameType } from './frame';
import { compareAccounts, type HandoverAccount } from './handover/account';
import { type Grace, gracePeriods } from './handover/grace';
import { Takeover } from './handover/takeover';
import type { HelloMessage } from './hello';
import type {
  AuditResult,
  LayoutMessage,
  OpenedMessage,
  RunningMessage,
  SetupAckMessage,
  SetupMessage,
} from './messages';
import { elapsed, type MigrationOptions, type MigrationPhase } from './options';
import type { PageConnection } from './page-connection';
import { PageReceiver } from './page-receiver';
import { type PassedMachine, receiveMachine } from './passed-descriptors';
import { compareProperties, compareSides, requireRoom } from './preflight';
import { readRoundEnd, readState, receiveAudit } from './read-messages';
import { validateLayout, validateSetup } from './setup';

/** Further connections of an attempt, as they come. */
export interface DestinationLinks {
  /** The `index`th page connection, greeted. */
  pages(index: number): Promise<PageConnection>;
  /** The one for descriptors, greeted; owned by the caller. */
  descriptors(): Promise<FdHandle>;
}

export class DestinationRun<Guest extends { resume(): void }> {
  readonly #machine = new DestinationMachine();
  readonly #host: DestinationHost<Guest>;
  readonly #channel: Channel;
  readonly #options: MigrationOptions;
  #attempt = '';
  #cause: unknown = null;
  #memory: GuestMemory | null = null;
  #backend: Backend | null = null;
  #environment: SideEnvironment | null = null;
  #links: DestinationLinks | null = null;
  #passed: PassedMachine | null = null;
  readonly #pageConnections: PageConnection[] = [];
  #receiver: PageReceiver | null = null;
  #grace: Grace | null = null;
  #takeover: Takeover | null = null;
  #device: VirtioNetDevice | null = null;
  #guest: Guest | null = null;
  #announcements: Announcements | null = null;
  #audits = false;
  #startMs = 0;
  #degraded: unknown = null;

  constructor(host: DestinationHost<Guest>, channel: Channel, options: MigrationOptions) {
    this.#host = host;
    this.#channel = channel;
    this.#options = options;
  }

  /** `links`: how further connections of the attempt come, where there can be any; `greeted`, when HELLO was answered before. */
  async receive(
    links: DestinationLinks | null = null,
    greeted: HelloMessage | null = null,
  ): Promise<ReceivedMigration<Guest>> {
    this.#links = links;
    await this.#try(async () => {
      const hello = greeted ?? (await this.#channel.answer());
      if (hello.channel !== 'control') {
        throw new ProtocolError(`HELLO is for channel ${hello.channel}`, FRAME_HEADER_SIZE, 'control');
      }
      this.#attempt = hello.identity;
      this.#channel.keepAlive(this.#options.deadAfterMs);
      await this.#on({ kind: 'connect', attempt: hello.identity });
    });
    if (this.#machine.state !== 'running') throw this.#outcome();
    return this.#afterStart();
  }

  #outcome(): unknown {
    if (this.#machine.state !== 'leaking') return this.#cause;
    const why = reasonOf(this.#cause);
    return new VhostError('VHOST_ERR_MIGRATION', `${why}; and what there was of the guest could not be let go of`, {
      cause: this.#cause,
      hint: 'end this process: only then it is certain that the guest does not run here',
    });
  }

  /** Tells the machine what has happened and does what it says. */
  async #on(event: DestinationEvent): Promise<void> {
    for (const action of this.#machine.on(event)) {
      if (!(await this.#try(() => this.#actions[action]()))) return;
    }
  }

  /** Answers false when it failed: then the machine knows, and has led elsewhere. */
  async #try(step: () => Promise<void>): Promise<boolean> {
    try {
      await step();
      return true;
    } catch (error) {
      this.#cause ??= error;
      // Before HELLO there is nothing to let go of.
      if (this.#machine.state === 'waiting') await this.#channel.sendCause(this.#cause);
      else await this.#on({ kind: 'step-failed' });
      return false;
    }
  }

  readonly #actions: Readonly<Record<DestinationAction, () => Promise<void>>> = {
    accept: () => this.#accept(),
    refuse: async () => undefined,
    open: async () => undefined,
    load: () => this.#load(),
    'send-ready': () => this.#sendReady(),
    start: () => this.#start(),
    'send-running': () => this.#sendRunning(),
    release: () => this.#release(),
    tell: () => this.#channel.sendCause(this.#cause),
    close: async () => this.#channel.close(),
  };

  async #accept(): Promise<void> {
    const setup = await this.#setup();
    this.#memory ??= this.#host.createMemory(setup);
    this.#phase('precopy');
    for (let index = 1; index <= setup.pageConnections; index++) {
      const pages = await this.#further().pages(index);
      this.#pageConnections.push(pages);
    }
    this.#receiver = new PageReceiver(this.#memory, this.#pageConnections);
    await this.#receivePages(this.#memory, this.#receiver);
    this.#audits = this.#options.audit !== false && !setup.local;
    for (const pages of this.#pageConnections) pages.close();
    // The guest waits from here on: what the audit needs is asked for when it runs.
    if (!this.#audits) this.#receiver.close();
    await this.#on({ kind: 'state', attempt: this.#attempt });
  }

  async #setup(): Promise<SetupMessage> {
    this.#phase('setup');
    const frame = await this.#channel.receive([FrameType.SETUP]);
    const setup = validateSetup(this.#channel.parseJson<unknown>(frame), frame.offset + FRAME_HEADER_SIZE);
    if (setup.local && !setup.dryRun) {
      this.#passed = await receiveMachine(await this.#further().descriptors(), setup);
      this.#memory = this.#passed.memory;
    }
    const backend = await this.#host.createBackend(setup, this.#passed?.taps ?? null);
    this.#backend = backend;
    // Of taps that nobody uses yet it can be found out what this kernel carries of offloads; those that were passed are in use.
    if (this.#passed === null) await backend.probe();
    const environment = await describeSide(backend);
    this.#environment = environment;
    const { properties } = this.#host;
    const differences = [
      ...compareSides(setup, environment),
      ...(properties === undefined ? [] : compareProperties(setup, properties)),
      ...((await this.#host.compare?.(setup)) ?? []),
    ];
    const fatal = differences.filter((difference) => difference.severity === 'fatal');
    const relay = setup.relay && backend.taps !== null && this.#options.handover !== false;
    if (relay) this.#grace = gracePeriods(setup.environment.bootId === environment.bootId);
    const ack: SetupAckMessage = { differences, environment, relay };
    await this.#channel.sendJson(FrameType.SETUP_ACK, ack);
    if (setup.dryRun) throw new VhostError('VHOST_ERR_ABORTED', 'a dry run: nothing was to be moved');
    if (fatal.length > 0) {
      const what = fatal.map((difference) => difference.what).join(', ');
      throw new VhostError('VHOST_ERR_INCOMPATIBLE', `refused: ${what} cannot be run here`);
    }
    return setup;
  }

  async #receivePages(memory: GuestMemory, receiver: PageReceiver): Promise<void> {
    const types = [FrameType.PAGES, FrameType.ROUND_END, FrameType.LAYOUT, FrameType.OPEN];
    for (;;) {
      const frame = await Promise.race([this.#channel.receive(types), receiver.failure]);
      if (frame.type === FrameType.PAGES) await receiver.apply(frame);
      else if (frame.type === FrameType.LAYOUT) await this.#relayout(frame, memory, receiver);
      else if (frame.type === FrameType.OPEN) await this.#open(frame, memory);
      else {
        const end = readRoundEnd(this.#channel, frame);
        await receiver.endRound(end, frame.offset + FRAME_HEADER_SIZE);
        if (end.final) return;
        await this.#channel.sendJson(FrameType.ROUND_ACK, end);
      }
    }
  }

  async #relayout(frame: Frame, memory: GuestMemory, receiver: PageReceiver): Promise<void> {
    const change: LayoutMessage = validateLayout(this.#channel.parseJson(frame), frame.offset + FRAME_HEADER_SIZE);
    if (change.kind === 'add') requireRoom(memory.regions, change, this.#environment!);
    if (change.kind === 'add') await memory.addRegion({ gpa: change.gpa, size: change.size });
    else await memory.removeRegion(change.gpa);
    receiver.relayout(memory);
    await this.#channel.send(FrameType.LAYOUT_ACK, Buffer.alloc(0));
  }

  async #open(frame: Frame, memory: GuestMemory): Promise<void> {
    const taps = this.#backend?.taps;
    if (this.#grace === null || taps == null || this.#takeover !== null) {
      throw new ProtocolError('OPEN', frame.offset, 'no OPEN: frames are not handed over, or it came before');
    }
    this.#takeover = await Takeover.prepare(this.#channel, frame, memory, taps);
    await this.#takeover.open(this.#grace);
    await this.#on({ kind: 'open', attempt: this.#attempt });
    const opened: OpenedMessage = { nonce: Buffer.from(this.#takeover.nonce).toString('hex') };
    await this.#channel.sendJson(FrameType.OPENED, opened);
  }

  async #load(): Promise<void> {
    this.#phase('switchover');
    const memory = this.#memory!;
    const frame = await this.#channel.receive([FrameType.STATE]);
    const state = readState(this.#channel, frame);
    this.#announcements = {
      macs: state.addresses,
      vlans: state.vlans,
      nonce: this.#takeover?.nonce ?? null,
    };
    this.#takeover?.intake.setAddresses(this.#announcements.macs);
    const backend = this.#takeover?.intake.backend ?? this.#backend!;
    const device = await this.#host.createDevice(state.device, memory, backend);
    this.#device = device;
    this.#guest = await this.#host.createGuest(state.guest, memory, device);
    // A tap that was passed is the source's until GO: nothing of it is read here.
    await device.prepare({ shared: this.#passed !== null });
    this.#channel.throwIfAborted('getting ready');
    await this.#on({ kind: 'loaded' });
  }

  /** From READY on only the source decides: a cancel of this side could cross its GO. */
  async #sendReady(): Promise<void> {
    this.#channel.commit();
    await this.#channel.send(FrameType.READY, Buffer.alloc(0));
    this.#phase('ready');
    await this.#channel.receive([FrameType.GO]);
    await this.#on({ kind: 'go', attempt: this.#attempt });
  }

  async #start(): Promise<void> {
    this.#phase('commit');
    const go = performance.now();
    const device = this.#device!;
    this.#takeover?.intake.started();
    const tap = this.#backend?.taps?.[0];
    if (tap !== undefined && device.linkUp && device.driverOk) announce(tap, this.#announcements!);
    await device.start();
    this.#guest!.resume();
    this.#startMs = elapsed(go);
    this.#phase('running');
    await this.#on({ kind: 'started' });
  }

  /** Whether the source hears of it is no matter any more. */
  async #sendRunning(): Promise<void> {
    const running: RunningMessage = { startMs: this.#startMs };
    await this.#channel.sendJson(FrameType.RUNNING, running).catch(() => undefined);
  }

  /** The guest runs here, and nothing that happens from now on may end it. */
  async #afterStart(): Promise<ReceivedMigration<Guest>> {
    const device = this.#device!;
    const handover = await this.#takeOver(device).catch((error: unknown) => {
      this.#degraded ??= error;
      return null;
    });
    const announcing = new AnnounceRounds(device, this.#announcements!, this.#options);
    const audit = await this.#finish().catch(() => null);
    this.#phase('done');
    return {
      memory: this.#memory!,
      device,
      guest: this.#guest!,
      rounds: this.#receiver?.round ?? 0,
      pages: this.#receiver?.moved.pages ?? 0,
      bytes: this.#channel.bytesReceived + (this.#receiver?.moved.bytes ?? 0),
      startMs: this.#startMs,
      handover,
      degraded: this.#degraded,
      announcing,
      audit,
      taps: this.#passed?.taps ?? [],
    };
  }

  /** The rest of the frames; then the guest goes on with the data path that was meant for it. */
  async #takeOver(device: VirtioNetDevice): Promise<HandoverAccount | null> {
    const takeover = this.#takeover;
    if (takeover === null) return null;
    const { source, destination } = await takeover.finish();
    try {
      if (takeover.intake.waiting > 0) {
        throw new VhostError('VHOST_ERR_STATE', 'the guest does not take the frames that wait for it', {
          hint: 'it stays on the emulated data path, which has them: change it later by switchBackend',
        });
      }
      await device.switchBackend(this.#backend!);
      await takeover.intake.backend.close();
    } catch (error) {
      // It runs, if slower than meant.
      this.#degraded = error;
    }
    takeover.intake.counters.close();
    return compareAccounts(source, destination);
  }

  async #finish(): Promise<AuditResult | null> {
    const receiver = this.#receiver!;
    try {
      if (this.#audits) await sendHashes(this.#channel, receiver.received);
    } finally {
      receiver.close();
    }
    return receiveAudit(this.#channel, FrameType.END);
  }

  #further(): DestinationLinks {
    if (this.#links !== null) return this.#links;
    throw new VhostError('VHOST_ERR_MIGRATION', 'the source wants further connections, and this is a single stream');
  }

  /** Nothing of the guest, and nothing that was opened for it, is left when this resolves. */
  async #release(): Promise<void> {
    this.#receiver?.close();
    for (const pages of this.#pageConnections) pages.close();
    this.#takeover?.intake.close();
    await this.#device?.close();
    await this.#takeover?.intake.backend.close();
    this.#takeover?.intake.counters.close();
    await this.#backend?.close();
    for (const tap of this.#passed?.taps ?? []) await tap.close();
    this.#memory?.close();
    await this.#on({ kind: 'released' });
  }

  #phase(phase: MigrationPhase): void {
    this.#options.onEvent?.({ kind: 'phase', phase });
  }
}

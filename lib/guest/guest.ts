/**
 * A guest without an operating system: a virtio-net driver and a small program on each of its queue pairs, whose whole state lies in guest
 * memory. `boot` writes it there, `resume` goes on from there and from nothing else; between two calls of `poll` it stands still and can be
 * copied.
 */
import { VIRTIO_RING_F_INDIRECT_DESC } from '../constants/virtio-net';
import { invalidArgument, VhostError } from '../errors';
import { formatMac } from '../net/ethernet';
import { hasBit } from '../net/features';
import type { FrameLedger } from '../observe/frame-ledger';
import { LedgerSet } from '../observe/ledger-set';
import type { NamedRange } from '../observe/page-audit';
import type { DriverQueue } from '../virtqueue/driver-queue';
import type { QueueState } from '../virtqueue/queue-state';
import { NO_WRITE_LOG, type RingMemory, type WriteLog } from '../virtqueue/ring-memory';
import { Field, MAC_AT, Word } from './boot-block';
import type { ControlDriver } from './control-driver';
import { type ControlPart, formatControl, openControl } from './control-part';
import { type GuestCounters, readCounters, sumCounters } from './counters';
import { Echo } from './echo';
import { Flood } from './flood';
import { FloodTransmit } from './flood-transmit';
import { Lanes } from './lanes';
import { Machine } from './machine';
import { GUEST_PROGRAMS, type GuestOptions, type GuestProgram } from './options';
import { planGuest } from './plan';
import type { Equipment, Program } from './program';
import { Receiver } from './receive';
import { Traffic } from './traffic';
import { Transmitter } from './transmit';

export type { GuestCounters } from './counters';
export type { GuestOptions, GuestProgram } from './options';

/** Queue numbers of the first queue pair; those of pair n are 2n higher. */
export const RECEIVE_QUEUE = 0;
export const TRANSMIT_QUEUE = 1;

/** What the guest finds outside guest memory. */
export interface GuestSurroundings {
  /** Told of every byte the guest writes. */
  log?: WriteLog;
  /** The device must be kicked: at most once a queue and poll. */
  onKick?: (queue: number) => void;
}

export class Guest {
  readonly program: GuestProgram;
  /** Queue pairs: queue 2n receives, queue 2n + 1 transmits. */
  readonly pairs: number;
  readonly mac: string;
  readonly features: bigint;
  /** Bytes of the virtio-net header. */
  readonly headerLength: number;
  /** They account for what comes in, by flow. */
  readonly ledgers: readonly FrameLedger[];
  /** The first of them. */
  readonly ledger: FrameLedger;
  /** Set to hear when the device must be kicked. */
  onKick: (queue: number) => void;
  readonly #machines: readonly Machine[];
  readonly #control: ControlPart | null;
  readonly #programs: readonly Program[];
  readonly #lanes: Lanes;

  /** Guest memory that a guest needs, in bytes from `gpa` on; of these, `buffers` lie elsewhere when `buffersGpa` says so. */
  static bytes(options: GuestOptions): { control: number; buffers: number } {
    const { controlEnd, buffersBytes, gpa } = planGuest(options);
    return { control: controlEnd - gpa, buffers: buffersBytes };
  }

  /**
   * Writes a new guest to memory, rings filled. Throws VHOST_ERR_INVALID_ARGUMENT, VHOST_ERR_UNSUPPORTED for features it has no driver for,
   * or what memory throws when it is too small.
   */
  static boot(memory: RingMemory, options: GuestOptions, surroundings: GuestSurroundings = {}): Guest {
    const plan = planGuest(options);
    memory.regionOf(plan.gpa, plan.controlEnd - plan.gpa);
    memory.regionOf(plan.buffersGpa, plan.buffersBytes);
    const { log = NO_WRITE_LOG } = surroundings;
    const machines = Machine.format(memory, plan, log);
    formatControl(memory, machines[0]!.block, plan, log);
    const guest = new Guest(machines, openControl(memory, machines[0]!.block, log), surroundings);
    guest.#fill();
    return guest;
  }

  /** Goes on with the guest whose boot block lies at `gpa`. Throws VHOST_ERR_STATE when there is none. */
  static resume(memory: RingMemory, gpa: number, surroundings: GuestSurroundings = {}): Guest {
    const { log = NO_WRITE_LOG } = surroundings;
    const machines = Machine.open(memory, gpa, log);
    return new Guest(machines, openControl(memory, machines[0]!.block, log), surroundings);
  }

  private constructor(
    machines: readonly Machine[],
    control: ControlPart | null,
    { onKick = () => undefined }: GuestSurroundings,
  ) {
    const { block, headerLength } = machines[0]!;
    const program = GUEST_PROGRAMS[block.words[Word.PROGRAM]!];
    if (program === undefined) {
      throw new VhostError(
        'VHOST_ERR_STATE',
        `the guest runs program ${block.words[Word.PROGRAM]}, which is unknown here`,
      );
    }
    this.program = program;
    this.pairs = machines.length;
    this.mac = formatMac(block.bytes, MAC_AT);
    this.features = block.features;
    this.headerLength = headerLength;
    this.ledgers = machines.map(({ ledger }) => ledger);
    this.ledger = this.ledgers[0]!;
    this.onKick = onKick;
    this.#machines = machines;
    this.#control = control;
    const indirect = hasBit(this.features, VIRTIO_RING_F_INDIRECT_DESC);
    const transmitters = machines.map((machine) => new Transmitter(machine, indirect));
    this.#lanes = new Lanes(machines, transmitters, !program.startsWith('flood'));
    const ledgers = new LedgerSet(this.ledgers);
    this.#programs = machines.map((machine, pair) =>
      startProgram(program, {
        machine,
        receiver: new Receiver(machine),
        transmitter: transmitters[pair]!,
        lanes: this.#lanes,
        ledgers,
      }),
    );
  }

  /** Receive buffers for everyone, frames for a flood. */
  #fill(): void {
    for (const machine of this.#machines) new Receiver(machine).fill();
    for (const program of this.#programs) if (program instanceof FloodTransmit) program.fill();
    this.#publish();
  }

  /**
   * Does what there is to do, at most a batch each way on each pair, and answers how much it was: call again until 0. `nowMicros` is
   * CLOCK_MONOTONIC. Throws VHOST_ERR_RING when the device broke a ring.
   */
  poll(nowMicros: number): number {
    const programs = this.#programs;
    let work = 0;
    for (let pair = 0; pair < programs.length; pair++) work += programs[pair]!.poll(nowMicros);
    // What a poll without work writes, a token bucket that begins or is refilled while the ring is full, marks itself (Pace).
    if (work > 0) {
      this.#lanes.settle();
      // A program may have sent on the queue of another pair.
      const machines = this.#machines;
      for (let pair = 0; pair < machines.length; pair++) machines[pair]!.block.mark();
      this.#publish();
    }
    return work;
  }

  #publish(): void {
    const machines = this.#machines;
    for (let pair = 0; pair < machines.length; pair++) {
      const { rx, tx } = machines[pair]!;
      if (rx.publish()) this.onKick(2 * pair + RECEIVE_QUEUE);
      if (tx.publish()) this.onKick(2 * pair + TRANSMIT_QUEUE);
    }
  }

  /**
   * Asks the device to call when there is something to do, to sleep on the call eventfds. Answers whether something came meanwhile: then
   * poll before sleeping. Transmitted frames are worth a call only while a program waits for room.
   */
  armInterrupts(): boolean {
    let came = false;
    for (const { index, rx, tx } of this.#machines) {
      if (arm(rx, this.program !== 'flood-transmit')) came = true;
      if (arm(tx, this.program !== 'flood-receive' && this.#waitsForRoom(index))) came = true;
    }
    return came;
  }

  #waitsForRoom(pair: number): boolean {
    return this.#programs.some((program, flow) => this.#lanes.of(flow) === pair && program.waitsForRoom);
  }

  /** Asks the device not to call: somebody polls. */
  disarmInterrupts(): void {
    for (const { rx, tx } of this.#machines) {
      rx.disableCalls();
      tx.disableCalls();
    }
  }

  /** Microseconds until a program has something to do by itself; Infinity when they only react. */
  dueIn(nowMicros: number): number {
    let due = Number.POSITIVE_INFINITY;
    for (const program of this.#programs) due = Math.min(due, program.dueIn(nowMicros));
    return due;
  }

  /** How many pairs, the first ones, may send. */
  get activePairs(): number {
    return this.#lanes.active;
  }

  /**
   * The driver has told the device, or is about to, how many pairs it uses. Flow k goes on on pair k modulo as many when pair k is not among
   * them, once the frames on their way on the queue it leaves were used: until `settled`, queues that are to be disabled must still be
   * served. All receive queues keep their buffers. Throws VHOST_ERR_INVALID_ARGUMENT unless 1 to `pairs`.
   */
  set activePairs(count: number) {
    if (!Number.isInteger(count) || count < 1 || count > this.pairs) {
      throw invalidArgument(`${count} active queue pairs`, `1 to ${this.pairs}`);
    }
    this.#lanes.active = count;
  }

  /** Every flow is on a pair it belongs to, and pairs that are not active have no frames on their way. */
  get settled(): boolean {
    return this.#lanes.settled;
  }

  /** The queues for a device to start with, in its order: rx0, tx0, rx1, tx1. While no device runs, and after one has stopped in good order. */
  get queues(): QueueState[] {
    return this.#machines.flatMap(({ rx, tx }) => [rx.queueState(), tx.queueState()]);
  }

  /** The control queue likewise; null for a guest without one. */
  get controlQueue(): QueueState | null {
    return this.#control?.queue.queueState() ?? null;
  }

  /** Speaks to the control queue; null for a guest without one. */
  get control(): ControlDriver | null {
    return this.#control?.driver ?? null;
  }

  get gpa(): number {
    return this.#machines[0]!.block.gpa;
  }

  /** Of all pairs together. */
  get counters(): GuestCounters {
    return sumCounters(this.#machines.map((_, pair) => this.countersOf(pair)));
  }

  countersOf(pair: number): GuestCounters {
    const { block, tx } = this.#machines[pair]!;
    return readCounters(block, this.program === 'flood-transmit' ? tx.inFlight : null);
  }

  /** Frames made available to the device so far, of all flows. */
  get sent(): number {
    return this.counters.sent;
  }

  /** Frames of the `index`th flow made available so far, on whichever pair; of a flood, which has no flows, those of the pair. */
  sentOf(index: number): number {
    if (this.program.startsWith('flood')) return this.countersOf(index).sent;
    return this.#machines[index]!.block.fields[Field.SEQUENCE]!;
  }

  /** Frames a second from now on, of all flows together; 0 to fall silent. Only `traffic` has a rate. */
  setRate(framesPerSecond: number): void {
    for (const { block } of this.#machines) {
      block.fields[Field.RATE] = Math.max(0, framesPerSecond) / this.pairs;
      block.fields[Field.TOKENS] = 0;
      block.fields[Field.REFILLED] = -1;
      block.mark();
    }
  }

  /** What lies where in guest memory, to name a page that differs. */
  get ranges(): NamedRange[] {
    const pairs = this.#machines.flatMap((machine) => machine.ranges(this.pairs > 1 ? `pair ${machine.index} ` : ''));
    return [...pairs, ...(this.#control?.ranges ?? [])];
  }
}

function arm(queue: DriverQueue, on: boolean): boolean {
  if (on) return queue.enableCalls();
  queue.disableCalls();
  return false;
}

function startProgram(program: GuestProgram, equipment: Equipment): Program {
  const { machine } = equipment;
  switch (program) {
    case 'traffic':
    case 'sink':
      return new Traffic(equipment);
    case 'echo':
      return new Echo(equipment);
    case 'flood-transmit':
      return new FloodTransmit(equipment);
    case 'flood-receive':
      return new Flood(machine.rx, machine.block, Field.RECEIVED, machine.batch);
  }
}

/**
 * A guest without an operating system: a virtio-net driver and a small program, whose whole state lies in guest memory. `boot` writes it
 * there, `resume` goes on from there and from nothing else; between two calls of `poll` it stands still and can be copied.
 */
import { VIRTIO_RING_F_INDIRECT_DESC } from '../constants/virtio-net';
import { VhostError } from '../errors';
import { formatMac } from '../net/ethernet';
import { hasBit } from '../net/features';
import type { FrameLedger } from '../observe/frame-ledger';
import type { NamedRange } from '../observe/page-audit';
import type { QueueState } from '../virtqueue/queue-state';
import { NO_WRITE_LOG, type RingMemory, type WriteLog } from '../virtqueue/ring-memory';
import type { SplitDriver } from '../virtqueue/split-driver';
import { BOOT_BLOCK_BYTES, Field, MAC_AT, Word } from './boot-block';
import { Echo } from './echo';
import { Flood } from './flood';
import { Machine } from './machine';
import { GUEST_PROGRAMS, type GuestOptions, type GuestProgram, planGuest } from './options';
import type { Program } from './program';
import { Receiver } from './receive';
import { Traffic } from './traffic';
import { Transmitter } from './transmit';

export type { GuestOptions, GuestProgram } from './options';

/** Queue numbers of a queue pair. */
export const RECEIVE_QUEUE = 0;
export const TRANSMIT_QUEUE = 1;

/** What the guest finds outside guest memory. */
export interface GuestSurroundings {
  /** Told of every byte the guest writes. */
  log?: WriteLog;
  /** The device must be kicked: at most once a queue and poll. */
  onKick?: (queue: number) => void;
}

export interface GuestCounters {
  /** Frames made available to the device, and of these used by it. */
  sent: number;
  sentDone: number;
  /** Frames received, sound or not. */
  received: number;
  receivedBytes: number;
  /** Shorter than a header or longer than their buffers. */
  malformed: number;
  notEchoed: number;
}

export class Guest {
  readonly program: GuestProgram;
  readonly mac: string;
  readonly features: bigint;
  /** Bytes of the virtio-net header. */
  readonly headerLength: number;
  /** Accounts for what comes in. */
  readonly ledger: FrameLedger;
  /** Set to hear when the device must be kicked. */
  onKick: (queue: number) => void;
  readonly #machine: Machine;
  readonly #running: Program;

  /** Guest memory that a guest needs, in bytes from `gpa` on; of these, `buffers` lie elsewhere when `buffersGpa` says so. */
  static bytes(options: GuestOptions): { control: number; buffers: number } {
    const { controlEnd, buffersBytes, gpa } = planGuest(options);
    return { control: controlEnd - gpa, buffers: buffersBytes };
  }

  /** Writes a new guest to memory, rings filled. Throws VHOST_ERR_INVALID_ARGUMENT, or what memory throws when it is too small. */
  static boot(memory: RingMemory, options: GuestOptions, surroundings: GuestSurroundings = {}): Guest {
    const plan = planGuest(options);
    memory.regionOf(plan.gpa, plan.controlEnd - plan.gpa);
    memory.regionOf(plan.buffersGpa, plan.buffersBytes);
    const guest = new Guest(Machine.format(memory, plan, surroundings.log ?? NO_WRITE_LOG), surroundings);
    guest.#fill();
    return guest;
  }

  /** Goes on with the guest whose boot block lies at `gpa`. Throws VHOST_ERR_STATE when there is none. */
  static resume(memory: RingMemory, gpa: number, surroundings: GuestSurroundings = {}): Guest {
    return new Guest(Machine.open(memory, gpa, surroundings.log ?? NO_WRITE_LOG), surroundings);
  }

  private constructor(machine: Machine, { onKick = () => undefined }: GuestSurroundings) {
    const { block, ledger, headerLength } = machine;
    const program = GUEST_PROGRAMS[block.words[Word.PROGRAM]!];
    if (program === undefined) {
      throw new VhostError(
        'VHOST_ERR_STATE',
        `the guest runs program ${block.words[Word.PROGRAM]}, which is unknown here`,
      );
    }
    this.program = program;
    this.mac = formatMac(block.bytes, MAC_AT);
    this.features = block.features;
    this.headerLength = headerLength;
    this.ledger = ledger;
    this.onKick = onKick;
    this.#machine = machine;
    this.#running = this.#start(program);
  }

  #start(program: GuestProgram): Program {
    const machine = this.#machine;
    const { rx, tx, block, batch } = machine;
    const receiver = new Receiver(machine);
    const transmitter = new Transmitter(machine, hasBit(this.features, VIRTIO_RING_F_INDIRECT_DESC));
    switch (program) {
      case 'traffic':
      case 'sink':
        return new Traffic(machine, receiver, transmitter);
      case 'echo':
        return new Echo(machine, receiver, transmitter);
      case 'flood-transmit':
        return new Flood(tx, block, Field.SENT_DONE, batch);
      case 'flood-receive':
        return new Flood(rx, block, Field.RECEIVED, batch);
    }
  }

  /** Receive buffers for everyone, frames for a flood. */
  #fill(): void {
    const machine = this.#machine;
    new Receiver(machine).fill();
    if (this.program === 'flood-transmit') {
      const length = machine.block.words[Word.FRAME_SIZE]!;
      while (machine.post(machine.tx, machine.txBuffers + machine.tx.nextId * machine.txBufferSize, length, false));
    }
    this.#publish();
  }

  /**
   * Does what there is to do, at most a batch each way, and answers how much it was: call again until 0. `nowMicros` is CLOCK_MONOTONIC.
   * Throws VHOST_ERR_RING when the device broke a ring.
   */
  poll(nowMicros: number): number {
    const work = this.#running.poll(nowMicros);
    // What a poll without work writes, a token bucket that begins or is refilled while the ring is full, marks itself (Pace).
    if (work > 0) {
      this.#machine.block.mark();
      this.#publish();
    }
    return work;
  }

  #publish(): void {
    if (this.#machine.rx.publish()) this.onKick(RECEIVE_QUEUE);
    if (this.#machine.tx.publish()) this.onKick(TRANSMIT_QUEUE);
  }

  /**
   * Asks the device to call when there is something to do, to sleep on the call eventfds. Answers whether something came meanwhile: then
   * poll before sleeping. Transmitted frames are worth a call only while the program waits for room.
   */
  armInterrupts(): boolean {
    const { rx, tx } = this.#machine;
    const receives = arm(rx, this.program !== 'flood-transmit');
    const transmits = arm(tx, this.program !== 'flood-receive' && this.#running.waitsForRoom);
    return receives || transmits;
  }

  /** Asks the device not to call: somebody polls. */
  disarmInterrupts(): void {
    this.#machine.rx.disableCalls();
    this.#machine.tx.disableCalls();
  }

  /** Microseconds until the program has something to do by itself; Infinity when it only reacts. */
  dueIn(nowMicros: number): number {
    return this.#running.dueIn(nowMicros);
  }

  /** The queues for a device to start with: receive, transmit. While no device runs, and after one has stopped in good order. */
  get queues(): QueueState[] {
    return [this.#machine.rx.queueState(), this.#machine.tx.queueState()];
  }

  get gpa(): number {
    return this.#machine.block.gpa;
  }

  get counters(): GuestCounters {
    const { fields } = this.#machine.block;
    const { tx } = this.#machine;
    const flood = this.program === 'flood-transmit';
    return {
      sent: flood ? fields[Field.SENT_DONE]! + tx.inFlight : fields[Field.SENT]!,
      sentDone: fields[Field.SENT_DONE]!,
      received: fields[Field.RECEIVED]!,
      receivedBytes: fields[Field.RECEIVED_BYTES]!,
      malformed: fields[Field.MALFORMED]!,
      notEchoed: fields[Field.NOT_ECHOED]!,
    };
  }

  /** Frames made available to the device so far. */
  get sent(): number {
    return this.counters.sent;
  }

  /** Frames a second from now on; 0 to fall silent. Only `traffic` has a rate. */
  setRate(framesPerSecond: number): void {
    const { block } = this.#machine;
    block.fields[Field.RATE] = Math.max(0, framesPerSecond);
    block.fields[Field.TOKENS] = 0;
    block.fields[Field.REFILLED] = -1;
    block.mark();
  }

  /** What lies where in guest memory, to name a page that differs. */
  get ranges(): NamedRange[] {
    const { block, rx, tx, ledger, areaGpa, txBuffers, scratch, scratchBytes } = this.#machine;
    const { fields, words } = block;
    const ledgerBytes = words[Word.LEDGER_BYTES]!;
    return [
      { name: 'boot block', gpa: block.gpa, length: BOOT_BLOCK_BYTES },
      ...rx.ranges('receive'),
      ...tx.ranges('transmit'),
      { name: `ledger of flow ${ledger.flow}`, gpa: fields[Field.LEDGER]!, length: ledgerBytes },
      { name: 'receive buffers', gpa: areaGpa, length: txBuffers },
      { name: 'transmit buffers', gpa: areaGpa + txBuffers, length: scratch - txBuffers },
      { name: 'scratch buffer', gpa: areaGpa + scratch, length: scratchBytes },
    ];
  }
}

function arm(queue: SplitDriver, on: boolean): boolean {
  if (on) return queue.enableCalls();
  queue.disableCalls();
  return false;
}

/**
 * Serves the control virtqueue (virtio 1.4 section 5.1.6.5) whatever its format and whatever carries the frames: takes one command at a
 * time, in order, has it carried out, and only then gives its chain back. Header, data and ack may lie in descriptors cut in any way; the
 * ack is the first byte the device may write. A chain that cannot be answered breaks this queue, alone.
 */
import { setImmediate as nextTurn } from 'node:timers/promises';
import { VIRTIO_NET_CTRL_HDR_SIZE, VIRTIO_NET_ERR, VIRTIO_NET_OK } from '../constants/virtio-net-ctrl';
import { reasonOf, VhostError } from '../errors';
import { type ControlCommand, type MalformedCommand, parseControlCommand } from '../net/control-command';
import { emit, type Trace, traced } from '../trace/trace';
import type { DeviceQueue } from '../virtqueue/device-queue';
import type { RegionView, WriteLog } from '../virtqueue/ring-memory';

/** Bytes of class, command and data that are looked at; ten thousand MAC addresses. A longer command is answered VIRTIO_NET_ERR. */
export const MAX_COMMAND_BYTES = 65_536;
/** Commands between two looks at the event loop: a driver that never stops asking keeps nobody waiting. */
const COMMANDS_PER_TURN = 16;

/**
 * Carries a command out; never called with `unknown`, nor before the last call has resolved. True when every effect is complete, false
 * (or a throw) when none is: answered VIRTIO_NET_OK or VIRTIO_NET_ERR.
 */
export type ControlHandler = (command: ControlCommand) => Promise<boolean>;

export interface ControlQueueOptions {
  /** The driver must be called. */
  onCall?: () => void;
  /** The device needs a reset: the queue is not touched again. Told once. */
  onBroken?: (error: VhostError) => void;
  trace?: Trace;
}

export class ControlQueue {
  readonly #queue: DeviceQueue;
  readonly #log: WriteLog;
  readonly #handler: ControlHandler;
  readonly #onCall: () => void;
  readonly #onBroken: (error: VhostError) => void;
  readonly #trace: Trace | undefined;
  #serving = false;
  #stopped = false;
  #error: VhostError | null;
  /** Of the loop that runs or ran last. */
  #loop: Promise<void> = Promise.resolve();

  /** `log` is told of acks; `queue` tells of its rings itself. */
  constructor(queue: DeviceQueue, log: WriteLog, handler: ControlHandler, options: ControlQueueOptions = {}) {
    this.#queue = queue;
    this.#log = log;
    this.#handler = handler;
    this.#onCall = options.onCall ?? (() => undefined);
    this.#onBroken = options.onBroken ?? (() => undefined);
    this.#trace = options.trace;
    this.#error = queue.error;
  }

  /** What broke the queue, or null. */
  get error(): VhostError | null {
    return this.#error;
  }

  /**
   * Answers what is available. Resolves when there is nothing left and the driver was asked to kick, or when the queue broke or is stopped.
   * To be called once at the start, as kicks from before may be gone, and then on every kick; while it runs it is joined.
   */
  run(): Promise<void> {
    if (!this.#serving && !this.#stopped && this.#error === null) {
      this.#serving = true;
      this.#loop = this.#serve();
    }
    return this.#loop;
  }

  /** A kick arrived. */
  wake(): void {
    void this.run();
  }

  /**
   * Takes no further command and resolves when the one in work has been answered: then every chain taken was given back, and the state of
   * the queue is what the next to serve it begins with. For good. Not to be awaited by the handler, which it waits for.
   */
  async stop(): Promise<void> {
    this.#stopped = true;
    await this.#loop;
  }

  async #serve(): Promise<void> {
    const queue = this.#queue;
    try {
      queue.disableKicks();
      for (let turn = 1; !this.#stopped; turn++) {
        const id = queue.pop();
        if (id >= 0) await this.#answer(id);
        else if (queue.enableKicks()) queue.disableKicks();
        else break;
        if (turn % COMMANDS_PER_TURN === 0) await nextTurn();
      }
    } catch (error) {
      this.#error = error instanceof VhostError ? error : queue.fail(reasonOf(error));
    }
    // Without a pause since the last look at the queue: a kick from now on begins anew, none falls between.
    this.#serving = false;
    if (this.#error !== null) this.#tellBroken(this.#error);
  }

  async #answer(id: number): Promise<void> {
    const queue = this.#queue;
    const { chain } = queue;
    const command = this.#read();
    const ackAt = chain.firstWritable;
    if (command === null) throw this.#refuse(`a command of ${chain.readableBytes} bytes`);
    if (ackAt === chain.buffers) throw this.#refuse('a command without a byte for its ack');
    // Taken now: the chain's arrays serve the next `pop`, and nothing of the chain is read from guest memory again.
    const region = chain.regions[ackAt]!;
    const gpa = chain.addresses[ackAt]!;
    const ack = await this.#carryOut(command);
    this.#writeAck(region, gpa, ack);
    queue.push(id, 1);
    if (queue.publish()) this.#onCall();
  }

  /** A copy of the command: what the driver writes there from now on changes nothing. Null when it is too short to be one. */
  #read(): ControlCommand | MalformedCommand | null {
    const { chain } = this.#queue;
    const tooLong = chain.readableBytes > MAX_COMMAND_BYTES;
    const bytes = new Uint8Array(tooLong ? VIRTIO_NET_CTRL_HDR_SIZE : chain.readableBytes);
    for (let at = 0, index = 0; at < bytes.length; index++) {
      const region = chain.regions[index]!;
      const from = chain.addresses[index]! - region.gpa;
      const part = Math.min(chain.lengths[index]!, bytes.length - at);
      bytes.set(region.u8.subarray(from, from + part), at);
      at += part;
    }
    if (!tooLong) return parseControlCommand(bytes);
    const reason = `${chain.readableBytes} bytes, at most ${MAX_COMMAND_BYTES}`;
    return { kind: 'malformed', class: bytes[0]!, command: bytes[1]!, reason };
  }

  async #carryOut(command: ControlCommand | MalformedCommand): Promise<number> {
    let done = false;
    try {
      done = command.kind !== 'malformed' && command.kind !== 'unknown' && (await this.#handler(command));
    } catch (error) {
      emit(this.#trace, { kind: 'fault', object: 'control queue', message: `${command.kind}: ${reasonOf(error)}` });
    }
    const ack = done ? VIRTIO_NET_OK : VIRTIO_NET_ERR;
    if (traced(this.#trace)) {
      const { kind, ...args } = command;
      emit(this.#trace, { kind: 'control', command: kind, args, ack });
    }
    return ack;
  }

  #writeAck(region: RegionView, gpa: number, ack: number): void {
    region.u8[gpa - region.gpa] = ack;
    if (this.#log.enabled) this.#log.mark(gpa, 1);
  }

  /** The chain goes back untaken, so that the queue stands where whoever serves it next finds the fault again. */
  #refuse(what: string): VhostError {
    this.#queue.unpop(1);
    return this.#queue.fail(what);
  }

  #tellBroken(error: VhostError): void {
    emit(this.#trace, { kind: 'fault', object: 'control queue', message: error.message });
    this.#onBroken(error);
  }
}

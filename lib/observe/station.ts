/**
 * A station on the network: a tap of its own, read and written by this process, that sends numbered frames at a rate, of one flow or of
 * several in turn, and accounts for those it gets. What a test rig puts on the other side of the device.
 */
import { IFF_NO_PI, IFF_TAP } from '../constants/if-tun';
import { check, closedError, invalidArgument } from '../errors';
import { Tap } from '../host/tap';
import { native, type PollHandle } from '../native';
import { parseMac } from '../net/ethernet';
import { type FrameKind, fromStation, requireFlows } from '../net/test-flows';
import { type FrameArea, frameArea, prepareFrame, requireFrameSize, stampFrame } from '../net/test-frame';
import { FrameLedger } from './frame-ledger';
import { LedgerSet } from './ledger-set';

const READABLE = 1;
const BATCH = 64;
/** Room for any frame of the default MTU, and then some. */
const STRIDE = 2048;
/** Frames that may be due at once after this process did not get to run: more than that are given up, not sent as a burst. */
const MOST_DUE = 256;
const MOST_FLOWS = 64;
/** A station that does not get to run for a while must not be what loses frames. */
const TX_QUEUE_LENGTH = 16_384;

export interface StationOptions {
  /** Path of the network namespace, or null. */
  netns: string | null;
  name?: string;
  mac: string;
  /** Address that its frames go to. */
  peerMac: string;
  /** Flow it sends, and flow it accounts for; the first ones of several. */
  sends: number;
  receives: number;
  /** How many flows each way, 1 to 64; they take turns. Default 1. */
  flows?: number;
  /** Default: `udp` for several flows, else `raw`. */
  shape?: FrameKind;
  /** Frames a second, of all flows together. */
  rate: number;
  frameSize: number;
  /** Frames of a flow that its ledger tells apart. */
  capacity: number;
}

export class Station {
  /** By flow. */
  readonly ledgers: readonly FrameLedger[];
  /** Of the first flow. */
  readonly ledger: FrameLedger;
  readonly name: string;
  readonly #tap: Tap;
  readonly #options: StationOptions;
  readonly #accounts: LedgerSet;
  readonly #flows: number;
  /** Frames to send, prepared: slot n is for flow n modulo flows, so there are as many beside a batch as a turn can begin with. */
  readonly #outgoing: FrameArea;
  /** What lies there from each slot on with which a batch can begin. */
  readonly #batches: readonly Uint8Array[];
  readonly #incoming = frameArea(new Uint8Array(BATCH * STRIDE));
  readonly #lengths = new Int32Array(BATCH);
  readonly #outgoingLengths = new Int32Array(BATCH);
  readonly #poll: PollHandle;
  /** By flow. */
  readonly #sent: number[];
  /** Flow of the next frame. */
  #turn = 0;
  #timer: NodeJS.Timeout | null = null;
  #due = 0;
  #closed = false;

  private constructor(tap: Tap, options: StationOptions) {
    const { flows = 1, shape = flows > 1 ? 'udp' : 'raw', sends, receives, capacity, frameSize } = options;
    this.#tap = tap;
    this.name = tap.name;
    this.#options = options;
    this.#flows = flows;
    this.#sent = new Array<number>(flows).fill(0);
    this.ledgers = this.#sent.map((_, index) => FrameLedger.create({ flow: receives + index, capacity }));
    this.ledger = this.ledgers[0]!;
    this.#accounts = new LedgerSet(this.ledgers);
    const slots = BATCH + flows - 1;
    this.#outgoing = frameArea(new Uint8Array(slots * STRIDE));
    this.#batches = this.#sent.map((_, index) => this.#outgoing.u8.subarray(index * STRIDE));
    const addresses = new Uint8Array([...parseMac(options.peerMac), ...parseMac(options.mac)]);
    for (let slot = 0; slot < slots; slot++) {
      const index = slot % flows;
      const look = fromStation(shape, index);
      prepareFrame(this.#outgoing, slot * STRIDE, frameSize, sends + index, addresses, 0, 6, look);
    }
    this.#outgoingLengths.fill(frameSize);
    this.#poll = check<PollHandle>(
      native().pollStart(tap.handle, READABLE, () => this.#read()),
      'epoll_ctl',
    );
  }

  static async open(options: StationOptions): Promise<Station> {
    const { flows = 1, shape = flows > 1 ? 'udp' : 'raw', sends, receives } = options;
    if (!Number.isInteger(flows) || flows < 1 || flows > MOST_FLOWS) {
      throw invalidArgument(`a station with ${flows} flows`, `1 to ${MOST_FLOWS}`);
    }
    for (const first of [sends, receives]) requireFlows(first, flows);
    requireFrameSize(options.frameSize, fromStation(shape, 0), STRIDE);
    const tap = await Tap.open({ name: options.name ?? '', netns: options.netns, flags: IFF_TAP | IFF_NO_PI });
    try {
      await tap.setTxQueueLen(TX_QUEUE_LENGTH);
      return new Station(tap, options);
    } catch (error) {
      await tap.close();
      throw error;
    }
  }

  /** Frames of the `index`th flow sent so far: their sequences are 0 to one less. */
  sentOf(index: number): number {
    return this.#sent[index]!;
  }

  /** Frames of all flows sent so far. */
  get sent(): number {
    return this.#sent.reduce((sum, sent) => sum + sent, 0);
  }

  /** Sends from now on. */
  start(): void {
    if (this.#closed) throw closedError('Station');
    if (this.#timer !== null) return;
    this.#due = native().monotonicMicros();
    this.#timer = setInterval(() => this.#send(), 1);
  }

  /** Numbers the next frames of a flow but does not send them: a loss to be found. */
  dropNext(frames: number, index = 0): void {
    this.#sent[index]! += frames;
  }

  /** Sends no more. Answers how many frames there were. */
  hush(): number {
    if (this.#timer !== null) clearInterval(this.#timer);
    this.#timer = null;
    return this.sent;
  }

  #send(): void {
    const now = native().monotonicMicros();
    const step = 1_000_000 / this.#options.rate;
    if (now - this.#due > MOST_DUE * step) this.#due = now - MOST_DUE * step;
    while (this.#due <= now) {
      const count = Math.min(BATCH, Math.floor((now - this.#due) / step) + 1);
      const written = this.#sendBatch(count, now);
      this.#due += written * step;
      if (written < count) return;
    }
  }

  /** Frames of all flows in turn. What the tap did not take is numbered again. */
  #sendBatch(count: number, now: number): number {
    const sent = this.#sent;
    const flows = this.#flows;
    const turn = this.#turn;
    for (let index = 0; index < count; index++) {
      const sequence = sent[(turn + index) % flows]! + Math.floor(index / flows);
      stampFrame(this.#outgoing, (turn + index) * STRIDE, sequence, now);
    }
    const written = this.#tap.writeFrames(this.#batches[turn]!, STRIDE, count, this.#outgoingLengths);
    for (let index = 0; index < written; index++) sent[(turn + index) % flows]! += 1;
    this.#turn = (turn + written) % flows;
    return written;
  }

  #read(): void {
    for (;;) {
      const count = this.#tap.readFrames(this.#incoming.u8, STRIDE, BATCH, this.#lengths);
      const now = native().monotonicMicros();
      for (let index = 0; index < count; index++) {
        this.#accounts.account(this.#incoming, index * STRIDE, this.#lengths[index]!, now);
      }
      if (count < BATCH) return;
    }
  }

  async close(): Promise<void> {
    if (this.#closed) return;
    this.#closed = true;
    this.hush();
    native().pollStop(this.#poll);
    await this.#tap.close();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }
}

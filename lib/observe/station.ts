/**
 * A station on the network: a tap of its own, read and written by this process, that sends numbered frames at a rate and accounts for those
 * it gets. What a test rig puts on the other side of the device.
 */
import { IFF_NO_PI, IFF_TAP } from '../constants/if-tun';
import { check, closedError } from '../errors';
import { Tap } from '../host/tap';
import { native, type PollHandle } from '../native';
import { parseMac } from '../net/ethernet';
import { frameArea, prepareFrame, requireFrameSize, stampFrame } from '../net/test-frame';
import { FrameLedger } from './frame-ledger';

const READABLE = 1;
const BATCH = 64;
/** Room for any frame of the default MTU, and then some. */
const STRIDE = 2048;
/** Frames that may be due at once after this process did not get to run: more than that are given up, not sent as a burst. */
const MOST_DUE = 256;

export interface StationOptions {
  /** Path of the network namespace, or null. */
  netns: string | null;
  name?: string;
  mac: string;
  /** Address that its frames go to. */
  peerMac: string;
  /** Flow it sends, and flow it accounts for. */
  sends: number;
  receives: number;
  /** Frames a second. */
  rate: number;
  frameSize: number;
  /** Frames the ledger tells apart. */
  capacity: number;
}

export class Station {
  readonly ledger: FrameLedger;
  readonly name: string;
  readonly #tap: Tap;
  readonly #options: StationOptions;
  readonly #outgoing = frameArea(new Uint8Array(BATCH * STRIDE));
  readonly #incoming = frameArea(new Uint8Array(BATCH * STRIDE));
  readonly #lengths = new Int32Array(BATCH);
  readonly #outgoingLengths = new Int32Array(BATCH);
  readonly #poll: PollHandle;
  #timer: NodeJS.Timeout | null = null;
  #due = 0;
  #sent = 0;
  #closed = false;

  private constructor(tap: Tap, options: StationOptions) {
    this.#tap = tap;
    this.name = tap.name;
    this.#options = options;
    this.ledger = FrameLedger.create({ flow: options.receives, capacity: options.capacity });
    const addresses = new Uint8Array([...parseMac(options.peerMac), ...parseMac(options.mac)]);
    for (let index = 0; index < BATCH; index++) {
      prepareFrame(this.#outgoing, index * STRIDE, options.frameSize, options.sends, addresses, 0, 6);
    }
    this.#outgoingLengths.fill(options.frameSize);
    this.#poll = check<PollHandle>(
      native().pollStart(tap.handle, READABLE, () => this.#read()),
      'epoll_ctl',
    );
  }

  static async open(options: StationOptions): Promise<Station> {
    requireFrameSize(options.frameSize);
    const tap = await Tap.open({ name: options.name ?? '', netns: options.netns, flags: IFF_TAP | IFF_NO_PI });
    return new Station(tap, options);
  }

  /** Frames sent so far: their sequences are 0 to one less. */
  get sent(): number {
    return this.#sent;
  }

  /** Sends from now on. */
  start(): void {
    if (this.#closed) throw closedError('Station');
    if (this.#timer !== null) return;
    this.#due = native().monotonicMicros();
    this.#timer = setInterval(() => this.#send(), 1);
  }

  /** Numbers the next frames but does not send them: a loss to be found. */
  dropNext(frames: number): void {
    this.#sent += frames;
  }

  /** Sends no more. Answers how many frames there were. */
  hush(): number {
    if (this.#timer !== null) clearInterval(this.#timer);
    this.#timer = null;
    return this.#sent;
  }

  #send(): void {
    const now = native().monotonicMicros();
    const step = 1_000_000 / this.#options.rate;
    if (now - this.#due > MOST_DUE * step) this.#due = now - MOST_DUE * step;
    while (this.#due <= now) {
      const count = Math.min(BATCH, Math.floor((now - this.#due) / step) + 1);
      for (let index = 0; index < count; index++) stampFrame(this.#outgoing, index * STRIDE, this.#sent + index, now);
      const written = this.#tap.writeFrames(this.#outgoing.u8, STRIDE, count, this.#outgoingLengths);
      this.#sent += written;
      this.#due += written * step;
      if (written < count) return;
    }
  }

  #read(): void {
    for (;;) {
      const count = this.#tap.readFrames(this.#incoming.u8, STRIDE, BATCH, this.#lengths);
      const now = native().monotonicMicros();
      for (let index = 0; index < count; index++) {
        this.ledger.account(this.#incoming, index * STRIDE, this.#lengths[index]!, now);
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

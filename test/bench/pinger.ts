/** A station that asks by ICMP echo request (RFC 792) at a rate, and knows when it was answered: by a kernel, or by a guest that returns frames. */
import { ETH_HLEN, ETH_P_IP } from '../../lib/constants/if-ether';
import { IFF_NO_PI, IFF_TAP } from '../../lib/constants/if-tun';
import { IPV4_HLEN } from '../../lib/constants/ip';
import { check } from '../../lib/errors';
import type { Netns } from '../../lib/host/netns';
import { Tap } from '../../lib/host/tap';
import { native, type PollHandle } from '../../lib/native';
import { etherType, parseMac, writeEthernet } from '../../lib/net/ethernet';
import { IPV4_PROTOCOL, internetChecksum, parseIpv4, writeIpv4 } from '../../lib/net/ipv4';
import { type FrameArea, frameArea } from '../../lib/net/test-frame';
import { GUEST_MAC, STATION_MAC } from './move-plan';

export const PINGER_ADDRESS = '10.0.0.1';
export const GUEST_ADDRESS = '10.0.0.2';
const READABLE = 1;
const IPPROTO_ICMP = 1;
const ICMP_ECHO_REQUEST = 8;
const ICMP_ECHO_REPLY = 0;
const FRAME_SIZE = 98;
const STRIDE = 2048;
const BATCH = 64;
const TX_QUEUE_LENGTH = 16_384;
/** Offsets in the frame. */
const AT_ICMP = ETH_HLEN + IPV4_HLEN;
const AT_CHECKSUM = AT_ICMP + 2;
const AT_SEQUENCE = AT_ICMP + 8;

export interface Answers {
  readonly asked: number;
  /** Requests that no answer came to. */
  readonly lost: number;
  /** Longest stretch without any answer, milliseconds. */
  readonly silenceMs: number;
}

export class Pinger {
  readonly name: string;
  readonly #tap: Tap;
  readonly #poll: PollHandle;
  readonly #outgoing: FrameArea = frameArea(new Uint8Array(STRIDE));
  readonly #incoming: FrameArea = frameArea(new Uint8Array(BATCH * STRIDE));
  readonly #lengths = new Int32Array(BATCH);
  readonly #answered = new Set<number>();
  #asked = 0;
  #doubled = 0;
  /** Since `watch`. */
  #first = 0;
  #latest = 0;
  #silence = 0;
  #due = 0;
  #step = 0;
  #timer: NodeJS.Timeout | null = null;

  private constructor(tap: Tap) {
    this.#tap = tap;
    this.name = tap.name;
    const { u8 } = this.#outgoing;
    writeEthernet(u8, 0, new Uint8Array([...parseMac(GUEST_MAC), ...parseMac(STATION_MAC)]), 0, 6, ETH_P_IP);
    const ends = [parseIpv4(PINGER_ADDRESS), parseIpv4(GUEST_ADDRESS)] as const;
    writeIpv4(u8, ETH_HLEN, FRAME_SIZE - ETH_HLEN, IPPROTO_ICMP, ...ends);
    u8[AT_ICMP] = ICMP_ECHO_REQUEST;
    this.#poll = check<PollHandle>(
      native().pollStart(tap.handle, READABLE, () => this.#read()),
      'epoll_ctl',
    );
  }

  static async open(netns: Netns): Promise<Pinger> {
    const tap = await Tap.open({ name: 'pinger', netns: netns.path, flags: IFF_TAP | IFF_NO_PI });
    await tap.setTxQueueLen(TX_QUEUE_LENGTH);
    return new Pinger(tap);
  }

  get answered(): number {
    return this.#answered.size;
  }

  /** Answers that came twice. */
  get doubled(): number {
    return this.#doubled;
  }

  /** Asks from now on, `rate` times a second. */
  start(rate: number): void {
    this.#step = 1_000_000 / rate;
    this.#due = this.#latest = native().monotonicMicros();
    this.watch();
    this.#timer = setInterval(() => this.#ask(), 1);
  }

  /** `answers` tells of what is asked, and of the silence, from now on. */
  watch(): void {
    this.#first = this.#asked;
    this.#silence = 0;
  }

  /** Asks no more. */
  hush(): void {
    if (this.#timer !== null) clearInterval(this.#timer);
    this.#timer = null;
  }

  /** Since `watch`. */
  answers(): Answers {
    let lost = 0;
    for (let sequence = this.#first; sequence < this.#asked; sequence++) if (!this.#answered.has(sequence)) lost++;
    return { asked: this.#asked - this.#first, lost, silenceMs: this.#silence / 1000 };
  }

  #ask(): void {
    const now = native().monotonicMicros();
    if (this.#due > now) return;
    const { u8, view } = this.#outgoing;
    view.setUint32(AT_SEQUENCE, this.#asked);
    view.setUint16(AT_CHECKSUM, 0);
    view.setUint16(AT_CHECKSUM, internetChecksum(u8, AT_ICMP, FRAME_SIZE - AT_ICMP));
    if (this.#tap.writeFrames(u8, STRIDE, 1, Int32Array.of(FRAME_SIZE)) === 0) return;
    this.#asked += 1;
    // No burst after this process did not get to run: what was due then is not asked.
    this.#due = Math.max(this.#due + this.#step, now);
  }

  #read(): void {
    for (;;) {
      const count = this.#tap.readFrames(this.#incoming.u8, STRIDE, BATCH, this.#lengths);
      for (let index = 0; index < count; index++) this.#hear(index * STRIDE, this.#lengths[index]!);
      if (count < BATCH) return;
    }
  }

  #hear(offset: number, length: number): void {
    const { u8, view } = this.#incoming;
    if (length !== FRAME_SIZE || etherType(u8, offset) !== ETH_P_IP) return;
    if (u8[offset + ETH_HLEN + IPV4_PROTOCOL] !== IPPROTO_ICMP) return;
    const type = u8[offset + AT_ICMP]!;
    if (type !== ICMP_ECHO_REPLY && type !== ICMP_ECHO_REQUEST) return;
    const sequence = view.getUint32(offset + AT_SEQUENCE);
    if (this.#answered.has(sequence)) {
      this.#doubled += 1;
      return;
    }
    this.#answered.add(sequence);
    const now = native().monotonicMicros();
    if (this.#timer !== null) this.#silence = Math.max(this.#silence, now - this.#latest);
    this.#latest = now;
  }

  async close(): Promise<void> {
    this.hush();
    native().pollStop(this.#poll);
    await this.#tap.close();
  }
}

/** Flows of a test network: from whom, to whom, and what their frames look like. */
import { parseMac, writeEthernet } from '../../lib/net/ethernet';
import { encodeFrame, type FrameArea, frameArea, RAW } from '../../lib/net/test-frame';

/** Local Experimental EtherType 2: frames that are all the same, byte by byte. */
export const IDENTICAL = 0x88b6;
export const BROADCAST = 'ff:ff:ff:ff:ff:ff';
export const MULTICAST = '01:00:5e:00:00:05';
/** Nobody's: a bridge floods what is for it. */
export const NOBODY = '02:00:00:00:99:99';

export type FlowKind = 'unicast' | 'broadcast' | 'multicast' | 'vlan' | 'unknown' | 'identical';

export interface FlowPlan {
  readonly flow: number;
  readonly kind: FlowKind;
  readonly source: string;
  readonly destination: string;
  readonly vlan?: number;
}

/** Shortest and how many lengths: frames of one flow differ in length. */
const LEAST = 80;
const LENGTHS = 64;

/** One flow with its count. */
export class FlowSource {
  readonly plan: FlowPlan;
  readonly #addresses: Uint8Array;
  sent = 0;

  constructor(plan: FlowPlan) {
    this.plan = plan;
    this.#addresses = new Uint8Array([...parseMac(plan.destination), ...parseMac(plan.source)]);
  }

  /** Writes the next frame at `at` and answers its length. It counts as sent. */
  next(area: FrameArea, at: number): number {
    const { kind, flow, vlan } = this.plan;
    const sequence = this.sent++;
    if (kind === 'identical') {
      area.u8.fill(0x5a, at, at + LEAST);
      writeEthernet(area.u8, at, this.#addresses, 0, 6, IDENTICAL);
      return LEAST;
    }
    const length = LEAST + (sequence % LENGTHS);
    const shape = vlan === undefined ? RAW : { vlan };
    encodeFrame(area, at, length, flow, sequence, 0, this.#addresses, 0, 6, shape);
    return length;
  }

  /** A copy of the next frame. */
  take(): Uint8Array {
    const area = frameArea(new Uint8Array(LEAST + LENGTHS));
    return area.u8.subarray(0, this.next(area, 0));
  }
}

/** Frames that are due at a rate, whoever asks when. */
export class Pace {
  readonly #step: number;
  #due: number;

  constructor(rate: number) {
    this.#step = 1000 / rate;
    this.#due = performance.now();
  }

  /** How many are due now, at most `most`; what is beyond it is given up. */
  take(most: number): number {
    const now = performance.now();
    const due = Math.max(0, Math.floor((now - this.#due) / this.#step));
    this.#due += due * this.#step;
    return Math.min(due, most);
  }
}

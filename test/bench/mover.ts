/** A guest that goes back and forth between two processes, and a station in this one that talks with it: in a network namespace of its own. */
import { setTimeout as sleep } from 'node:timers/promises';
import { Netns } from '../../lib/host/netns';
import type { LedgerReport } from '../../lib/observe/frame-ledger';
import { Station } from '../../lib/observe/station';
import { FRAME_SIZE, firstToGuest, GUEST_MAC, type Move, type MovePath, STATION_MAC, TO_NETWORK } from './move-plan';
import { Sides } from './sides';

const BRIDGE = 'br0';
const DRAIN_MS = 500;
const PATIENCE_MS = 20_000;

export interface MoverOptions {
  /** Default: emulated. */
  readonly path?: MovePath;
  readonly rate: number;
  readonly pairs?: number;
  readonly memory: number;
  readonly written?: number;
  /** Seconds of traffic that the ledgers can tell apart. */
  readonly seconds?: number;
}

/** Sums over both directions and all flows. */
export interface Faults extends Pick<LedgerReport, 'sent' | 'lost' | 'duplicated' | 'reordered' | 'corrupted'> {
  /** Of those lost, the kernel's count of frames that found a tap's queue full. */
  readonly overflowed: number;
}

export class Mover {
  readonly #netns: Netns;
  readonly #station: Station;
  readonly #sides = new Sides();

  private constructor(netns: Netns, station: Station) {
    this.#netns = netns;
    this.#station = station;
  }

  /** The guest runs in the first process, and both talk. */
  static async start(options: MoverOptions): Promise<Mover> {
    const { path = 'emulated', rate, pairs = 1, memory, written = 0, seconds = 100 } = options;
    const netns = await Netns.create();
    await netns.addBridge(BRIDGE);
    const capacity = 2 ** Math.ceil(Math.log2((rate * seconds) / pairs));
    const station = await Station.open({
      netns: netns.path,
      name: 'station',
      mac: STATION_MAC,
      peerMac: GUEST_MAC,
      sends: firstToGuest(pairs),
      receives: TO_NETWORK,
      flows: pairs,
      rate,
      frameSize: FRAME_SIZE,
      capacity,
    });
    const mover = new Mover(netns, station);
    await netns.attach(BRIDGE, station.name);
    await mover.#sides.boot(netns, BRIDGE, { path, program: 'traffic', rate, pairs, memory, written, capacity });
    const deadline = Date.now() + PATIENCE_MS;
    while (station.ledgers.some(({ received }) => received === 0)) {
      if (Date.now() > deadline) throw new Error('the guest was not heard');
      await sleep(10);
    }
    station.start();
    return mover;
  }

  move(local = false): Promise<Move> {
    return this.#sides.move(local);
  }

  /** Largest RssAnon of each process, in bytes. */
  own(): Promise<number[]> {
    return this.#sides.own();
  }

  /** Ends the traffic and accounts for it. */
  async settle(): Promise<Faults> {
    this.#station.hush();
    const sent = await this.#sides.hush();
    await sleep(DRAIN_MS);
    const here = sent.map((count, flow) => this.#station.ledgers[flow]!.report(count));
    const frames = await this.#sides.report(sent.map((_, flow) => this.#station.sentOf(flow)));
    const sum = (pick: (report: LedgerReport) => number): number =>
      [...here, ...frames].reduce((total, report) => total + pick(report), 0);
    return {
      sent: sum((report) => report.sent),
      lost: sum((report) => report.lost),
      duplicated: sum((report) => report.duplicated),
      reordered: sum((report) => report.reordered),
      corrupted: sum((report) => report.corrupted),
      overflowed: await this.#sides.overflowed(),
    };
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#sides[Symbol.asyncDispose]();
    await this.#station.close();
    await this.#netns.delete();
  }
}

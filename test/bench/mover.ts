/** A guest that goes back and forth between two processes, and a station in this one that talks with it: in a network namespace of its own. */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { SideProcess } from '../../lib/demo/side-process';
import { Netns } from '../../lib/host/netns';
import type { LedgerReport } from '../../lib/observe/frame-ledger';
import { Station } from '../../lib/observe/station';
import { FRAME_SIZE, firstToGuest, GUEST_MAC, type Move, type MoveOrders, STATION_MAC, TO_NETWORK } from './move-plan';

const BRIDGE = 'br0';
/** From lib/demo, where SideProcess looks. */
const SIDE = '../../test/bench/move-side.js';
const DRAIN_MS = 500;
const PATIENCE_MS = 20_000;

export interface MoverOptions {
  readonly rate: number;
  readonly pairs?: number;
  readonly memory: number;
  readonly written?: number;
  /** Seconds of traffic that the ledgers can tell apart. */
  readonly seconds?: number;
}

/** Sums over both directions and all flows. */
export type Faults = Pick<LedgerReport, 'sent' | 'lost' | 'duplicated' | 'reordered' | 'corrupted'>;

export class Mover {
  readonly #netns: Netns;
  readonly #station: Station;
  readonly #folder = mkdtempSync(join(tmpdir(), 'vhn-mover-'));
  readonly #sides = ['a', 'b'].map((name) => new SideProcess<MoveOrders>(SIDE, name));
  #at = 0;
  #moves = 0;

  private constructor(netns: Netns, station: Station) {
    this.#netns = netns;
    this.#station = station;
  }

  /** The guest runs in the first process, and both talk. */
  static async start({ rate, pairs = 1, memory, written = 0, seconds = 100 }: MoverOptions): Promise<Mover> {
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
    const plan = { netns: netns.path, rate, pairs, memory, written, capacity };
    for (const side of mover.#sides) await netns.attach(BRIDGE, (await side.ask('open', plan)).tap);
    await mover.#sides[0]!.ask('boot', null);
    const deadline = Date.now() + PATIENCE_MS;
    while (station.ledgers.some(({ received }) => received === 0)) {
      if (Date.now() > deadline) throw new Error('the guest was not heard');
      await sleep(10);
    }
    station.start();
    return mover;
  }

  async move(local = false): Promise<Move> {
    const [from, to] = [this.#sides[this.#at]!, this.#sides[1 - this.#at]!];
    const address = `unix:${join(this.#folder, String(this.#moves++))}`;
    await to.ask('listen', { address });
    const [move] = await Promise.all([from.ask('migrate', { address, local }), to.ask('arrived', null)]);
    this.#at = 1 - this.#at;
    return move;
  }

  /** Largest RssAnon of each process, in bytes. */
  async own(): Promise<number[]> {
    return Promise.all(this.#sides.map(async (side) => (await side.ask('own', null)).bytes));
  }

  /** Ends the traffic and accounts for it. */
  async settle(): Promise<Faults> {
    this.#station.hush();
    const side = this.#sides[this.#at]!;
    const { sent } = await side.ask('hush', null);
    await sleep(DRAIN_MS);
    const here = sent.map((count, flow) => this.#station.ledgers[flow]!.report(count));
    const { frames } = await side.ask('report', { sent: sent.map((_, flow) => this.#station.sentOf(flow)) });
    const sum = (pick: (report: LedgerReport) => number): number =>
      [...here, ...frames].reduce((total, report) => total + pick(report), 0);
    return {
      sent: sum((report) => report.sent),
      lost: sum((report) => report.lost),
      duplicated: sum((report) => report.duplicated),
      reordered: sum((report) => report.reordered),
      corrupted: sum((report) => report.corrupted),
    };
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await Promise.allSettled(this.#sides.map((side) => side.ask('end', null)));
    for (const side of this.#sides) side.kill();
    await this.#station.close();
    await this.#netns.delete();
    rmSync(this.#folder, { recursive: true, force: true });
  }
}

/** Both processes between which a guest goes back and forth, on the bridge of a network namespace. */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { SideProcess } from '../../lib/demo/side-process';
import { NetDevice } from '../../lib/host/net-device';
import type { Netns } from '../../lib/host/netns';
import type { LedgerReport } from '../../lib/observe/frame-ledger';
import type { Move, MoveOrders, MovePlan } from './move-plan';

/** From lib/demo, where SideProcess looks. */
const SIDE = '../../test/bench/move-side.js';

export class Sides {
  readonly #folder = mkdtempSync(join(tmpdir(), 'vhn-mover-'));
  readonly #sides = ['a', 'b'].map((name) => new SideProcess<MoveOrders>(SIDE, name));
  readonly #taps: NetDevice[] = [];
  #at = 0;
  #moves = 0;

  /** The guest runs in the first one. */
  async boot(netns: Netns, bridge: string, plan: Omit<MovePlan, 'netns'>): Promise<void> {
    for (const side of this.#sides) {
      const { tap } = await side.ask('open', { ...plan, netns: netns.path });
      await netns.attach(bridge, tap);
      this.#taps.push(new NetDevice(tap, netns.path));
    }
    await this.#sides[0]!.ask('boot', null);
  }

  async move(local = false): Promise<Move> {
    const [from, to] = [this.#sides[this.#at]!, this.#sides[1 - this.#at]!];
    const address = `unix:${join(this.#folder, String(this.#moves++))}`;
    await to.ask('listen', { address });
    const [move] = await Promise.all([from.ask('migrate', { address, local }), to.ask('arrived', null)]);
    this.#at = 1 - this.#at;
    return move;
  }

  /** The guest sends no more. Answers how many frames of each flow it sent. */
  async hush(): Promise<number[]> {
    return (await this.#sides[this.#at]!.ask('hush', null)).sent;
  }

  /** What it got of each flow, held against what was sent. */
  async report(sent: number[]): Promise<LedgerReport[]> {
    return (await this.#sides[this.#at]!.ask('report', { sent })).frames;
  }

  /** Frames towards the guest that found a tap's queue full, so far. */
  async overflowed(): Promise<number> {
    // Of taps that are handed over one goes away.
    const stats = await Promise.all(this.#taps.map((tap) => tap.stats().catch(() => null)));
    return stats.reduce((sum, counters) => sum + (counters?.tx.dropped ?? 0), 0);
  }

  /** Largest RssAnon of each process, in bytes. */
  own(): Promise<number[]> {
    return Promise.all(this.#sides.map(async (side) => (await side.ask('own', null)).bytes));
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await Promise.allSettled(this.#sides.map((side) => side.ask('end', null)));
    for (const side of this.#sides) side.kill();
    rmSync(this.#folder, { recursive: true, force: true });
  }
}

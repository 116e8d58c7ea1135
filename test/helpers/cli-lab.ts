/** A bridge with a station, and processes of the command line on it between which a guest moves: as a person has it on a host. */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { NetDeviceCounters } from '../../lib/host/net-device-counters';
import { Netns } from '../../lib/host/netns';
import { ControlClient } from '../../lib/migration/control-client';
import type { ControlMethod, ControlMethods, ControlStatus } from '../../lib/migration/control-protocol';
import { Station } from '../../lib/observe/station';
import { type CliOptions, CliProcess } from './cli-process';

const STATION_MAC = '02:00:00:00:00:01';
const GUEST_MAC = '02:00:00:00:00:02';
const TO_NETWORK = 1;
const PATIENCE_MS = 20_000;
const SETTLE_MS = 300;

export interface LabOptions {
  rate?: number;
  /** As many as the guest has queue pairs. */
  flows?: number;
}

export class CliLab {
  readonly netns: Netns;
  readonly station: Station;
  readonly folder = mkdtempSync(join(tmpdir(), 'vhost-net-cli-'));
  readonly rate: number;
  readonly #processes: CliProcess[] = [];
  #made = 0;

  private constructor(netns: Netns, station: Station, rate: number) {
    this.netns = netns;
    this.station = station;
    this.rate = rate;
  }

  static async create({ rate = 1000, flows = 1 }: LabOptions = {}): Promise<CliLab> {
    const netns = await Netns.create();
    await netns.addBridge('br0');
    const station = await Station.open({
      netns: netns.path,
      name: 'station',
      mac: STATION_MAC,
      peerMac: GUEST_MAC,
      sends: TO_NETWORK + flows,
      receives: TO_NETWORK,
      flows,
      rate,
      frameSize: 128,
      capacity: 1 << 20,
    });
    await netns.attach('br0', station.name);
    return new CliLab(netns, station, rate);
  }

  path(name: string): string {
    return join(this.folder, name);
  }

  start(args: readonly string[], options: CliOptions = {}): CliProcess {
    const started = new CliProcess(args, options);
    this.#processes.push(started);
    return started;
  }

  /** Runs a command to its end. */
  async command(...args: readonly string[]): Promise<CliProcess> {
    const run = this.start(args);
    await run.end();
    return run;
  }

  /** A guest that runs; the station talks with it. */
  async run(name: string, options: CliOptions = {}, ...more: readonly string[]): Promise<CliProcess> {
    const args = ['run', ...this.#place(name), '--memory', '32', '--rate', `${this.rate}`];
    const started = this.start([...args, '--control', this.path(name), ...more], options);
    await started.says(/orders are taken at/);
    await this.netns.attach('br0', name);
    this.station.start();
    return started;
  }

  #place(tap: string): string[] {
    return ['--tap', tap, '--netns', this.netns.path, '--backend', 'emulated'];
  }

  /** A process that waits for a guest on a tap of its own; where it listens. */
  async receive(
    name: string,
    address: string,
    options: CliOptions = {},
    ...more: readonly string[]
  ): Promise<{ process: CliProcess; address: string }> {
    const args = ['receive', address, ...this.#place(name), '--control', this.path(name), ...more];
    const process = this.start(args, options);
    const [, at] = await process.says(/listening at (.*)/);
    await this.netns.attach('br0', name);
    return { process, address: at! };
  }

  /** A process that takes memory and taps of others. */
  async receiveLocal(name: string, address: string): Promise<CliProcess> {
    const process = this.start(['receive', address, '--backend', 'emulated', '--control', this.path(name)]);
    await process.says(/listening at/);
    return process;
  }

  async order<Method extends ControlMethod>(
    name: string,
    method: Method,
    params: ControlMethods[Method]['params'],
  ): Promise<ControlMethods[Method]['result']> {
    const client = await ControlClient.connect(this.path(name));
    try {
      return await client.call(method, params);
    } finally {
      client.close();
    }
  }

  status(name: string): Promise<ControlStatus> {
    return this.order(name, 'status', {});
  }

  async #account(name: string): Promise<Record<string, number>> {
    return (await this.status(name)).owner as Record<string, number>;
  }

  /** Traffic goes on both ways with the guest behind that socket. */
  async flows(name: string, frames = 50): Promise<void> {
    const before = { toGuest: (await this.#account(name)).received!, toNetwork: this.station.ledger.received };
    const deadline = Date.now() + PATIENCE_MS;
    for (;;) {
      const { received } = await this.#account(name);
      const toNetwork = this.station.ledger.received - before.toNetwork;
      if (received! - before.toGuest >= frames && toNetwork >= frames) return;
      if (Date.now() > deadline) {
        throw new Error(
          `traffic stands still: ${received! - before.toGuest} to the guest, ${toNetwork} to the network`,
        );
      }
      await sleep(20);
    }
  }

  /** The station falls silent and what is under way arrives: what both directions lack, of everything that was ever sent. */
  async account(name: string) {
    const sentToGuest = this.station.hush();
    const { sent } = await this.#account(name);
    await sleep(SETTLE_MS);
    const { ledger } = this.station;
    const { received, duplicated, reordered, corrupted } = await this.#account(name);
    return {
      toNetwork: {
        // What the guest sent before its tap was on the bridge went nowhere.
        lost: ledger.lostSequences(1000, sent!).filter((sequence) => sequence > ledger.first).length,
        duplicated: ledger.duplicated,
        reordered: ledger.reordered,
        corrupted: ledger.corrupted,
      },
      toGuest: { lost: sentToGuest - received!, duplicated, reordered, corrupted },
    };
  }

  /** Whether the guest behind that socket runs; false where nobody takes orders there. */
  async runsAt(name: string): Promise<boolean> {
    return this.status(name).then(
      ({ running }) => running,
      () => false,
    );
  }

  /** Which of the taps something of a guest comes out of: more than announcements. */
  async transmitting(names: readonly string[], ms = 400): Promise<string[]> {
    const counters = await Promise.all(names.map((name) => NetDeviceCounters.open(name, this.netns.path)));
    const packets = () => counters.map((counter) => counter.read()?.rx.packets ?? 0);
    const before = packets();
    await sleep(ms);
    const after = packets();
    for (const counter of counters) counter.close();
    const least = (this.rate * ms) / 1000 / 5;
    return names.filter((_, index) => after[index]! - before[index]! > least);
  }

  /** Migrates again until it is done: a destination may not have noticed yet that its last source is gone. */
  async move(from: string, address: string, to: string): Promise<void> {
    const deadline = Date.now() + PATIENCE_MS;
    for (;;) {
      const { outcome, error } = await this.order(from, 'migrate', { address });
      if (outcome === 'completed') break;
      if (Date.now() > deadline || outcome !== 'failed')
        throw new Error(`${outcome}: ${error?.code} ${error?.message}`);
      await sleep(200);
    }
    await this.until(() => this.runsAt(to), `the guest to run at ${to}`);
  }

  async until(condition: () => Promise<boolean>, what: string, ms = PATIENCE_MS): Promise<void> {
    const deadline = Date.now() + ms;
    while (!(await condition())) {
      if (Date.now() > deadline) throw new Error(`waited ${ms} ms for ${what}`);
      await sleep(20);
    }
  }

  /** Another path for a socket, each time. */
  socket(): string {
    return this.path(`s${++this.#made}`);
  }

  async close(): Promise<void> {
    for (const one of this.#processes) one.kill('SIGKILL');
    await Promise.all(this.#processes.map((one) => one.end()));
    await this.station.close();
    await this.netns.delete();
    rmSync(this.folder, { recursive: true, force: true });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }
}

export const NOTHING_WRONG = {
  toNetwork: { lost: 0, duplicated: 0, reordered: 0, corrupted: 0 },
  toGuest: { lost: 0, duplicated: 0, reordered: 0, corrupted: 0 },
};

/**
 * Counters of an interface in a network namespace, read without a process for every look: one that does nothing lives there, and its view of
 * the namespace is in /proc.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import type { Netns } from '../../lib/host/netns';
import { until } from './vhost-wait';

/** Towards the guest, which is what an interface calls transmit. */
export interface TransmitCounters {
  bytes: number;
  packets: number;
  dropped: number;
}

/** Columns of /proc/net/dev behind the name: eight of receive, then of transmit bytes, packets, errors, drops. */
const TX_BYTES = 8;
const TX_PACKETS = 9;
const TX_DROPPED = 11;

export class TapCounters {
  readonly #child: ChildProcess;
  readonly #name: string;

  static async open(netns: Netns, name: string): Promise<TapCounters> {
    const counters = new TapCounters(
      spawn('ip', ['netns', 'exec', netns.name, 'sleep', '3600'], { stdio: 'ignore' }),
      name,
    );
    await until('the process is in the namespace', () => counters.#line() !== undefined);
    return counters;
  }

  private constructor(child: ChildProcess, name: string) {
    this.#child = child;
    this.#name = name;
  }

  #line(): string | undefined {
    const lines = readFileSync(`/proc/${this.#child.pid}/net/dev`, 'latin1').split('\n');
    return lines.find((line) => line.trimStart().startsWith(`${this.#name}:`));
  }

  read(): TransmitCounters {
    const line = this.#line();
    if (line === undefined) throw new Error(`${this.#name} is gone`);
    const columns = line
      .slice(line.indexOf(':') + 1)
      .trim()
      .split(/ +/)
      .map(Number);
    return { bytes: columns[TX_BYTES]!, packets: columns[TX_PACKETS]!, dropped: columns[TX_DROPPED]! };
  }

  async close(): Promise<void> {
    const gone = once(this.#child, 'exit');
    this.#child.kill('SIGKILL');
    await gone;
  }
}

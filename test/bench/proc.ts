/** What /proc and /sys know of a contender: its vhost worker, how long threads ran, what its interface carried. */
import { execFileSync } from 'node:child_process';
import { readdirSync, readFileSync } from 'node:fs';

const read = (path: string): string => readFileSync(path, 'utf8').trim();

/** CLOCK_MONOTONIC in microseconds. */
export function nowMicros(): number {
  return Number(process.hrtime.bigint() / 1000n);
}

/**
 * The thread that vhost runs for `pid`: a thread of that process (vhost_task), or a kernel thread that only bears its number
 * (before Linux 6.4). -1 while there is none.
 */
export function vhostWorkerOf(pid: number): number {
  for (const tid of threadsOf(pid)) {
    if (read(`/proc/${pid}/task/${tid}/comm`).startsWith('vhost-')) return tid;
  }
  for (const entry of readdirSync('/proc')) {
    if (/^\d+$/.test(entry) && commOf(entry) === `vhost-${pid}`) return Number(entry);
  }
  return -1;
}

function commOf(pid: string): string {
  try {
    return read(`/proc/${pid}/comm`);
  } catch {
    return '';
  }
}

export function threadsOf(pid: number): number[] {
  return readdirSync(`/proc/${pid}/task`).map(Number);
}

/** Nanoseconds that a thread has run. */
export function threadNanos(pid: number, tid: number): number {
  const path = threadsOf(pid).includes(tid) ? `/proc/${pid}/task/${tid}` : `/proc/${tid}`;
  return Number(read(`${path}/schedstat`).split(' ')[0]);
}

export function pin(tid: number, cpu: number): void {
  execFileSync('taskset', ['--pid', '--cpu-list', String(cpu), String(tid)], { stdio: 'ignore' });
}

export interface NetdevCounters {
  /** Frames that the guest sent: a tap's receive direction. */
  readonly rxPackets: number;
  /** Frames that the guest's device took. */
  readonly txPackets: number;
  /** Frames that found the tap's queue full. */
  readonly txDropped: number;
}

export function netdevCounters(name: string): NetdevCounters {
  const counter = (what: string): number => Number(read(`/sys/class/net/${name}/statistics/${what}`));
  return { rxPackets: counter('rx_packets'), txPackets: counter('tx_packets'), txDropped: counter('tx_dropped') };
}

/** One of netdevCounters alone, for who has to look often. */
export function txPackets(netdev: string): number {
  return Number(read(`/sys/class/net/${netdev}/statistics/tx_packets`));
}

export function netdevExists(name: string): boolean {
  return readdirSync('/sys/class/net').includes(name);
}

/** TUNSETIFF's flags as the kernel keeps them. */
export function tunFlags(name: string): number {
  return Number(read(`/sys/class/net/${name}/tun_flags`));
}

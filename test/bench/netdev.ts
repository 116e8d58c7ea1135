/** A contender's tap made ready: up, nothing of the kernel's own on it, and for transmission a sink. */
import { execFileSync } from 'node:child_process';
import { writeFileSync } from 'node:fs';
import type { Direction } from './contender';

/** How frames end: 'drop' by a filter at the interface's door, 'nobody' where that filter is not there and no protocol listens. */
export type Sink = 'drop' | 'nobody';

/** Interfaces of this network namespace come up without IPv6, hence without frames of their own. */
export function silenceIpv6(): void {
  try {
    writeFileSync('/proc/sys/net/ipv6/conf/default/disable_ipv6', '1');
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw error;
  }
}

/** `queueLength` in frames; 0 leaves the kernel's. */
export function bringUp(netdev: string, direction: Direction, queueLength: number): Sink {
  if (queueLength > 0) execFileSync('ip', ['link', 'set', 'dev', netdev, 'txqueuelen', String(queueLength)]);
  execFileSync('ip', ['link', 'set', 'dev', netdev, 'up']);
  return direction === 'tx' && dropsAtTheDoor(netdev) ? 'drop' : 'nobody';
}

function dropsAtTheDoor(netdev: string): boolean {
  try {
    tc('qdisc', 'add', 'dev', netdev, 'clsact');
    tc('filter', 'add', 'dev', netdev, 'ingress', 'matchall', 'action', 'drop');
    return true;
  } catch {
    return false;
  }
}

function tc(...args: string[]): void {
  execFileSync('tc', args, { stdio: 'ignore' });
}

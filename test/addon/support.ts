/** What the addon's tests share: plain handles, child processes that may crash, network namespaces that end with the test. */
import { execFileSync, spawnSync } from 'node:child_process';
import { join } from 'node:path';
import type { Errno, FdHandle, MappingHandle } from '../../lib/native';
import { native } from '../../lib/native';

export const PAGE = 4096;
export const PROT_READ = 1;
export const PROT_READ_WRITE = 3;
export const [EBADF, EAGAIN, EACCES, EINVAL, ENOENT, ENOTTY] = [-9, -11, -13, -22, -2, -25];

/** The value, or a failed test when the addon answered an errno. */
export function ok<T>(result: T | Errno): T {
  if (typeof result === 'number' && result < 0) throw new Error(`errno ${result}`);
  return result as T;
}

export interface Memory {
  fd: FdHandle;
  mapping: MappingHandle;
  bytes: Uint8Array;
}

/** A mapped memfd of that many pages. */
export function makeMemory(pages: number): Memory {
  const fd = ok(native().memfdCreate('addon-test', pages * PAGE, 0));
  const mapping = ok(native().mappingCreate(fd, 0, pages * PAGE, 0, PROT_READ_WRITE));
  return { fd, mapping, bytes: new Uint8Array(ok(native().mappingBuffer(mapping))) };
}

export function freeMemory(memory: Memory): void {
  native().mappingClose(memory.mapping);
  native().fdClose(memory.fd);
}

export interface ChildResult {
  status: number | null;
  signal: string | null;
  stdout: string;
  stderr: string;
}

/** Runs a script in a Node process of its own, with `n` the addon, `ok`, `sleep`, `fds` (how many are open) and, through --expose-gc, `collect`. */
export function inChild(script: string): ChildResult {
  const program = `
    const n = require(${JSON.stringify(join(__dirname, '../../lib/native.js'))}).native();
    const ok = (result) => { if (typeof result === 'number' && result < 0) throw new Error('errno ' + result); return result; };
    const fds = () => require('fs').readdirSync('/proc/self/fd').length;
    const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));
    const collect = async () => { for (let i = 0; i < 5; i++) { gc(); await sleep(5); } };
    (async () => {${script}})().catch((error) => { console.error(error); process.exit(99); });`;
  const child = spawnSync(process.execPath, ['--expose-gc', '-e', program], { encoding: 'utf8', timeout: 60_000 });
  return { status: child.status, signal: child.signal, stdout: child.stdout.trim(), stderr: child.stderr };
}

export function ip(...args: string[]): string {
  return execFileSync('ip', args, { encoding: 'utf8' });
}

let namespaces = 0;

/** A new network namespace without IPv6, so that taps carry only the test's own frames. */
export function makeNetns(): { name: string; path: string; remove: () => void } {
  const name = `vhn-addon-${process.pid}-${namespaces++}`;
  ip('netns', 'add', name);
  ip('netns', 'exec', name, 'sh', '-c', 'echo 1 > /proc/sys/net/ipv6/conf/default/disable_ipv6');
  return { name, path: `/run/netns/${name}`, remove: () => ip('netns', 'del', name) };
}

/** Resolves when the condition holds; fails after two seconds. */
export async function until(condition: () => boolean): Promise<void> {
  const end = Date.now() + 2000;
  while (!condition()) {
    if (Date.now() > end) throw new Error('the condition did not come true');
    await new Promise((resolve) => setTimeout(resolve, 2));
  }
}

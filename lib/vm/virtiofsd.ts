import { mkdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { spawnTied, type TiedChild } from './child';
import { VmError } from './errors';
import { VIRTIOFSD } from './host-packages';
import { run } from './process';

const POLL_MS = 5;
const START_LIMIT_MS = 10_000;
/** Flag of a listening socket in /proc/net/unix (__SO_ACCEPTCON, include/linux/net.h). */
const ACCEPTING = '00010000';

/**
 * Inside a mount namespace of its own: every mount but the kernel's own file systems becomes read-only, so that the guest
 * cannot write even if it tried; only the socket folder stays writable, and virtiofsd's pid file goes there as well.
 */
const READ_ONLY_WORLD = `
folder=$1; shift
mkdir -p /var/run/virtiofsd
while read -r id parent device root point rest; do
  case $point in /proc|/proc/*|/sys|/sys/*|/dev|/dev/*) continue ;; esac
  mount -o remount,bind,ro "$(printf %b "$(printf %s "$point" | sed 's/\\\\\\([0-7]\\)/\\\\0\\1/g')")" 2>/dev/null
done </proc/self/mountinfo
mount --bind "$folder" "$folder" && mount -o remount,bind,rw "$folder" || exit 1
mount --bind "$folder" /var/run/virtiofsd || exit 1
exec "$@"`;

export interface Share {
  /** Name under which the guest mounts it. */
  readonly tag: 'root' | 'out';
  readonly server: TiedChild;
  readonly socket: string;
}

/** Serves the whole file system, read-only where mount namespaces are allowed; the guest mounts it read-only in any case. */
export async function shareRoot(folder: string, log: (line: string) => void): Promise<Share> {
  const command = serverCommand(folder, 'root', '/', 'always');
  const unshared = await run('unshare', ['--mount', '--propagation', 'private', '/bin/true']).catch(() => undefined);
  if (unshared?.status === 0) {
    const wrapper = ['unshare', '--mount', '--propagation', 'private', '/bin/sh', '-c', READ_ONLY_WORLD, 'sh', folder];
    return started([...wrapper, ...command], folder, 'root');
  }
  log('no mount namespace allowed here: only the guest enforces that the file system of the host is read-only');
  return started(command, folder, 'root');
}

/** Serves one folder for reading and writing. Writes reach the host as they are made (no writeback cache). */
export async function shareOut(folder: string, out: string): Promise<Share> {
  mkdirSync(out, { recursive: true });
  return started(serverCommand(folder, 'out', out, 'auto'), folder, 'out');
}

function serverCommand(folder: string, name: string, source: string, cache: string): string[] {
  const options = `source=${source.replaceAll(',', '\\,')},sandbox=chroot,cache=${cache},no_writeback,log_level=err`;
  return [VIRTIOFSD, '-f', `--socket-path=${join(folder, name)}.sock`, '-o', options];
}

async function started(command: readonly string[], folder: string, tag: Share['tag']): Promise<Share> {
  const socket = join(folder, `${tag}.sock`);
  const server = spawnTied(command, ['ignore', 'ignore', 'pipe']);
  let end: string | undefined;
  void server.ended.then((how) => {
    end = how;
  });
  const limit = Date.now() + START_LIMIT_MS;
  while (!isListening(socket)) {
    if (end !== undefined || Date.now() > limit) {
      server.process.kill('SIGKILL');
      throw new VmError('boot', `virtiofsd does not serve (${end ?? 'no socket'}): ${server.errorText()}`);
    }
    await new Promise((resolve) => setTimeout(resolve, POLL_MS));
  }
  return { tag, server, socket };
}

function isListening(socket: string): boolean {
  return readFileSync('/proc/net/unix', 'utf8')
    .split('\n')
    .some((line) => line.endsWith(` ${socket}`) && line.includes(` ${ACCEPTING} `));
}

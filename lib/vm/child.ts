import { type ChildProcess, type StdioOptions, spawn } from 'node:child_process';
import { VmError } from './errors';

/** A program of the VM whose life is tied to ours. */
export interface TiedChild {
  readonly process: ChildProcess;
  readonly pid: number;
  /** Resolves once it has ended, with words for how. */
  readonly ended: Promise<string>;
  /** The last of what it wrote to standard error. */
  errorText(): string;
}

const ERROR_TEXT_LIMIT = 16 * 1024;

/**
 * Starts a program that the kernel kills when this thread ends in any way, SIGKILL included. The shell in between ends
 * at once when we died before the tie was made. Its own session keeps terminal signals away from it.
 */
export function spawnTied(command: readonly string[], stdio: StdioOptions): TiedChild {
  const check = `[ "$PPID" = ${process.pid} ] || exit 1; exec "$@"`;
  const child = spawn('setpriv', ['--pdeathsig', 'KILL', '/bin/sh', '-c', check, 'sh', ...command], {
    stdio,
    detached: true,
  });
  let text = '';
  child.stderr?.on('data', (chunk: Buffer) => {
    text = (text + chunk.toString()).slice(-ERROR_TEXT_LIMIT);
  });
  const ended = new Promise<string>((resolve) => {
    child.on('error', (error) => resolve(error.message));
    child.on('close', (status, signal) => resolve(signal === null ? `exit status ${status}` : `signal ${signal}`));
  });
  if (child.pid === undefined) throw new VmError('boot', `cannot start setpriv for ${command[0]}`);
  return { process: child, pid: child.pid, ended, errorText: () => text.trim() };
}

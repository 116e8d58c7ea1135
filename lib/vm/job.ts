import { cpioArchive, S_IFREG } from './cpio';
import { GUEST_FOLDER } from './guest-init';

/** What one boot of the VM is to do. */
export interface Job {
  readonly command: string;
  readonly args: readonly string[];
  readonly cwd: string;
  readonly env: Readonly<Record<string, string>>;
  /** Absolute path of the writable output folder; empty for none. */
  readonly out: string;
  readonly hugepages: number;
  readonly release: string;
  readonly moduleTree: string;
  /** Ends each of the two output streams. */
  readonly trailer: string;
}

/** The job as an initramfs of its own, to be put behind the prepared one. */
export function jobArchive(job: Job): Buffer {
  return cpioArchive([{ name: 'job', mode: S_IFREG | 0o600, data: Buffer.from(jobScript(job)) }]);
}

function jobScript(job: Job): string {
  const environment = Object.entries(job.env).map(([name, value]) => `${name}=${value}`);
  const busybox = `${GUEST_FOLDER}/bin/busybox`;
  const words = [busybox, 'setsid', busybox, 'env', '-i', ...environment];
  const args = job.args.map(shellQuoted).join(' ');
  return [
    `JOB_CWD=${shellQuoted(job.cwd)}`,
    `JOB_OUT=${shellQuoted(job.out)}`,
    `JOB_HUGEPAGES=${job.hugepages}`,
    `JOB_RELEASE=${shellQuoted(job.release)}`,
    `JOB_MODULE_TREE=${shellQuoted(job.moduleTree)}`,
    `JOB_TRAILER=${shellQuoted(job.trailer)}`,
    `JOB_PATH=${shellQuoted(job.env.PATH ?? '/bin:/usr/bin')}`,
    `JOB_COMMAND=${shellQuoted(job.command)}`,
    `start_command() { exec ${words.map(shellQuoted).join(' ')} "$program" ${args}; }`,
    '',
  ].join('\n');
}

/** One word of a POSIX shell command line, whatever characters it has. */
export function shellQuoted(word: string): string {
  return `'${word.replaceAll("'", "'\\''")}'`;
}

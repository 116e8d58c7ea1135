import { statSync } from 'node:fs';
import { cpus as hostCpus } from 'node:os';
import { resolve } from 'node:path';
import type { Writable } from 'node:stream';
import { invalidArgument } from '../errors';
import { defaultEnvironment } from './environment';
import { KERNEL_SERIES, type KernelSeries } from './kernel';

export interface VmOptions {
  /** Program to run, looked up on the PATH of `env` inside the VM. */
  readonly command: string;
  readonly args?: readonly string[];
  /** Default: the working directory of this process. */
  readonly cwd?: string;
  /** The whole environment of the command. Default: {@link defaultEnvironment}. */
  readonly env?: Readonly<Record<string, string>>;
  /** Folder of this machine that the command may write to, under the same path; made when missing. */
  readonly out?: string;
  /** Guest RAM in bytes, at least 256 MiB. Half of it at most can be files that the command writes. Default 4 GiB. */
  readonly memory?: number;
  /** Default: 2, or 1 on a machine with one processor. */
  readonly cpus?: number;
  /** Number of 2 MiB pages reserved at boot, mounted at /dev/hugepages. Default 0. */
  readonly hugepages?: number;
  /** Added to the kernel command line. */
  readonly kernelAppend?: string;
  readonly kernelSeries?: KernelSeries;
  /** Bound on boot and command together; the result then is exit code 124. Default one hour. */
  readonly timeoutMs?: number;
  /** Ends the VM at once; the promise rejects. */
  readonly signal?: AbortSignal;
  /** Where the command's output goes, byte for byte. Default: standard output and standard error of this process. */
  readonly stdout?: Writable;
  readonly stderr?: Writable;
  /** Receives the guest kernel's console. Default: kept for error messages only. */
  readonly console?: Writable;
  /** Receives progress lines. */
  readonly log?: (line: string) => void;
  /** `auto` tries hardware virtualisation where the machine claims to have it, and falls back to emulation. */
  readonly accelerator?: 'auto' | 'kvm' | 'tcg';
}

export interface CheckedOptions extends Required<Omit<VmOptions, 'signal' | 'console' | 'out'>> {
  readonly out: string;
  readonly signal: AbortSignal | undefined;
  readonly console: Writable | undefined;
}

const MIB = 1024 * 1024;
const MEMORY_MIN = 256 * MIB;
const MEMORY_DEFAULT = 4096 * MIB;
const TIMEOUT_DEFAULT_MS = 3600 * 1000;
/** setTimeout() takes no longer wait (signed 32 bits). */
const TIMEOUT_MAX_MS = 2 ** 31 - 1;

/** Fills in the defaults. Throws before anything is started. */
export function checkedOptions(options: VmOptions): CheckedOptions {
  const memory = options.memory ?? MEMORY_DEFAULT;
  const cpus = options.cpus ?? Math.min(2, hostCpus().length);
  const hugepages = options.hugepages ?? 0;
  const timeoutMs = options.timeoutMs ?? TIMEOUT_DEFAULT_MS;
  const kernelSeries = options.kernelSeries ?? '6.12';
  const env = options.env ?? defaultEnvironment(process.env);
  const args = options.args ?? [];
  const cwd = resolve(options.cwd ?? process.cwd());
  if (options.command === '') throw invalidArgument('command is empty');
  integer('memory', memory, MEMORY_MIN, Number.MAX_SAFE_INTEGER);
  if (memory % MIB !== 0) throw invalidArgument('memory is not a whole number of MiB');
  integer('cpus', cpus, 1, 255);
  integer('hugepages', hugepages, 0, memory / (2 * MIB));
  integer('timeoutMs', timeoutMs, 1, TIMEOUT_MAX_MS);
  if (!KERNEL_SERIES.includes(kernelSeries))
    throw invalidArgument(`kernelSeries is none of ${KERNEL_SERIES.join(', ')}`);
  for (const [name, value] of Object.entries(env)) {
    if (name === '' || name.includes('=')) throw invalidArgument(`'${name}' is no name of an environment variable`);
    if (value.includes('\0')) throw invalidArgument(`the value of ${name} has a NUL byte`);
  }
  if ([options.command, ...args, cwd].some((word) => word.includes('\0')))
    throw invalidArgument('NUL byte in the command');
  if (!isFolder(cwd)) throw invalidArgument(`cwd '${cwd}' is no folder`);
  return {
    command: options.command,
    args,
    cwd,
    env,
    out: options.out === undefined ? '' : resolve(options.out),
    memory,
    cpus,
    hugepages,
    kernelAppend: options.kernelAppend ?? '',
    kernelSeries,
    timeoutMs,
    signal: options.signal,
    stdout: options.stdout ?? process.stdout,
    stderr: options.stderr ?? process.stderr,
    console: options.console,
    log: options.log ?? (() => {}),
    accelerator: options.accelerator ?? 'auto',
  };
}

function integer(name: string, value: number, min: number, max: number): void {
  if (!Number.isSafeInteger(value) || value < min || value > max) {
    throw invalidArgument(`${name} is ${value}, not a whole number from ${min} to ${max}`);
  }
}

function isFolder(path: string): boolean {
  return statSync(path, { throwIfNoEntry: false })?.isDirectory() ?? false;
}

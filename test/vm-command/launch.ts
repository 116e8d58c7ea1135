import { type ChildProcess, spawn } from 'node:child_process';
import { existsSync, mkdtempSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { PassThrough } from 'node:stream';
import { runInVm, type VmOptions, type VmResult } from '../../lib/vm';

/** A whole `vhost-net vm` process, as a shell would start it. */
export const CLI = [
  process.execPath,
  '-e',
  `require(${JSON.stringify(resolve(__dirname, '../../lib/cli/vm.js'))}).vmCommand().parseAsync(process.argv.slice(1), { from: 'user' })`,
  '--',
];

export interface Ended {
  readonly exitCode: number | null;
  readonly signal: NodeJS.Signals | null;
  readonly stdout: Buffer;
  readonly stderr: string;
}

export interface Started {
  readonly process: ChildProcess;
  readonly ended: Promise<Ended>;
  /** Resolves once standard output or standard error holds the text. */
  saw(text: string): Promise<void>;
}

export function startCli(args: readonly string[], command: readonly string[] = CLI): Started {
  const child = spawn(command[0]!, [...command.slice(1), ...args], {
    stdio: ['ignore', 'pipe', 'pipe'],
    env: process.env,
  });
  const stdout: Buffer[] = [];
  const stderr: Buffer[] = [];
  child.stdout.on('data', (chunk: Buffer) => stdout.push(chunk));
  child.stderr.on('data', (chunk: Buffer) => stderr.push(chunk));
  const text = (): string => Buffer.concat([...stdout, ...stderr]).toString();
  const ended = new Promise<Ended>((done, failed) => {
    child.on('error', failed);
    child.on('close', (exitCode, signal) => {
      done({ exitCode, signal, stdout: Buffer.concat(stdout), stderr: Buffer.concat(stderr).toString() });
    });
  });
  const saw = (wanted: string): Promise<void> =>
    new Promise((done, failed) => {
      const look = (): void => {
        if (text().includes(wanted)) done();
      };
      child.stdout.on('data', look);
      child.stderr.on('data', look);
      child.on('close', () => failed(new Error(`ended without '${wanted}': ${text()}`)));
      look();
    });
  return { process: child, ended, saw };
}

/** Runs in a VM through the programming interface and collects both streams. */
export async function capture(
  options: Omit<VmOptions, 'stdout' | 'stderr'>,
): Promise<VmResult & { stdout: Buffer; stderr: string }> {
  const stdout = new PassThrough();
  const stderr = new PassThrough();
  const texts = Promise.all([collect(stdout), collect(stderr)]);
  try {
    const result = await runInVm({ timeoutMs: 60_000, ...options, stdout, stderr });
    stdout.end();
    stderr.end();
    const [out, err] = await texts;
    return { ...result, stdout: out, stderr: err.toString() };
  } finally {
    stdout.end();
    stderr.end();
  }
}

async function collect(stream: PassThrough): Promise<Buffer> {
  const chunks: Buffer[] = [];
  for await (const chunk of stream as AsyncIterable<Buffer>) chunks.push(chunk);
  return Buffer.concat(chunks);
}

export function scratchFolder(): string {
  return mkdtempSync(join(tmpdir(), 'vm command test '));
}

export function isAlive(pid: number): boolean {
  return existsSync(`/proc/${pid}`);
}

/** The pids that `--verbose` names. */
export function pidsIn(text: string): number[] {
  const line = /process ids: ([\d ]+)/.exec(text);
  if (line === null) throw new Error(`no process ids in: ${text}`);
  return line[1]!.trim().split(' ').map(Number);
}

export async function goneWithin(pids: readonly number[], limitMs: number): Promise<number[]> {
  const limit = Date.now() + limitMs;
  while (pids.some(isAlive) && Date.now() < limit) await new Promise((done) => setTimeout(done, 50));
  return pids.filter(isAlive);
}

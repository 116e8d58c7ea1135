import { execFile } from 'node:child_process';
import { accessSync, constants, statSync } from 'node:fs';
import { delimiter, join } from 'node:path';

export interface ProgramResult {
  /** Exit status; 128 + number for a death by signal is not mapped: such a death gives -1. */
  readonly status: number;
  readonly stdout: Buffer;
  readonly stderr: string;
}

const OUTPUT_LIMIT = 256 * 1024 * 1024;
const SYSTEM_FOLDERS = ['/usr/sbin', '/usr/bin', '/sbin', '/bin'];

/** Runs a program to its end. Resolves whatever its exit status; rejects only when it cannot be started. */
export function run(
  program: string,
  args: readonly string[],
  options: { cwd?: string; input?: Uint8Array; env?: NodeJS.ProcessEnv } = {},
): Promise<ProgramResult> {
  const { input, ...rest } = options;
  return new Promise((resolve, reject) => {
    const child = execFile(
      program,
      args,
      { ...rest, encoding: 'buffer', maxBuffer: OUTPUT_LIMIT },
      (error, stdout, stderr) => {
        if (error !== null && typeof error.code === 'string') {
          reject(error);
          return;
        }
        const status = error === null ? 0 : typeof error.code === 'number' ? error.code : -1;
        resolve({ status, stdout, stderr: stderr.toString() });
      },
    );
    child.stdin?.on('error', () => {});
    child.stdin?.end(input);
  });
}

/** Absolute path of a program on PATH or in the system folders; undefined when there is none. */
export function which(program: string): string | undefined {
  const folders = [...(process.env.PATH ?? '').split(delimiter).filter((folder) => folder !== ''), ...SYSTEM_FOLDERS];
  return folders.map((folder) => join(folder, program)).find(isExecutable);
}

export function isExecutable(path: string): boolean {
  try {
    accessSync(path, constants.X_OK);
    return statSync(path).isFile();
  } catch {
    return false;
  }
}

/** Runs one tool of the host to its end. */
import { execFile } from 'node:child_process';
import { VhostError } from '../errors';

export interface RunToolOptions {
  /** Milliseconds until it is killed. Default 30,000. */
  timeout?: number;
  /** Written to its standard input. */
  input?: string;
}

/** What the tool wrote to standard output; fails with what it wrote to standard error. */
export function runTool(
  file: string,
  args: readonly string[],
  { timeout = 30_000, input }: RunToolOptions = {},
): Promise<string> {
  return new Promise((resolve, reject) => {
    const child = execFile(
      file,
      [...args],
      { timeout, killSignal: 'SIGKILL', maxBuffer: 16 << 20, encoding: 'utf8' },
      (error, stdout, stderr) => {
        if (error === null) {
          resolve(stdout);
          return;
        }
        const line = [file, ...args].join(' ');
        if (error.code === 'ENOENT') {
          reject(
            new VhostError('ENOENT', `${file} is not installed`, {
              errno: -2,
              syscall: 'spawn',
              path: file,
              hint: toolHint(file),
            }),
          );
          return;
        }
        const said = stderr.trim();
        reject(
          new VhostError('VHOST_ERR_UNSUPPORTED', `"${line}" failed${said === '' ? '' : `: ${said}`}`, {
            cause: error,
          }),
        );
      },
    );
    // A tool that ends before it has read everything says why by its exit status.
    child.stdin?.on('error', () => undefined);
    child.stdin?.end(input);
  });
}

function toolHint(file: string): string {
  const packages: Readonly<Record<string, string>> = {
    ip: 'iproute2',
    bridge: 'iproute2',
    tc: 'iproute2',
    nsenter: 'util-linux',
  };
  return `install the package ${packages[file] ?? file}`;
}

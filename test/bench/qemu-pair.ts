/**
 * Two QEMU processes, and how long a machine that stands still takes from one to the other. Its memory is a file in shared memory, as ours is,
 * so that both allocate the same kind of page.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { rmSync } from 'node:fs';
import { connect, type Socket } from 'node:net';
import { join } from 'node:path';
import { createInterface, type Interface } from 'node:readline';
import { setTimeout as sleep } from 'node:timers/promises';

const MEBIBYTE = 2 ** 20;
const START_LIMIT_MS = 60_000;
/** Bytes a second; QEMU's own default is 128 MiB. */
const UNLIMITED = 2 ** 40;
const POLL_MS = 5;

interface Reply {
  return?: unknown;
  error?: { desc: string };
}

class Machine {
  readonly #child: ChildProcess;
  readonly #socket: Socket;
  readonly #lines: AsyncIterator<string>;
  readonly #reader: Interface;

  private constructor(child: ChildProcess, socket: Socket) {
    this.#child = child;
    this.#socket = socket;
    this.#reader = createInterface(socket);
    this.#lines = this.#reader[Symbol.asyncIterator]();
  }

  static async start(control: string, bytes: number, backing: string, more: readonly string[] = []): Promise<Machine> {
    rmSync(control, { force: true });
    const argv = ['-nodefaults', '-display', 'none', '-S', '-m', `${bytes / MEBIBYTE}M`];
    argv.push('-machine', 'pc,accel=tcg,memory-backend=ram', '-object', `${backing},id=ram,size=${bytes},share=on`);
    argv.push('-qmp', `unix:${control},server=on,wait=off`, ...more);
    const command = ['--pdeathsig', 'KILL', 'qemu-system-x86_64', ...argv];
    const child = spawn('setpriv', command, { stdio: ['ignore', 'ignore', 'inherit'] });
    const machine = new Machine(child, await connected(control, child));
    await machine.#lines.next();
    await machine.ask('qmp_capabilities');
    return machine;
  }

  async ask(command: string, args: object = {}): Promise<unknown> {
    this.#socket.write(`${JSON.stringify({ execute: command, arguments: args })}\n`);
    for (;;) {
      const { value, done } = await this.#lines.next();
      if (done === true) throw new Error(`QEMU ended at ${command}`);
      const reply = JSON.parse(value) as Reply;
      if (reply.error !== undefined) throw new Error(`QEMU refuses ${command}: ${reply.error.desc}`);
      if ('return' in reply) return reply.return;
    }
  }

  async end(): Promise<void> {
    this.#reader.close();
    this.#socket.destroy();
    if (this.#child.exitCode !== null || this.#child.signalCode !== null) return;
    const gone = once(this.#child, 'exit');
    this.#child.kill('SIGKILL');
    await gone;
  }
}

async function connected(path: string, child: ChildProcess): Promise<Socket> {
  for (const limit = Date.now() + START_LIMIT_MS; ; await sleep(20)) {
    const socket = connect(path);
    const failed = await new Promise<boolean>((resolve) => {
      socket.once('connect', () => resolve(false)).once('error', () => resolve(true));
    });
    if (!failed) return socket;
    if (child.exitCode !== null) throw new Error(`QEMU ended with ${child.exitCode}`);
    if (Date.now() > limit) throw new Error('QEMU does not start');
  }
}

/** Seconds by the clock. `file` holds the source's memory; null for memory that nobody ever touched. */
export async function qemuPair(folder: string, bytes: number, file: string | null): Promise<number> {
  const address = `unix:${join(folder, 'qemu')}`;
  rmSync(join(folder, 'qemu'), { force: true });
  const untouched = 'memory-backend-memfd';
  const destination = await Machine.start(join(folder, 'qmp-b'), bytes, untouched, ['-incoming', address]);
  try {
    const backing = file === null ? untouched : `memory-backend-file,mem-path=${file}`;
    const source = await Machine.start(join(folder, 'qmp-a'), bytes, backing);
    try {
      await source.ask('migrate-set-parameters', { 'max-bandwidth': UNLIMITED });
      const began = performance.now();
      await source.ask('migrate', { uri: address });
      for (;;) {
        const { status } = (await source.ask('query-migrate')) as { status?: string };
        if (status === 'completed') return (performance.now() - began) / 1000;
        if (status === 'failed' || status === 'cancelled') throw new Error(`QEMU's migration has ${status}`);
        await sleep(POLL_MS);
      }
    } finally {
      await source.end();
    }
  } finally {
    await destination.end();
  }
}

/** A QEMU process and its QMP. */
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { rmSync } from 'node:fs';
import { connect, type Socket } from 'node:net';
import { createInterface, type Interface } from 'node:readline';
import { setTimeout as sleep } from 'node:timers/promises';

const START_LIMIT_MS = 60_000;
const MIGRATION_LIMIT_MS = 120_000;
/** Bytes a second; QEMU's own default is 128 MiB. */
export const UNLIMITED = 2 ** 40;
const POLL_MS = 5;

interface Reply {
  return?: unknown;
  error?: { desc: string };
}

/** As QEMU itself says. */
export interface QemuMigration {
  readonly downtimeMs: number;
  readonly totalMs: number;
}

export class QemuMachine {
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

  /** `control`: path of the socket for QMP. `netns`: name of the network namespace it runs in. */
  static async start(control: string, argv: readonly string[], netns: string | null = null): Promise<QemuMachine> {
    rmSync(control, { force: true });
    const inside = netns === null ? [] : ['ip', 'netns', 'exec', netns];
    const qemu = ['qemu-system-x86_64', ...argv, '-qmp', `unix:${control},server=on,wait=off`];
    const child = spawn('setpriv', ['--pdeathsig', 'KILL', ...inside, ...qemu], {
      stdio: ['ignore', 'ignore', 'inherit'],
    });
    const machine = new QemuMachine(child, await connected(control, child));
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

  /** Waits for the end of a migration that was begun by `migrate`. */
  async migrated(): Promise<QemuMigration> {
    for (const limit = Date.now() + MIGRATION_LIMIT_MS; Date.now() < limit; await sleep(POLL_MS)) {
      const found = (await this.ask('query-migrate')) as { status?: string; downtime?: number; 'total-time'?: number };
      const { status, downtime = Number.NaN, 'total-time': total = Number.NaN } = found;
      if (status === 'completed') return { downtimeMs: downtime, totalMs: total };
      if (status === 'failed' || status === 'cancelled') throw new Error(`QEMU's migration has ${status}`);
    }
    throw new Error("QEMU's migration does not end");
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

/** Debian's dpdk-testpmd over virtio_user on /dev/vhost-net, driven through its command line. */
import type { ChildProcess } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { Contender, type Direction, type Placement, type Sample } from './contender';
import type { FloodOptions } from './flooder';
import { nowMicros } from './proc';

export const TESTPMD = 'dpdk-testpmd';
const NETDEV = 'bench-pmd';
const MEBIBYTES = 96;
const STATISTICS_END = /#{60,}\s*$/;

export function testpmd(direction: Direction, options: FloodOptions, placement: Placement): Contender {
  return new Testpmd(direction, options, placement);
}

/** Two logical cores are the least it takes; the first only reads commands, so both lie on one processor. */
function command(direction: Direction, options: FloodOptions, placement: Placement): string[] {
  const cpu = placement.driverCpu;
  const ring = options.ring;
  const vdev = `virtio_user0,path=/dev/vhost-net,queues=1,queue_size=${ring},iface=${NETDEV}`;
  const memory = hugePagesFree() * 2 >= MEBIBYTES ? [] : ['--no-huge'];
  return [
    // Into a pipe it would keep its answers until 4 KiB are full.
    ...['stdbuf', '--output=L', 'dpdk-testpmd'],
    ...['--lcores', `0@${cpu},1@${cpu}`, '--in-memory', ...memory, '-m', String(MEBIBYTES)],
    ...['--no-pci', '--no-telemetry', `--vdev=${vdev}`],
    '--',
    ...['-i', `--forward-mode=${direction}only`, `--burst=${options.batch}`, `--txpkts=${options.frame}`],
    ...[`--txd=${ring}`, `--rxd=${ring}`, '--total-num-mbufs=4096', '--no-lsc-interrupt'],
  ];
}

function hugePagesFree(): number {
  return Number(/^HugePages_Free:\s+(\d+)/m.exec(readFileSync('/proc/meminfo', 'utf8'))?.[1] ?? 0);
}

class Testpmd extends Contender {
  readonly name = TESTPMD;
  readonly #counter: RegExp;
  #said = '';
  #heard: (() => void) | null = null;

  constructor(direction: Direction, options: FloodOptions, placement: Placement) {
    super(NETDEV, command(direction, options, placement), placement);
    this.#counter = direction === 'tx' ? /TX-packets: (\d+)/ : /RX-packets: (\d+)/;
  }

  override async begin(): Promise<void> {
    this.#type('start');
    await this.#until(() => /packets\/burst=/.test(this.#said));
  }

  /** The moment is the middle between command and answer. */
  async sample(): Promise<Sample> {
    this.#said = '';
    const asked = nowMicros();
    this.#type('show port stats 0');
    await this.#until(
      () => STATISTICS_END.test(this.#said.replace(/testpmd> ?$/, '')) && this.#counter.test(this.#said),
    );
    const answered = nowMicros();
    const frames = Number(this.#counter.exec(this.#said)![1]);
    return { micros: (asked + answered) / 2, frames, looks: 0, idle: 0, kicks: 0 };
  }

  protected listen(child: ChildProcess): void {
    child.stdout!.setEncoding('utf8').on('data', (text: string) => {
      this.#said += text;
      this.#heard?.();
    });
  }

  #type(line: string): void {
    this.child.stdin!.write(`${line}\n`);
  }

  async #until(holds: () => boolean): Promise<void> {
    while (!holds()) {
      await this.alive(
        new Promise<void>((resolve) => {
          this.#heard = resolve;
        }),
      );
    }
  }
}

/** The kernel's packet generator onto a tap: the load of the receive benchmarks, the same for all. */
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, writeFileSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';

const CONTROL = '/proc/net/pktgen/pgctrl';

export function pktgenAvailable(): boolean {
  return existsSync(CONTROL);
}

export class Pktgen {
  readonly #cpu: number;
  readonly #frame: number;
  #running: ChildProcess | null = null;

  /** `frame` in bytes, without a checksum at its end. */
  constructor(cpu: number, frame: number) {
    this.#cpu = cpu;
    this.#frame = frame;
  }

  /** As fast as it can until `stop`: the write that starts it returns when it is stopped. */
  start(netdev: string): void {
    const thread = `/proc/net/pktgen/kpktgend_${this.#cpu}`;
    writeFileSync(thread, 'rem_device_all');
    writeFileSync(thread, `add_device ${netdev}`);
    const settings = ['count 0', 'clone_skb 0', 'delay 0', `pkt_size ${this.#frame}`];
    const addresses = ['dst_mac 02:00:00:00:00:00', 'dst 198.18.0.2', 'src_min 198.18.0.1', 'src_max 198.18.0.1'];
    const ports = ['udp_src_min 9', 'udp_src_max 9', 'udp_dst_min 9', 'udp_dst_max 9'];
    for (const setting of [...settings, ...addresses, ...ports]) writeFileSync(`/proc/net/pktgen/${netdev}`, setting);
    const argv = ['--pdeathsig', 'INT', 'sh', '-c', `echo start > ${CONTROL}`];
    this.#running = spawn('setpriv', argv, { stdio: 'ignore' });
  }

  async stop(): Promise<void> {
    const running = this.#running;
    if (running === null) return;
    this.#running = null;
    while (running.exitCode === null && running.signalCode === null) {
      writeFileSync(CONTROL, 'stop');
      await Promise.race([once(running, 'exit'), sleep(500)]);
    }
  }
}

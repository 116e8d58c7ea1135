/** The kernel's packet generator onto a tap: the load of the receive benchmark, the same for all. */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { readFileSync, writeFileSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';

const CONTROL = '/proc/net/pktgen/pgctrl';

export class Pktgen {
  readonly #thread: string;
  readonly #frame: number;

  /** `frame` in bytes, without a checksum at its end. */
  constructor(cpu: number, frame: number) {
    this.#thread = `/proc/net/pktgen/kpktgend_${cpu}`;
    this.#frame = frame;
  }

  /** Sends `frames` frames, all of one UDP flow, as fast as it can. */
  async send(netdev: string, frames: number): Promise<void> {
    tell(this.#thread, 'rem_device_all');
    // The thread removes them when it next runs, and would remove a device added before that as well.
    while (/bench-/.test(readFileSync(this.#thread, 'utf8'))) await sleep(20);
    tell(this.#thread, `add_device ${netdev}`);
    const settings = [`count ${frames}`, 'clone_skb 0', 'delay 0', `pkt_size ${this.#frame}`];
    const addresses = ['dst_mac 02:00:00:00:00:00', 'dst 198.18.0.2', 'src_min 198.18.0.1', 'src_max 198.18.0.1'];
    const ports = ['udp_src_min 9', 'udp_src_max 9', 'udp_dst_min 9', 'udp_dst_max 9'];
    for (const setting of [...settings, ...addresses, ...ports]) tell(`/proc/net/pktgen/${netdev}`, setting);
    // This write returns when all is sent, and not before: not on a thread of the pool that others wait for.
    const start = spawn('setpriv', ['--pdeathsig', 'INT', 'sh', '-c', `echo start > ${CONTROL}`], { stdio: 'inherit' });
    const [code] = (await once(start, 'exit')) as [number | null];
    if (code !== 0) throw new Error('pktgen did not start');
  }
}

/** One write per command, with its newline: what pktgen parses. */
function tell(file: string, command: string): void {
  try {
    writeFileSync(file, `${command}\n`);
  } catch (error) {
    throw new Error(`pktgen refuses "${command}" in ${file}`, { cause: error });
  }
}

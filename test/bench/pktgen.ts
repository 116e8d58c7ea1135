/** The kernel's packet generator onto a tap: the load of the receive benchmark, the same for all. */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { readFileSync, writeFileSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { netdevCounters } from './proc';

const CONTROL = '/proc/net/pktgen/pgctrl';
const LOOK_MS = 5;
const STARTS = 5;

export class Pktgen {
  readonly #thread: string;
  readonly #frame: number;
  #netdev = '';

  /** `frame` in bytes, without a checksum at its end. */
  constructor(cpu: number, frame: number) {
    this.#thread = `/proc/net/pktgen/kpktgend_${cpu}`;
    this.#frame = frame;
  }

  /** Where `fill` sends: frames of one UDP flow, as fast as it can. */
  async aim(netdev: string): Promise<void> {
    this.#netdev = netdev;
    tell(this.#thread, 'rem_device_all');
    // The thread removes them when it next runs, and would remove a device added before that as well.
    while (/bench-/.test(readFileSync(this.#thread, 'utf8'))) await sleep(20);
    tell(this.#thread, `add_device ${netdev}`);
    // No count: having sent its last frame the generator would spin until that was received, on a processor that others need.
    const settings = ['count 0', 'clone_skb 0', 'delay 0', `pkt_size ${this.#frame}`];
    const addresses = ['dst_mac 02:00:00:00:00:00', 'dst 198.18.0.2', 'src_min 198.18.0.1', 'src_max 198.18.0.1'];
    const ports = ['udp_src_min 9', 'udp_src_max 9', 'udp_dst_min 9', 'udp_dst_max 9'];
    for (const setting of [...settings, ...addresses, ...ports]) tell(`/proc/net/pktgen/${netdev}`, setting);
  }

  /** Sends until the first frames are dropped, so that the queue is full. */
  async fill(): Promise<void> {
    const before = netdevCounters(this.#netdev).txDropped;
    // A late generator thread may still find the last stop when it starts, and end at once: then it is started again.
    for (let starts = 0; netdevCounters(this.#netdev).txDropped === before; starts++) {
      if (starts === STARTS) throw new Error(`pktgen did not fill the queue of ${this.#netdev}`);
      await this.#sendUntilDropped(before);
    }
  }

  async #sendUntilDropped(before: number): Promise<void> {
    // The write that starts it returns when it is stopped.
    const start = spawn('setpriv', ['--pdeathsig', 'INT', 'sh', '-c', `echo start > ${CONTROL}`], { stdio: 'inherit' });
    const ended = once(start, 'exit');
    while (start.exitCode === null && netdevCounters(this.#netdev).txDropped === before) await sleep(LOOK_MS);
    if (start.exitCode === null) tell(CONTROL, 'stop');
    await ended;
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

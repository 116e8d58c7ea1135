/** A network interface by name and namespace: what needs a socket there, and what the kernel counts. */
import {
  IFF_UP,
  SIOCGIFFLAGS,
  SIOCGIFINDEX,
  SIOCGIFMTU,
  SIOCGIFTXQLEN,
  SIOCSIFFLAGS,
  SIOCSIFMTU,
  SIOCSIFTXQLEN,
} from '../constants/if-tun';
import { systemError, VhostError } from '../errors';
import { native } from '../native';
import { kernelCall, type Observed } from '../trace/kernel-call';
import { runTool } from './run-tool';

const NAMES: Readonly<Record<number, string>> = {
  [SIOCGIFFLAGS]: 'SIOCGIFFLAGS',
  [SIOCSIFFLAGS]: 'SIOCSIFFLAGS',
  [SIOCGIFMTU]: 'SIOCGIFMTU',
  [SIOCSIFMTU]: 'SIOCSIFMTU',
  [SIOCGIFINDEX]: 'SIOCGIFINDEX',
  [SIOCGIFTXQLEN]: 'SIOCGIFTXQLEN',
  [SIOCSIFTXQLEN]: 'SIOCSIFTXQLEN',
};

/** Counters of one direction. For a tap, `tx` is towards the guest and `rx` from it. */
export interface DirectionStats {
  bytes: number;
  packets: number;
  errors: number;
  dropped: number;
}

export interface InterfaceStats {
  rx: DirectionStats;
  tx: DirectionStats;
}

export class NetDevice {
  readonly name: string;
  /** Path of the network namespace, null for this process's own. */
  readonly netns: string | null;
  readonly #observed: Observed;

  constructor(name: string, netns: string | null, observed: Observed = {}) {
    this.name = name;
    this.netns = netns;
    this.#observed = observed;
  }

  async #ioctl(what: number, value: number): Promise<number> {
    const name = NAMES[what] ?? String(what);
    const result = await kernelCall<number>(this.#observed, name, -1, { interface: this.name, value }, 0, () =>
      native().netdevIoctl(this.netns, this.name, what, value),
    );
    if (result < 0) throw systemError(result, name, this.name);
    return result;
  }

  index(): Promise<number> {
    return this.#ioctl(SIOCGIFINDEX, 0);
  }

  async isUp(): Promise<boolean> {
    return ((await this.#ioctl(SIOCGIFFLAGS, 0)) & IFF_UP) !== 0;
  }

  async up(): Promise<void> {
    await this.#ioctl(SIOCSIFFLAGS, (await this.#ioctl(SIOCGIFFLAGS, 0)) | IFF_UP);
  }

  /** Frames that are queued stay queued. */
  async down(): Promise<void> {
    await this.#ioctl(SIOCSIFFLAGS, (await this.#ioctl(SIOCGIFFLAGS, 0)) & ~IFF_UP);
  }

  /** Frames a tap queue holds; default 1,000. */
  txQueueLen(): Promise<number> {
    return this.#ioctl(SIOCGIFTXQLEN, 0);
  }

  /** Takes effect at once. Shrinking below what is queued frees frames that no counter counts. */
  async setTxQueueLen(frames: number): Promise<void> {
    await this.#ioctl(SIOCSIFTXQLEN, frames);
  }

  mtu(): Promise<number> {
    return this.#ioctl(SIOCGIFMTU, 0);
  }

  async setMtu(bytes: number): Promise<void> {
    await this.#ioctl(SIOCSIFMTU, bytes);
  }

  /** The kernel's counters, read by iproute2. */
  async stats(): Promise<InterfaceStats> {
    const ip = ['-s', '-j', 'link', 'show', 'dev', this.name];
    const text =
      this.netns === null ? await runTool('ip', ip) : await runTool('nsenter', [`--net=${this.netns}`, 'ip', ...ip]);
    const [link] = JSON.parse(text) as { stats64?: InterfaceStats }[];
    if (link?.stats64 === undefined)
      throw new VhostError('VHOST_ERR_UNSUPPORTED', `ip gave no counters of ${this.name}`);
    const side = ({ bytes, packets, errors, dropped }: DirectionStats): DirectionStats => ({
      bytes,
      packets,
      errors,
      dropped,
    });
    return { rx: side(link.stats64.rx), tx: side(link.stats64.tx) };
  }
}

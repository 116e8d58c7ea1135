/** A network namespace of our own: what happens to interfaces in it happens to nobody else. Made and changed by iproute2. */
import { VhostError } from '../errors';
import { runTool } from './run-tool';

/** Where iproute2 keeps named namespaces. */
const NETNS_FOLDER = '/run/netns';
let made = 0;

export class Netns {
  readonly name: string;
  /** For whatever takes a namespace by path, such as Tap.open. */
  readonly path: string;
  #deleted = false;

  private constructor(name: string) {
    this.name = name;
    this.path = `${NETNS_FOLDER}/${name}`;
  }

  /** A name that no other namespace of this process has, and none of another process. */
  static uniqueName(prefix = 'vhost-net'): string {
    return `${prefix}-${process.pid}-${Date.now().toString(36)}-${++made}`;
  }

  /** Makes the namespace, its loopback up, IPv6 off so that no interface sends frames of its own accord. */
  static async create(name: string = Netns.uniqueName()): Promise<Netns> {
    await runTool('ip', ['netns', 'add', name]);
    const netns = new Netns(name);
    try {
      await netns.disableIpv6();
      await netns.ipBatch(['link set dev lo up']);
    } catch (error) {
      await netns.delete();
      throw error;
    }
    return netns;
  }

  /** `ip` within the namespace: what it wrote. */
  ip(...args: string[]): Promise<string> {
    this.#throwIfDeleted();
    return runTool('ip', ['-n', this.name, ...args]);
  }

  /** Several `ip` commands within the namespace, by one process; it stops at the first that fails. */
  async ipBatch(commands: readonly string[]): Promise<void> {
    this.#throwIfDeleted();
    await runTool('ip', ['-n', this.name, '-batch', '-'], { input: `${commands.join('\n')}\n` });
  }

  /** Any command within the namespace: what it wrote. */
  exec(command: string, args: readonly string[] = []): Promise<string> {
    this.#throwIfDeleted();
    return runTool('ip', ['netns', 'exec', this.name, command, ...args]);
  }

  /** For every interface there is and will be. */
  async disableIpv6(): Promise<void> {
    const script =
      'for f in all default; do f=/proc/sys/net/ipv6/conf/$f/disable_ipv6; if [ -e $f ]; then echo 1 > $f; fi; done';
    await this.exec('sh', ['-c', script]);
  }

  /** A bridge without spanning tree or snooping, which forwards from the first frame on, and its first ports. */
  async addBridge(name: string, ports: readonly string[] = []): Promise<void> {
    await this.ipBatch([
      `link add name ${name} up type bridge stp_state 0 forward_delay 0 mcast_snooping 0`,
      ...ports.map((port) => `link set dev ${port} master ${name}`),
    ]);
  }

  /** A cable with two ends, both up. */
  async addVeth(a: string, b: string): Promise<void> {
    await this.ipBatch([`link add name ${a} type veth peer name ${b}`, `link set dev ${a} up`, `link set dev ${b} up`]);
  }

  /** Makes `port` a port of `bridge`. */
  async attach(bridge: string, port: string): Promise<void> {
    await this.ip('link', 'set', 'dev', port, 'master', bridge);
  }

  /** Interfaces in it go too, unless a descriptor holds them. Idempotent. */
  async delete(): Promise<void> {
    if (this.#deleted) return;
    this.#deleted = true;
    await runTool('ip', ['netns', 'delete', this.name]);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.delete();
  }

  #throwIfDeleted(): void {
    if (this.#deleted) throw new VhostError('VHOST_ERR_CLOSED', `network namespace ${this.name} is deleted`);
  }
}

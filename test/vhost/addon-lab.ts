/**
 * A receiving vhost-net device made of nothing but the addon's functions: for tests of who may let go of what, and when. The device
 * works through one mapping of guest memory, the test looks through another.
 */
import { execFileSync } from 'node:child_process';
import { IFF_NO_PI, IFF_TAP, IFF_VNET_HDR } from '../../lib/constants/if-tun';
import type { FdHandle, MappingHandle, VhostHandle } from '../../lib/native';
import { native } from '../../lib/native';

export const RING_SIZE = 64;
export const MEMORY = 0x100000;
export const [DESC, AVAIL, USED, BUFFERS] = [0, 0x1000, 0x2000, 0x10000];
const BUFFER_SIZE = 2048;
const VIRTQ_DESC_F_WRITE = 2;
const VERSION_1 = 1n << 32n;
const FRAME = 60;
const HEADER = 12;

export function ok<T>(result: T | number): T {
  if (typeof result === 'number' && result < 0) throw new Error(`errno ${result}`);
  return result as T;
}

/** A bridge in a namespace of its own. */
export class AddonNetwork {
  readonly name = `vhn-lab-${process.pid}-${Math.trunc(native().monotonicMicros())}`;
  readonly path = `/run/netns/${this.name}`;
  peer!: FdHandle;

  static async create(): Promise<AddonNetwork> {
    const network = new AddonNetwork();
    const ip = (...args: string[]) => execFileSync('ip', args);
    ip('netns', 'add', network.name);
    ip('netns', 'exec', network.name, 'sh', '-c', 'echo 1 > /proc/sys/net/ipv6/conf/default/disable_ipv6');
    ip(
      '-n',
      network.name,
      'link',
      'add',
      'br0',
      'type',
      'bridge',
      'forward_delay',
      '0',
      'stp_state',
      '0',
      'mcast_snooping',
      '0',
    );
    ip('-n', network.name, 'link', 'set', 'br0', 'up');
    network.peer = await network.tap('peer', IFF_TAP | IFF_NO_PI);
    return network;
  }

  async tap(name: string, flags: number): Promise<FdHandle> {
    const { fd } = ok(await native().tapOpen('/dev/net/tun', this.path, name, flags));
    execFileSync('ip', ['-n', this.name, 'link', 'set', 'dev', name, 'master', 'br0']);
    return fd;
  }

  interfaces(): string {
    return execFileSync('ip', ['-n', this.name, '-br', 'link'], { encoding: 'utf8' });
  }

  /** Sends broadcast frames that carry a number each. */
  send(count: number, first = 0): void {
    const arena = new Uint8Array(count * FRAME);
    for (let i = 0; i < count; i++) {
      arena.set([0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2, 0, 0, 0, 0, 1, 0x88, 0xb5], i * FRAME);
      new DataView(arena.buffer).setUint32(i * FRAME + 14, first + i);
    }
    ok(native().framesWrite(this.peer, arena, FRAME, count, new Int32Array(count).fill(FRAME)));
  }

  async remove(): Promise<void> {
    await native().fdCloseAsync(this.peer);
    execFileSync('ip', ['netns', 'del', this.name]);
  }
}

/** Guest memory with a receive ring in it, seen through a mapping that no device knows. */
export class AddonGuest {
  readonly fd = ok(native().memfdCreate('addon-lab', MEMORY, 0));
  readonly watch = ok(native().mappingCreate(this.fd, 0, MEMORY, 0, 3));
  readonly #bytes = new DataView(ok(native().mappingBuffer(this.watch)));
  readonly #u16 = new Uint16Array(this.#bytes.buffer);

  /** Another mapping of the same memory. */
  map(): MappingHandle {
    return ok(native().mappingCreate(this.fd, 0, MEMORY, 0, 3));
  }

  get availIdx(): number {
    return Atomics.load(this.#u16, (AVAIL + 2) / 2);
  }

  get usedIdx(): number {
    return Atomics.load(this.#u16, (USED + 2) / 2);
  }

  /** Makes `count` more buffers available; buffer i lies at page i of the buffer area's half pages. */
  post(count: number): void {
    let idx = this.availIdx;
    for (let i = 0; i < count; i++, idx++) {
      const id = idx % RING_SIZE;
      this.#bytes.setBigUint64(DESC + 16 * id, BigInt(BUFFERS + id * BUFFER_SIZE), true);
      this.#bytes.setUint32(DESC + 16 * id + 8, BUFFER_SIZE, true);
      this.#bytes.setUint16(DESC + 16 * id + 12, VIRTQ_DESC_F_WRITE, true);
      this.#u16[(AVAIL + 4) / 2 + id] = id;
    }
    Atomics.store(this.#u16, (AVAIL + 2) / 2, idx & 0xffff);
  }

  /** The number inside the frame that was received as used entry `index`. */
  frame(index: number): number {
    const id = this.#bytes.getUint32(USED + 4 + 8 * (index % RING_SIZE), true);
    return this.#bytes.getUint32(BUFFERS + id * BUFFER_SIZE + HEADER + 14);
  }

  async received(count: number): Promise<void> {
    const end = Date.now() + 5000;
    while (this.usedIdx < count) {
      if (Date.now() > end) throw new Error(`received ${this.usedIdx} of ${count}`);
      await new Promise((resolve) => setTimeout(resolve, 1));
    }
  }

  close(): void {
    native().mappingClose(this.watch);
    native().fdClose(this.fd);
  }
}

/** An attached device on that guest: ring 0 only. */
export class AddonDevice {
  vhost!: VhostHandle;
  tap!: FdHandle;
  readonly kick = ok(native().eventFdCreate(0, 0));
  readonly call = ok(native().eventFdCreate(0, 0));
  readonly error = ok(native().eventFdCreate(0, 0));

  static async attach(network: AddonNetwork, mapping: MappingHandle, tapName = 'vdev'): Promise<AddonDevice> {
    const device = new AddonDevice();
    const n = native();
    device.tap = await network.tap(tapName, IFF_TAP | IFF_NO_PI | IFF_VNET_HDR);
    ok(await n.tunSetVnetHdrSz(device.tap, HEADER));
    device.vhost = ok(await n.vhostOpen('/dev/vhost-net'));
    ok(await n.vhostSetOwner(device.vhost));
    ok(await n.vhostSetFeatures(device.vhost, VERSION_1));
    await device.setMemory(mapping);
    ok(await n.vhostSetVringNum(device.vhost, 0, RING_SIZE));
    ok(await n.vhostSetVringBase(device.vhost, 0, 0));
    await device.setAddr(mapping);
    ok(await n.vhostSetVringErr(device.vhost, 0, n.fdNumber(device.error)));
    ok(await n.vhostSetVringCall(device.vhost, 0, n.fdNumber(device.call)));
    ok(await n.vhostSetVringKick(device.vhost, 0, n.fdNumber(device.kick)));
    ok(await n.vhostNetSetBackend(device.vhost, 0, n.fdNumber(device.tap)));
    return device;
  }

  async setMemory(mapping: MappingHandle): Promise<void> {
    ok(await native().vhostSetMemTable(this.vhost, [0, MEMORY, native().mappingAddress(mapping)], [mapping], 0));
  }

  async setAddr(mapping: MappingHandle, flags = 0): Promise<void> {
    const at = native().mappingAddress(mapping);
    ok(await native().vhostSetVringAddr(this.vhost, 0, flags, at + DESC, at + USED, at + AVAIL, USED));
  }

  /** How often the kernel reported that it could not get at ring or memory. */
  errors(): number {
    return Math.max(0, native().eventFdDrain(this.error));
  }

  /** Idempotent. */
  async close(): Promise<void> {
    ok(await native().vhostClose(this.vhost));
    await native().fdCloseAsync(this.tap);
    for (const fd of [this.kick, this.call, this.error]) native().fdClose(fd);
  }
}

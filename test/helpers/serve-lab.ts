/** A vhost-user server on a tap of its own, a station on the other side of a bridge, and front ends with a guest that exchanges frames. */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { IFF_NO_PI, IFF_TAP } from '../../lib/constants/if-tun';
import { EventFd } from '../../lib/host/event-fd';
import { Netns } from '../../lib/host/netns';
import { Tap } from '../../lib/host/tap';
import { GuestMemory } from '../../lib/memory/guest-memory';
import type { FdHandle } from '../../lib/native';
import { type ServedPath, VhostUserServer } from '../../lib/serve/server';
import { Trace } from '../../lib/trace/trace';
import type { VringAddr, WireRegion } from '../../lib/vhost-user/payload';
import { FrontEnd } from './front-end';
import { LabGuest } from './vhost-guest';
import { LabPeer } from './vhost-peer';
import { RawRing } from './vhost-ring';
import { until } from './vhost-wait';

/** MQ, LOG_SHMFD, RARP, REPLY_ACK, MTU, CONFIGURE_MEM_SLOTS, STATUS: all that is offered. */
export const PROTOCOL_FEATURES = 0x1801fn;
export const REPLY_ACK = 1n << 3n;
export const VERSION_1 = 1n << 32n;
export const BY_PROTOCOL = 1n << 30n;
export const LOG_ALL = 1n << 26n;
const RAM = 0x10_0000;
const RAM_SIZE = 0x80_0000;
const BUFFERS = RAM + 0x20_0000;
/** What the guest's address 0 would be in the front end's process. */
export const USER_BASE = 0x7f00_0000_0000n;
const RING_SIZE = 256;

export class ServeLab {
  readonly netns: Netns;
  readonly taps: readonly Tap[];
  peer: LabPeer;
  readonly trace = new Trace({ capacity: 100_000 });
  readonly path: string;
  /** Why front ends were left; null for those that went by themselves. */
  readonly left: (string | null)[] = [];
  /** Front ends that were served so far. */
  connected = 0;
  server!: VhostUserServer;
  readonly #folder = mkdtempSync(join(tmpdir(), 'vhost-user-'));

  private constructor(netns: Netns, taps: readonly Tap[], peer: LabPeer) {
    this.netns = netns;
    this.taps = taps;
    this.peer = peer;
    this.path = join(this.#folder, 'v.sock');
  }

  static async create({
    pairs = 1,
    backend = 'emulated',
  }: {
    pairs?: number;
    backend?: ServedPath;
  } = {}): Promise<ServeLab> {
    const netns = await Netns.create();
    const open = { name: 'dev0', netns: netns.path };
    const taps = pairs === 1 ? [await Tap.open(open)] : await Tap.openQueues(pairs, open);
    const peerTap = await Tap.open({ netns: netns.path, name: 'peer0', flags: IFF_TAP | IFF_NO_PI });
    await netns.addBridge('br0', ['dev0', 'peer0']);
    const lab = new ServeLab(netns, taps, new LabPeer(peerTap));
    await lab.listen(backend);
    return lab;
  }

  async listen(backend: ServedPath): Promise<void> {
    this.server = await VhostUserServer.listen({
      socket: this.path,
      taps: this.taps,
      backend,
      trace: this.trace,
      onFrontEnd: (event, reason) => {
        if (event === 'gone') this.left.push(reason);
        else this.connected++;
      },
    });
  }

  connect(): Promise<FrontEnd> {
    return FrontEnd.connect(this.path);
  }

  /** Waits until that many front ends have gone. */
  async gone(count: number): Promise<void> {
    await until(`${count} front ends gone`, () => this.left.length >= count);
  }

  /** Waits until every front end that was served has gone. */
  async idle(): Promise<void> {
    await until('all front ends gone', () => this.left.length === this.connected);
  }

  async close(): Promise<void> {
    await this.server.close();
    for (const tap of [...this.taps].reverse()) await tap.close();
    await this.peer.tap.close();
    await this.netns.delete();
    rmSync(this.#folder, { recursive: true });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }
}

/** Memory and rings of one queue pair on the front end's side. */
export class FrontEndGuest {
  readonly memory = GuestMemory.create([{ gpa: RAM, size: RAM_SIZE }]);
  readonly rx: RawRing;
  readonly tx: RawRing;
  readonly rings: readonly [RawRing, RawRing];
  readonly notifiers = [0, 1].map(() => ({ kick: EventFd.create(), call: EventFd.create() }));
  readonly errors = [0, 1].map(() => EventFd.create());
  readonly guest: LabGuest;

  constructor(start = 0) {
    this.rx = new RawRing(this.memory, RAM, RING_SIZE, { start });
    this.tx = new RawRing(this.memory, this.rx.end, RING_SIZE, { start });
    this.rings = [this.rx, this.tx];
    this.guest = new LabGuest(this.memory, this.rx, this.tx, this.notifiers, BUFFERS);
  }

  get region(): WireRegion {
    return { guestAddr: BigInt(RAM), size: BigInt(RAM_SIZE), userAddr: USER_BASE + BigInt(RAM), mmapOffset: 0n };
  }

  get fd(): FdHandle {
    return this.memory.regions[0]!.fd;
  }

  addresses(queue: number, overrides: Partial<VringAddr> = {}): VringAddr {
    const { desc, avail, used } = this.rings[queue & 1]!;
    const user = (address: number): bigint => USER_BASE + BigInt(address);
    return {
      index: queue,
      flags: 0,
      desc: user(desc),
      avail: user(avail),
      used: user(used),
      log: BigInt(used),
      ...overrides,
    };
  }

  /** Everything of one ring in QEMU's order, started with the kick. */
  async startRing(front: FrontEnd, queue: number, base: number): Promise<void> {
    const { kick, call } = this.notifiers[queue & 1]!;
    await front.tell('SET_VRING_NUM', { index: queue, num: RING_SIZE });
    await front.tell('SET_VRING_BASE', { index: queue, num: base });
    await front.tell('SET_VRING_ADDR', this.addresses(queue));
    await front.tell('SET_VRING_KICK', { index: queue, noFd: false }, { fds: [kick.handle] });
    await front.tell('SET_VRING_CALL', { index: queue, noFd: false }, { fds: [call.handle] });
  }

  /** As QEMU connects. */
  async connectLikeQemu(front: FrontEnd): Promise<bigint> {
    await front.ask('GET_FEATURES', null, 'u64');
    const offered = await front.ask('GET_PROTOCOL_FEATURES', null, 'u64');
    await front.tell('SET_PROTOCOL_FEATURES', offered);
    await front.ask('GET_QUEUE_NUM', null, 'u64');
    await front.ask('GET_MAX_MEM_SLOTS', null, 'u64');
    await front.tell('SET_OWNER', null);
    const features = await front.ask('GET_FEATURES', null, 'u64');
    for (const queue of [0, 1]) {
      const temporary = EventFd.create();
      await front.tell('SET_VRING_CALL', { index: queue, noFd: false }, { fds: [temporary.handle] });
      await front.tell('SET_VRING_ERR', { index: queue, noFd: false }, { fds: [this.errors[queue]!.handle] });
      temporary.close();
    }
    return features;
  }

  async enable(front: FrontEnd, num: 0 | 1, queues: readonly number[] = [0, 1]): Promise<void> {
    for (const index of queues) await front.tell('SET_VRING_ENABLE', { index, num });
  }

  /** As QEMU starts its device; `bases` by queue. */
  async startLikeQemu(front: FrontEnd, bases: readonly number[] = [0, 0], memory = true): Promise<void> {
    await this.enable(front, 1);
    await front.tell('SET_FEATURES', VERSION_1 | BY_PROTOCOL);
    await front.ask('GET_STATUS', null, 'u64');
    await front.tell('SET_STATUS', 8n);
    if (memory && !(await front.done('SET_MEM_TABLE', [this.region], [this.fd]))) throw new Error('no memory table');
    for (const queue of [0, 1]) await this.startRing(front, queue, bases[queue]!);
    await front.ask('GET_STATUS', null, 'u64');
    await front.tell('SET_STATUS', 0xfn);
  }

  /** As QEMU stops it: status before the indexes. Answers the bases. */
  async stopLikeQemu(front: FrontEnd): Promise<[number, number]> {
    await front.tell('SET_STATUS', 0n);
    const bases: number[] = [];
    for (const index of [0, 1]) bases.push((await front.ask('GET_VRING_BASE', { index, num: 0 }, 'vringState')).num);
    return bases as [number, number];
  }

  /** Numbered frames both ways until both sides have `frames` more. */
  async exchange(peer: LabPeer, frames: number): Promise<void> {
    const target = { guest: this.guest.tally.received + frames, peer: peer.tally.received + frames };
    const [toSend, toGuest] = [this.guest.sent + frames, peer.sent + frames];
    await until(`${frames} frames each way`, () => {
      this.guest.receive();
      this.guest.refill();
      if (this.guest.sent < toSend) this.guest.transmit(Math.min(16, toSend - this.guest.sent));
      if (peer.sent < toGuest) peer.send(Math.min(16, toGuest - peer.sent));
      peer.receive();
      return this.guest.tally.received >= target.guest && peer.tally.received >= target.peer;
    });
  }

  close(): void {
    for (const { kick, call } of this.notifiers) {
      kick.close();
      call.close();
    }
    for (const event of this.errors) event.close();
    this.memory.close();
  }

  [Symbol.dispose](): void {
    this.close();
  }
}

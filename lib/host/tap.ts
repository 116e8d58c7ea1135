/**
 * A tap: the network interface on whose other side, instead of a cable, there is a descriptor. One Tap object is one queue of it.
 */
import { existsSync } from 'node:fs';
import { constants } from 'node:os';
import {
  IFF_ATTACH_QUEUE,
  IFF_DETACH_QUEUE,
  IFF_MULTI_QUEUE,
  IFF_NO_PI,
  IFF_TAP,
  IFF_VNET_HDR,
  IFNAMSIZ,
} from '../constants/if-tun';
import { check, closedError, invalidArgument, systemError, VhostError } from '../errors';
import { type FdHandle, native } from '../native';
import { kernelCall, type Observed } from '../trace/kernel-call';
import type { TraceArguments } from '../trace/trace';
import { type InterfaceStats, NetDevice } from './net-device';
import { claimQueue, queueIdentity, queueInUse } from './tap-claims';
import { checkTxFilter, offloadChoices } from './tap-options';

export const TUN_DEVICE = '/dev/net/tun';
const { EACCES, EAGAIN, ENOENT } = constants.errno;
/** In place of a program that a queue may have or not. */
const NOT_KNOWN = new Uint8Array(0);

export interface TapOptions extends Observed {
  /** Interface name, at most 15 bytes; a name with %d, or none, lets the kernel choose. */
  name?: string | undefined;
  /** Path of the network namespace, such as Netns.path; null for this process's own. */
  netns?: string | null | undefined;
  /** Default IFF_TAP | IFF_NO_PI | IFF_VNET_HDR. */
  flags?: number | undefined;
  /** Adds IFF_MULTI_QUEUE: the same name may then be opened again for a further queue. */
  multiQueue?: boolean | undefined;
  /** Default /dev/net/tun. */
  device?: string | undefined;
}

/** Null: not known. */
export interface TapSettings {
  /** TUN_F_ bits. */
  offload: number | null;
  /** Classic BPF; null for none. */
  filter: Readonly<Uint8Array> | null;
  carrier: boolean | null;
}

export class Tap {
  /** For calls into the addon. */
  readonly handle: FdHandle;
  /** Path of the interface's network namespace, or null for this process's own. */
  readonly netns: string | null;
  readonly #observed: Observed;
  readonly #native = native();
  /** Keeps the namespace of an adopted tap reachable. */
  readonly #netnsHandle: FdHandle | null;
  #claim: string | null = null;
  #closed = false;
  #offload: number | null = null;
  #program: Readonly<Uint8Array> | null = null;
  /** A new tap has a link. */
  #carrier: boolean | null = true;

  private constructor(handle: FdHandle, netns: string | null, netnsHandle: FdHandle | null, observed: Observed) {
    this.handle = handle;
    this.netns = netns;
    this.#netnsHandle = netnsHandle;
    this.#observed = observed;
  }

  /** Opens one queue of a tap and sets the interface up. */
  static async open(options: TapOptions = {}): Promise<Tap> {
    const { name = '', netns = null, device = TUN_DEVICE, multiQueue = false, trace, faults } = options;
    if (Buffer.byteLength(name) >= IFNAMSIZ)
      throw invalidArgument(`interface name "${name}" is longer than ${IFNAMSIZ - 1} bytes`);
    const flags = (options.flags ?? IFF_TAP | IFF_NO_PI | IFF_VNET_HDR) | (multiQueue ? IFF_MULTI_QUEUE : 0);
    const args: TraceArguments = { device, netns, name, flags };
    const opened = await kernelCall<{ fd: FdHandle; name: string }>({ trace, faults }, 'TUNSETIFF', -1, args, -1, () =>
      native().tapOpen(device, netns, name, flags),
    );
    if (typeof opened === 'number') {
      const netnsMissing = opened === -ENOENT && netns !== null && !existsSync(netns);
      const opening = opened === -ENOENT || opened === -EACCES;
      throw systemError(opened, opening ? 'open' : 'TUNSETIFF', netnsMissing ? netns : opening ? device : name);
    }
    return new Tap(opened.fd, netns, null, { trace, faults });
  }

  /** Opens `count` queues of one multiqueue tap; none stays open when one fails. */
  static async openQueues(count: number, options: TapOptions = {}): Promise<Tap[]> {
    const taps: Tap[] = [];
    try {
      while (taps.length < count) {
        const name = taps[0]?.name ?? options.name;
        taps.push(await Tap.open({ ...options, name, multiQueue: true }));
      }
    } catch (error) {
      for (const tap of taps) await tap.close();
      throw error;
    }
    return taps;
  }

  /** What has been set, and the kernel does not tell: for whoever adopts this tap. */
  get settings(): TapSettings {
    return { offload: this.#offload, filter: this.#program, carrier: this.#carrier };
  }

  /**
   * Takes ownership of a descriptor of a tap that somebody else has opened, in whatever network namespace it is. `settings` are those of that
   * tap, where they are known: what is set already need not be set again, which would make it drop frames.
   */
  static adopt(fd: number, observed: Observed = {}, settings: Partial<TapSettings> = {}): Tap {
    const handle = check<FdHandle>(native().fdAdopt(fd), 'fcntl');
    const iff = native().tunGetIff(handle);
    if (typeof iff === 'number') {
      native().fdClose(handle);
      throw systemError(iff, 'TUNGETIFF');
    }
    // Reads of an empty queue answer, whoever opened it.
    native().fdSetNonblocking(handle, true);
    const found = native().tunGetDevNetns(handle);
    const netnsHandle = typeof found === 'number' ? null : found;
    const netns = netnsHandle === null ? null : `/proc/${process.pid}/fd/${native().fdNumber(netnsHandle)}`;
    const tap = new Tap(handle, netns, netnsHandle, observed);
    tap.#offload = settings.offload ?? null;
    tap.#program = settings.filter ?? null;
    tap.#carrier = settings.carrier === undefined ? true : settings.carrier;
    return tap;
  }

  get closed(): boolean {
    return this.#closed;
  }

  get fd(): number {
    this.#throwIfClosed();
    return this.#native.fdNumber(this.handle);
  }

  #throwIfClosed(): void {
    if (this.#closed) throw closedError('Tap');
  }

  async #call(name: string, args: TraceArguments, run: () => Promise<number> | number): Promise<number> {
    const fd = this.fd;
    const result = await kernelCall<number>(this.#observed, name, fd, args, 0, run);
    if (result < 0) throw systemError(result, name, this.#nameOr('tap'));
    return result;
  }

  #get(name: string, result: number): number {
    if (result < 0) {
      this.#throwIfClosed();
      throw systemError(result, name, this.#nameOr('tap'));
    }
    return result;
  }

  #nameOr(other: string): string {
    const iff = this.#native.tunGetIff(this.handle);
    return typeof iff === 'number' ? other : iff.name;
  }

  /** As the kernel has it now: interfaces can be renamed. */
  get name(): string {
    return this.#iff().name;
  }

  /** IFF_ flags as the kernel has them. */
  get flags(): number {
    return this.#iff().flags;
  }

  get multiQueue(): boolean {
    return (this.flags & IFF_MULTI_QUEUE) !== 0;
  }

  #iff(): { name: string; flags: number } {
    const iff = this.#native.tunGetIff(this.handle);
    if (typeof iff !== 'number') return iff;
    this.#throwIfClosed();
    throw systemError(iff, 'TUNGETIFF');
  }

  /** The interface itself. */
  get interface(): NetDevice {
    return new NetDevice(this.name, this.netns, this.#observed);
  }

  async up(): Promise<void> {
    await this.interface.up();
  }

  /** Frames that are queued stay queued. */
  async down(): Promise<void> {
    await this.interface.down();
  }

  /** Frames that each queue holds before the host drops; default 1,000. */
  txQueueLen(): Promise<number> {
    return this.interface.txQueueLen();
  }

  /** Takes effect at once. Shrinking below what is queued frees frames that no counter counts. */
  async setTxQueueLen(frames: number): Promise<void> {
    await this.interface.setTxQueueLen(frames);
  }

  mtu(): Promise<number> {
    return this.interface.mtu();
  }

  async setMtu(bytes: number): Promise<void> {
    await this.interface.setMtu(bytes);
  }

  /** Counters of the interface: `tx` is towards the guest, `tx.dropped` its frames that found the queue full. */
  stats(): Promise<InterfaceStats> {
    return this.interface.stats();
  }

  /** Bytes of virtio-net header before every frame; one setting for all queues. */
  get vnetHdrSize(): number {
    return this.#get('TUNGETVNETHDRSZ', this.#native.tunGetVnetHdrSz(this.handle));
  }

  async setVnetHdrSize(bytes: number): Promise<void> {
    await this.#call('TUNSETVNETHDRSZ', { bytes }, () => this.#native.tunSetVnetHdrSz(this.handle, bytes));
  }

  get vnetLittleEndian(): boolean {
    return this.#get('TUNGETVNETLE', this.#native.tunGetVnetLe(this.handle)) !== 0;
  }

  async setVnetLittleEndian(on: boolean): Promise<void> {
    await this.#call('TUNSETVNETLE', { on }, () => this.#native.tunSetVnetLe(this.handle, on ? 1 : 0));
  }

  get vnetBigEndian(): boolean {
    return this.#get('TUNGETVNETBE', this.#native.tunGetVnetBe(this.handle)) !== 0;
  }

  async setVnetBigEndian(on: boolean): Promise<void> {
    await this.#call('TUNSETVNETBE', { on }, () => this.#native.tunSetVnetBe(this.handle, on ? 1 : 0));
  }

  /** IFF_ bits this kernel knows. */
  get features(): number {
    return this.#get('TUNGETFEATURES', this.#native.tunGetFeatures(this.handle));
  }

  /** TUN_F_ bits: what the reader, that is the guest, takes unsegmented or unchecksummed. */
  async setOffload(offload: number): Promise<void> {
    this.#offload = null;
    await this.#call('TUNSETOFFLOAD', { offload }, () => this.#native.tunSetOffload(this.handle, offload));
    this.#offload = offload;
  }

  /** TUN_F_ bits that were set through this object, null before and after a failure. The kernel does not tell them. */
  get offload(): number | null {
    return this.#offload;
  }

  /** Sets as many of the wanted TUN_F_ bits as the kernel takes, trying the richest combination first: those that were set. */
  async setBestOffload(wanted: number): Promise<number> {
    for (const offload of offloadChoices(wanted)) {
      try {
        await this.setOffload(offload);
        return offload;
      } catch (error) {
        if (!(error instanceof VhostError && error.code === 'EINVAL') || offload === 0) throw error;
      }
    }
    return 0;
  }

  /**
   * Destination addresses that are let through towards the guest; broadcast must be listed too. The kernel compares 8 exactly and
   * hashes those behind, which must be multicast: an unicast address there would switch the filter off, and is refused.
   * @param flags 0 or TUN_FLT_ALLMULTI.
   * @param macs 6 bytes each; none lets everything through.
   */
  async setTxFilter(flags: number, macs: Uint8Array): Promise<void> {
    checkTxFilter(macs);
    await this.#call('TUNSETTXFILTER', { flags, macs: macs.length / 6 }, () =>
      this.#native.tunSetTxFilter(this.handle, flags, macs),
    );
  }

  /** Classic BPF on frames towards the guest: the answer is the bytes kept, 0 drops. 8 bytes an instruction. */
  async attachFilter(program: Uint8Array): Promise<void> {
    // A failure takes the program away from queues that were reached before it.
    this.#program = NOT_KNOWN;
    await this.#call('TUNATTACHFILTER', { instructions: program.length / 8 }, () =>
      this.#native.tunAttachFilter(this.handle, program),
    );
    this.#program = Uint8Array.from(program);
  }

  /** What `attachFilter` of this object was given last, null before and after `detachFilter`; empty, as no program is, after a failure. */
  get attachedFilter(): Readonly<Uint8Array> | null {
    return this.#program;
  }

  /** Makes the kernel believe that there is no program, although every queue keeps the one it has: see `setQueue`. */
  async forgetFilter(): Promise<void> {
    const program = this.#program;
    try {
      await this.attachFilter(new Uint8Array(0));
    } catch (error) {
      if (!(error instanceof VhostError && error.code === 'EINVAL')) throw error;
      this.#program = program;
    }
  }

  async detachFilter(): Promise<void> {
    await this.#call('TUNDETACHFILTER', {}, () => this.#native.tunDetachFilter(this.handle));
    this.#program = null;
  }

  async filter(): Promise<Uint8Array> {
    return check<Uint8Array>(await this.#native.tunGetFilter(this.handle), 'TUNGETFILTER', this.name);
  }

  /** Program that picks the queue, or null for the kernel's own choice. */
  async setSteeringEbpf(programFd: number | null): Promise<void> {
    await this.#call('TUNSETSTEERINGEBPF', { programFd }, () =>
      this.#native.tunSetSteeringEbpf(this.handle, programFd ?? -1),
    );
  }

  async setFilterEbpf(programFd: number | null): Promise<void> {
    await this.#call('TUNSETFILTEREBPF', { programFd }, () =>
      this.#native.tunSetFilterEbpf(this.handle, programFd ?? -1),
    );
  }

  /** Link as a plugged or pulled cable. Takes effect later, by the kernel's link work: no fence against frames on their way. */
  async setCarrier(on: boolean): Promise<void> {
    this.#carrier = null;
    await this.#call('TUNSETCARRIER', { on }, () => this.#native.tunSetCarrier(this.handle, on ? 1 : 0));
    this.#carrier = on;
  }

  /** Link as it was set through this object, on before; null after a failure. */
  get carrier(): boolean | null {
    return this.#carrier;
  }

  /**
   * Parks this queue of a multiqueue tap (its queued frames are freed), or returns it. While a BPF program is attached to the tap the kernel
   * answers 0 and leaves it parked: see lib/net/receive-filter-program.ts.
   */
  async setQueue(state: 'attach' | 'detach'): Promise<void> {
    await this.#call('TUNSETQUEUE', { state }, () =>
      this.#native.tunSetQueue(this.handle, state === 'attach' ? IFF_ATTACH_QUEUE : IFF_DETACH_QUEUE),
    );
  }

  /** Whether this queue of a multiqueue tap is parked, as the kernel has it. */
  get parked(): boolean {
    return (this.flags & IFF_DETACH_QUEUE) !== 0;
  }

  /** Bytes of frames from the guest that may wait in the host. Anything below 2^31 - 1 makes vhost transmit frame by frame. */
  get sndbuf(): number {
    return this.#get('TUNGETSNDBUF', this.#native.tunGetSndbuf(this.handle));
  }

  async setSndbuf(bytes: number): Promise<void> {
    await this.#call('TUNSETSNDBUF', { bytes }, () => this.#native.tunSetSndbuf(this.handle, bytes));
  }

  /** The interface stays when its last descriptor is closed. */
  async setPersist(on: boolean): Promise<void> {
    await this.#call('TUNSETPERSIST', { on }, () => this.#native.tunSetPersist(this.handle, on ? 1 : 0));
  }

  async setOwner(uid: number): Promise<void> {
    await this.#call('TUNSETOWNER', { uid }, () => this.#native.tunSetOwner(this.handle, uid));
  }

  async setGroup(gid: number): Promise<void> {
    await this.#call('TUNSETGROUP', { gid }, () => this.#native.tunSetGroup(this.handle, gid));
  }

  /** Of the interface on the host, which is not the guest's. 6 bytes. */
  get mac(): Uint8Array {
    return check<Uint8Array>(this.#native.tapGetHwaddr(this.handle), 'SIOCGIFHWADDR', this.#nameOr('tap'));
  }

  async setMac(mac: Uint8Array): Promise<void> {
    await this.#call('SIOCSIFHWADDR', { mac: Buffer.from(mac).toString('hex') }, () =>
      this.#native.tapSetHwaddr(this.handle, mac),
    );
  }

  /**
   * Reads up to `max` frames with their headers: frame i at i * stride of `arena`, its length in lengths[i]. Answers how many, 0 when
   * the queue is empty. Refused while a device uses the queue: each frame would reach one of the two readers.
   */
  readFrames(arena: Uint8Array, stride: number, max: number, lengths: Int32Array): number {
    if (this.#claim !== null) throw this.#claimed();
    const count = this.#native.framesRead(this.handle, arena, stride, max, lengths);
    if (count >= 0) return count;
    return count === -EAGAIN ? 0 : this.#get('read', count);
  }

  /** Writes frames with their headers likewise. Answers how many were written, 0 when the host takes none now. */
  writeFrames(arena: Uint8Array, stride: number, count: number, lengths: Int32Array): number {
    const written = this.#native.framesWrite(this.handle, arena, stride, count, lengths);
    if (written >= 0) return written;
    return written === -EAGAIN ? 0 : this.#get('write', written);
  }

  #claimed(): VhostError {
    return queueInUse(this.#nameOr('queue'), this.#claim ?? '');
  }

  /**
   * Reserves the queue for `user`; the function that is answered gives it back. Refused with VHOST_ERR_STATE while somebody else has
   * it, also through another descriptor of the same interface unless that is multiqueue.
   */
  claim(user: string): () => void {
    this.#throwIfClosed();
    if (this.#claim !== null) throw this.#claimed();
    const key = queueIdentity(this.handle, this.netns);
    const release = claimQueue(key, this.name, user);
    this.#claim = key;
    return () => {
      if (release()) this.#claim = null;
    };
  }

  /** Closes this queue. The interface goes with its last queue, unless it is persistent or a device still holds it. Idempotent. */
  async close(): Promise<void> {
    if (this.#closed) return;
    this.#closed = true;
    await kernelCall(this.#observed, 'close', this.#native.fdNumber(this.handle), {}, 0, () =>
      this.#native.fdCloseAsync(this.handle),
    );
    if (this.#netnsHandle !== null) this.#native.fdClose(this.#netnsHandle);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }
}

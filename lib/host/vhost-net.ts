/**
 * An open /dev/vhost-net: one queue pair, receive 0 and transmit 1. Adds to the kernel's checks those that the kernel leaves out and
 * whose neglect loses frames, dirty bits or memory: every rule here names its reason.
 */
import { VHOST_F_LOG_ALL, VHOST_NET_VQ_MAX, VHOST_VRING_F_LOG } from '../constants/vhost';
import { closedError, invalidArgument, systemError, VhostError } from '../errors';
import type { DirtyLog } from '../memory/dirty-log';
import { type GuestMemory, maxMemRegions } from '../memory/guest-memory';
import { native, type VhostHandle } from '../native';
import { kernelCall, type Observed } from '../trace/kernel-call';
import type { EventFd } from './event-fd';
import { VhostIoctls } from './vhost-ioctls';
import { logsUsedRing, type MemTable, usedRingEnd, type VringAddresses } from './vring-addresses';

export type { MemTable, VringAddresses } from './vring-addresses';

export const DEFAULT_VHOST_PATH = '/dev/vhost-net';
const LOG_ALL = 1n << BigInt(VHOST_F_LOG_ALL);
const VRING_DESC_ALIGN = 16;

export interface VhostOpenOptions extends Observed {
  /** Default /dev/vhost-net. */
  path?: string | undefined;
  /** A descriptor opened by somebody else, of which ownership is taken. */
  fd?: number | undefined;
}

export type Attachable = { readonly fd: number };

interface RingRecord {
  attached: boolean;
  size: number;
  addresses: VringAddresses | null;
}

export class VhostNet {
  /** The same ioctls without any check of this library: for probing, and for tests of what the kernel refuses. */
  readonly unchecked: VhostIoctls;
  readonly #rings: RingRecord[] = [];
  #features = 0n;
  #log: DirtyLog | null = null;
  #table: MemTable | null = null;

  private constructor(ioctls: VhostIoctls) {
    this.unchecked = ioctls;
    this.#forget();
  }

  /** Opens the device, or adopts `fd`. Does not become its owner: call `setOwner`. */
  static async open({ path = DEFAULT_VHOST_PATH, fd, trace, faults }: VhostOpenOptions = {}): Promise<VhostNet> {
    const observed: Observed = { trace, faults };
    const refused = -2;
    const handle = await kernelCall<VhostHandle>(observed, 'open', fd ?? -1, { path }, refused, () =>
      fd === undefined ? native().vhostOpen(path) : native().vhostAdopt(fd),
    );
    if (typeof handle === 'number') throw systemError(handle, 'open', path);
    return new VhostNet(new VhostIoctls(handle, path, observed));
  }

  get fd(): number {
    return this.unchecked.fd;
  }

  get closed(): boolean {
    return this.unchecked.closed;
  }

  /** Features as last set. */
  get features(): bigint {
    return this.#features;
  }

  /** The log the kernel was told of. */
  get log(): DirtyLog | null {
    return this.#log;
  }

  get memTable(): MemTable | null {
    return this.#table;
  }

  /** As last set, or null. */
  vringAddresses(index: number): VringAddresses | null {
    return this.#ring(index).addresses;
  }

  isAttached(index: number): boolean {
    return this.#ring(index).attached;
  }

  #ring(index: number): RingRecord {
    const ring = this.#rings[index];
    if (ring === undefined)
      throw invalidArgument(`vring index ${index}`, 'a vhost-net device has rings 0 (receive) and 1 (transmit)');
    return ring;
  }

  #forget(): void {
    this.#rings.length = 0;
    for (let index = 0; index < VHOST_NET_VQ_MAX; index++)
      this.#rings.push({ attached: false, size: 1, addresses: null });
    this.#features = 0n;
    this.#log = null;
    this.#table = null;
  }

  get #anyAttached(): boolean {
    return this.#rings.some((ring) => ring.attached);
  }

  async setOwner(): Promise<void> {
    await this.unchecked.setOwner();
  }

  /** Detaches both rings and forgets everything that was set. */
  async resetOwner(): Promise<void> {
    await this.unchecked.resetOwner();
    this.#forget();
  }

  getFeatures(): Promise<bigint> {
    return this.unchecked.getFeatures();
  }

  /**
   * Sets the acked features. While a ring is attached only VHOST_F_LOG_ALL may change: the kernel would switch header length and
   * byte order in the middle of the traffic. Fails with VHOST_ERR_STATE then.
   */
  async setFeatures(features: bigint): Promise<void> {
    if (features < 0n || features >= 1n << 64n) throw invalidArgument(`features ${features} are not 64 bits`);
    if (this.#anyAttached) {
      const changed = (features ^ this.#features) & ~LOG_ALL;
      if (changed !== 0n) {
        throw new VhostError(
          'VHOST_ERR_STATE',
          `features 0x${changed.toString(16)} cannot change while a ring is attached`,
          {
            syscall: 'VHOST_SET_FEATURES',
            hint: 'only VHOST_F_LOG_ALL may: detach first',
          },
        );
      }
      if ((features & LOG_ALL) !== 0n) this.#requireLog('VHOST_SET_FEATURES');
    }
    await this.unchecked.setFeatures(features);
    this.#features = features;
  }

  /** Words 0 and 1; fails where the kernel has no arrays (before Linux 6.17). */
  getFeaturesArray(): Promise<[bigint, bigint]> {
    return this.unchecked.getFeaturesArray();
  }

  /** As setFeatures, with word 1. Toggle logging in the form the features were set with: the short one clears word 1. */
  async setFeaturesArray(word0: bigint, word1: bigint): Promise<void> {
    if (this.#anyAttached)
      throw new VhostError('VHOST_ERR_STATE', 'feature words cannot change while a ring is attached');
    await this.unchecked.setFeaturesArray(word0, word1);
    this.#features = word0;
  }

  /** All words as one number: by the array where the kernel has it, else word 0 alone. An unknown ioctl has many errors, and all mean that. */
  async getAllFeatures(): Promise<bigint> {
    const [word0, word1] = await this.getFeaturesArray().catch(async () => [await this.getFeatures(), 0n] as const);
    return word0 | (word1 << 64n);
  }

  /** The other way round: the array is used only for features beyond word 0, so that kernels without it serve all others. */
  async setAllFeatures(features: bigint): Promise<void> {
    const word1 = features >> 64n;
    if (word1 === 0n) await this.setFeatures(features);
    else await this.setFeaturesArray(features & ((1n << 64n) - 1n), word1);
  }

  getBackendFeatures(): Promise<bigint> {
    return this.unchecked.getBackendFeatures();
  }

  async setBackendFeatures(features: bigint): Promise<void> {
    await this.unchecked.setBackendFeatures(features);
  }

  /** Before setOwner: 1 a thread of this process, 0 a kernel thread. Any failure means that the kernel has no choice to offer. */
  async setForkFromOwner(value: 0 | 1): Promise<void> {
    await this.unchecked.setForkFromOwner(value);
  }

  getForkFromOwner(): Promise<number> {
    return this.unchecked.getForkFromOwner();
  }

  /**
   * Tells the device of guest memory. Refused with VHOST_ERR_MEMORY_TABLE when it has more regions than the kernel takes, and with
   * VHOST_ERR_LOG_SIZE when it ends behind the log in use: the kernel would set bits in whatever memory follows the log.
   */
  async setMemTable(memory: GuestMemory): Promise<void> {
    const { table, mappings } = memory.vhostRegions();
    await this.restoreMemTable({ regions: table, mappings, end: memory.end });
  }

  /** As setMemTable, with a table this device had before. */
  async restoreMemTable(table: MemTable): Promise<void> {
    const count = table.regions.length / 3;
    const limit = maxMemRegions();
    if (count > limit) {
      throw new VhostError('VHOST_ERR_MEMORY_TABLE', `${count} memory regions, the kernel takes ${limit}`, {
        syscall: 'VHOST_SET_MEM_TABLE',
        hint: 'merge regions, or load vhost with a larger max_mem_regions',
      });
    }
    for (let region = 0; region < count; region++) {
      if (table.regions[region * 3 + 1] === 0)
        throw new VhostError('VHOST_ERR_MEMORY_TABLE', `memory region ${region} is empty`);
    }
    if (this.#log !== null) this.#requireCover(this.#log, table.end, 'VHOST_SET_MEM_TABLE');
    await this.unchecked.setMemTable([...table.regions], [...table.mappings]);
    this.#table = table;
  }

  #requireCover(log: DirtyLog, end: number, syscall: string): void {
    if (log.closed) throw closedError('DirtyLog');
    if (!log.covers(end)) {
      throw new VhostError(
        'VHOST_ERR_LOG_SIZE',
        `the dirty log covers ${log.pages} pages, guest memory ends at 0x${end.toString(16)}`,
        {
          syscall,
          hint: 'attach a log that covers the highest guest physical address first',
        },
      );
    }
  }

  /** Logging needs a log: the kernel takes none for an answer, and loses every bit. */
  #requireLog(syscall: string): void {
    if (this.#log !== null) {
      if (this.#log.closed) throw closedError('DirtyLog');
      return;
    }
    throw new VhostError('VHOST_ERR_STATE', 'dirty logging is on without a dirty log', {
      syscall,
      hint: 'setLogBase comes first',
    });
  }

  /** First byte behind everything whose writes are logged. */
  #loggedEnd(): number {
    let end = this.#table?.end ?? 0;
    for (const { addresses, size } of this.#rings) {
      if (addresses !== null && (addresses.flags & VHOST_VRING_F_LOG) !== 0)
        end = Math.max(end, usedRingEnd(addresses, size));
    }
    return end;
  }

  /** The bitmap that dirty bits go to; null, when logging is off, lets go of the one before. */
  async setLogBase(log: DirtyLog | null): Promise<void> {
    if (log === null) {
      const logging = (this.#features & LOG_ALL) !== 0n || this.#rings.some((ring) => logsUsedRing(ring.addresses));
      if (this.#anyAttached && logging) {
        throw new VhostError('VHOST_ERR_STATE', 'the dirty log is in use', {
          syscall: 'VHOST_SET_LOG_BASE',
          hint: 'first clear VHOST_F_LOG_ALL and the flags of both rings',
        });
      }
      await this.unchecked.setLogBase(0, null);
      this.#log = null;
      return;
    }
    if (log.closed) throw closedError('DirtyLog');
    if (log.hva === 0) throw invalidArgument('the dirty log is not mapped');
    this.#requireCover(log, this.#loggedEnd(), 'VHOST_SET_LOG_BASE');
    await this.unchecked.setLogBase(log.hva, log.mapping);
    this.#log = log;
  }

  /** Signalled whenever bits were set; a hint that costs a wake-up a frame. */
  async setLogFd(event: EventFd | null): Promise<void> {
    await this.unchecked.setLogFd(event?.fd ?? -1);
  }

  async setVringNum(index: number, num: number): Promise<void> {
    const ring = this.#ring(index);
    await this.unchecked.setVringNum(index, num);
    ring.size = num;
  }

  async setVringBase(index: number, base: number): Promise<void> {
    this.#ring(index);
    await this.unchecked.setVringBase(index, base);
  }

  /**
   * Index of the next available entry. Refused with VHOST_ERR_STATE while the ring is attached, because it moves on (pass
   * `attached: true` for a momentary value).
   */
  async getVringBase(index: number, { attached = false }: { attached?: boolean } = {}): Promise<number> {
    if (this.#ring(index).attached && !attached) {
      throw new VhostError('VHOST_ERR_STATE', `vring ${index} is attached: its base moves`, {
        syscall: 'VHOST_GET_VRING_BASE',
        hint: 'detach first',
      });
    }
    return this.unchecked.getVringBase(index);
  }

  /** Set the size first: what a log must cover follows from it. */
  async setVringAddr(index: number, addresses: VringAddresses): Promise<void> {
    const ring = this.#ring(index);
    const { flags, desc, used, avail, logGuestAddr } = addresses;
    for (const [name, address] of Object.entries({ desc, used, avail, logGuestAddr })) {
      if (!Number.isSafeInteger(address) || address < 0)
        throw invalidArgument(`${name} of vring ${index} is ${address}`);
    }
    // The kernel aligns the other two only; virtio 1.4 section 2.7 all three.
    if (desc % VRING_DESC_ALIGN !== 0) {
      throw new VhostError(
        'VHOST_ERR_RING',
        `descriptor table of vring ${index} at 0x${desc.toString(16)} is not 16-byte aligned`,
      );
    }
    if ((flags & VHOST_VRING_F_LOG) !== 0) {
      if (ring.attached) this.#requireLog('VHOST_SET_VRING_ADDR');
      if (this.#log !== null) this.#requireCover(this.#log, usedRingEnd(addresses, ring.size), 'VHOST_SET_VRING_ADDR');
    }
    await this.unchecked.setVringAddr(index, { flags, desc, used, avail, logGuestAddr });
    ring.addresses = { ...addresses };
  }

  async setVringKick(index: number, event: EventFd | null): Promise<void> {
    this.#ring(index);
    await this.unchecked.setVringKick(index, event?.fd ?? -1);
  }

  async setVringCall(index: number, event: EventFd | null): Promise<void> {
    this.#ring(index);
    await this.unchecked.setVringCall(index, event?.fd ?? -1);
  }

  async setVringErr(index: number, event: EventFd | null): Promise<void> {
    this.#ring(index);
    await this.unchecked.setVringErr(index, event?.fd ?? -1);
  }

  async setVringEndian(index: number, endian: 0 | 1): Promise<void> {
    this.#ring(index);
    await this.unchecked.setVringEndian(index, endian);
  }

  getVringEndian(index: number): Promise<number> {
    return this.unchecked.getVringEndian(index);
  }

  /** Microseconds the worker polls for more before it sleeps; keep 0 with post-copy. */
  async setVringBusyloopTimeout(index: number, microseconds: number): Promise<void> {
    this.#ring(index);
    await this.unchecked.setVringBusyloopTimeout(index, microseconds);
  }

  getVringBusyloopTimeout(index: number): Promise<number> {
    return this.unchecked.getVringBusyloopTimeout(index);
  }

  /** Attaches a tap (or a bound AF_PACKET socket), or detaches with null. A failed attach keeps the backend before. */
  async setBackend(index: number, backend: Attachable | null): Promise<void> {
    const ring = this.#ring(index);
    if (backend === null) {
      await this.unchecked.setBackend(index, -1);
      ring.attached = false;
      return;
    }
    if ((this.#features & LOG_ALL) !== 0n || logsUsedRing(ring.addresses)) {
      this.#requireLog('VHOST_NET_SET_BACKEND');
      if (this.#log !== null) this.#requireCover(this.#log, this.#loggedEnd(), 'VHOST_NET_SET_BACKEND');
    }
    await this.unchecked.setBackend(index, backend.fd);
    ring.attached = true;
  }

  /** Not offered by vhost-net up to now; here because the number space is shared. */
  newWorker(): Promise<number> {
    return this.unchecked.newWorker();
  }

  async freeWorker(workerId: number): Promise<void> {
    await this.unchecked.freeWorker(workerId);
  }

  async attachVringWorker(index: number, workerId: number): Promise<void> {
    await this.unchecked.attachVringWorker(index, workerId);
  }

  getVringWorker(index: number): Promise<number> {
    return this.unchecked.getVringWorker(index);
  }

  /** Closes after running calls have returned; the kernel detaches both rings by itself. Idempotent. */
  async close(): Promise<void> {
    await this.unchecked.close();
    this.#forget();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }
}

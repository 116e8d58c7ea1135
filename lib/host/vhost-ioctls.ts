/**
 * Every ioctl of /dev/vhost-net, one method each, with nothing but types in between: what the kernel refuses is thrown, what it lets
 * through goes through. `VhostNet` adds the rules that the kernel does not enforce.
 */
import { closedError, systemError } from '../errors';
import { type MappingHandle, native, type U64, type VhostHandle } from '../native';
import { kernelCall, type Observed } from '../trace/kernel-call';
import type { TraceArguments } from '../trace/trace';

/** struct vhost_vring_addr without its index; HVAs, but for logGuestAddr, a GPA. */
export interface RawVringAddr {
  flags: number;
  desc: U64;
  used: U64;
  avail: U64;
  logGuestAddr: U64;
}

export class VhostIoctls {
  readonly path: string;
  readonly #handle: VhostHandle;
  readonly #observed: Observed;
  readonly #native = native();
  #closed = false;

  constructor(handle: VhostHandle, path: string, observed: Observed) {
    this.#handle = handle;
    this.path = path;
    this.#observed = observed;
  }

  get closed(): boolean {
    return this.#closed;
  }

  /** The descriptor's number. */
  get fd(): number {
    if (this.#closed) throw closedError('VhostNet');
    return this.#native.vhostFdNumber(this.#handle);
  }

  /** The only way into the kernel: traced, subject to the fault plan, errors in one shape. */
  async #call<T>(
    name: string,
    args: TraceArguments,
    skipped: T,
    run: (vhost: VhostHandle) => Promise<T | number>,
  ): Promise<T> {
    if (this.#closed) throw closedError('VhostNet');
    const fd = this.#native.vhostFdNumber(this.#handle);
    const result = await kernelCall<T>(this.#observed, name, fd, args, skipped, () => run(this.#handle));
    if (typeof result === 'number' && result < 0) {
      if (this.#closed) throw closedError('VhostNet');
      throw systemError(result, name, this.path);
    }
    return result as T;
  }

  setOwner(): Promise<number> {
    return this.#call('VHOST_SET_OWNER', {}, 0, (vhost) => this.#native.vhostSetOwner(vhost));
  }

  resetOwner(): Promise<number> {
    return this.#call('VHOST_RESET_OWNER', {}, 0, (vhost) => this.#native.vhostResetOwner(vhost));
  }

  getFeatures(): Promise<bigint> {
    return this.#call<bigint>('VHOST_GET_FEATURES', {}, 0n, (vhost) => this.#native.vhostGetFeatures(vhost));
  }

  setFeatures(features: bigint): Promise<number> {
    return this.#call('VHOST_SET_FEATURES', { features }, 0, (vhost) => this.#native.vhostSetFeatures(vhost, features));
  }

  getFeaturesArray(): Promise<[bigint, bigint]> {
    return this.#call<[bigint, bigint]>('VHOST_GET_FEATURES_ARRAY', {}, [0n, 0n], (vhost) =>
      this.#native.vhostGetFeaturesArray(vhost),
    );
  }

  setFeaturesArray(word0: bigint, word1: bigint): Promise<number> {
    return this.#call('VHOST_SET_FEATURES_ARRAY', { word0, word1 }, 0, (vhost) =>
      this.#native.vhostSetFeaturesArray(vhost, word0, word1),
    );
  }

  getBackendFeatures(): Promise<bigint> {
    return this.#call<bigint>('VHOST_GET_BACKEND_FEATURES', {}, 0n, (vhost) =>
      this.#native.vhostGetBackendFeatures(vhost),
    );
  }

  setBackendFeatures(features: bigint): Promise<number> {
    return this.#call('VHOST_SET_BACKEND_FEATURES', { features }, 0, (vhost) =>
      this.#native.vhostSetBackendFeatures(vhost, features),
    );
  }

  setForkFromOwner(value: number): Promise<number> {
    return this.#call('VHOST_SET_FORK_FROM_OWNER', { value }, 0, (vhost) =>
      this.#native.vhostSetForkFromOwner(vhost, value),
    );
  }

  getForkFromOwner(): Promise<number> {
    return this.#call('VHOST_GET_FORK_FROM_OWNER', {}, 0, (vhost) => this.#native.vhostGetForkFromOwner(vhost));
  }

  /** @param regions gpa, size, hva of each, one after the other. */
  setMemTable(regions: U64[], mappings: MappingHandle[], padding = 0): Promise<number> {
    return this.#call('VHOST_SET_MEM_TABLE', { regions, padding }, 0, (vhost) =>
      this.#native.vhostSetMemTable(vhost, regions, mappings, padding),
    );
  }

  setLogBase(hva: U64, mapping: MappingHandle | null): Promise<number> {
    return this.#call('VHOST_SET_LOG_BASE', { hva }, 0, (vhost) => this.#native.vhostSetLogBase(vhost, hva, mapping));
  }

  setLogFd(fd: number): Promise<number> {
    return this.#call('VHOST_SET_LOG_FD', { fd }, 0, (vhost) => this.#native.vhostSetLogFd(vhost, fd));
  }

  setVringNum(index: number, num: number): Promise<number> {
    return this.#call('VHOST_SET_VRING_NUM', { index, num }, 0, (vhost) =>
      this.#native.vhostSetVringNum(vhost, index, num),
    );
  }

  setVringBase(index: number, num: number): Promise<number> {
    return this.#call('VHOST_SET_VRING_BASE', { index, num }, 0, (vhost) =>
      this.#native.vhostSetVringBase(vhost, index, num),
    );
  }

  getVringBase(index: number): Promise<number> {
    return this.#call('VHOST_GET_VRING_BASE', { index }, 0, (vhost) => this.#native.vhostGetVringBase(vhost, index));
  }

  setVringAddr(index: number, { flags, desc, used, avail, logGuestAddr }: RawVringAddr): Promise<number> {
    return this.#call('VHOST_SET_VRING_ADDR', { index, flags, desc, used, avail, logGuestAddr }, 0, (vhost) =>
      this.#native.vhostSetVringAddr(vhost, index, flags, desc, used, avail, logGuestAddr),
    );
  }

  setVringKick(index: number, fd: number): Promise<number> {
    return this.#call('VHOST_SET_VRING_KICK', { index, fd }, 0, (vhost) =>
      this.#native.vhostSetVringKick(vhost, index, fd),
    );
  }

  setVringCall(index: number, fd: number): Promise<number> {
    return this.#call('VHOST_SET_VRING_CALL', { index, fd }, 0, (vhost) =>
      this.#native.vhostSetVringCall(vhost, index, fd),
    );
  }

  setVringErr(index: number, fd: number): Promise<number> {
    return this.#call('VHOST_SET_VRING_ERR', { index, fd }, 0, (vhost) =>
      this.#native.vhostSetVringErr(vhost, index, fd),
    );
  }

  setVringEndian(index: number, num: number): Promise<number> {
    return this.#call('VHOST_SET_VRING_ENDIAN', { index, num }, 0, (vhost) =>
      this.#native.vhostSetVringEndian(vhost, index, num),
    );
  }

  getVringEndian(index: number): Promise<number> {
    return this.#call('VHOST_GET_VRING_ENDIAN', { index }, 0, (vhost) =>
      this.#native.vhostGetVringEndian(vhost, index),
    );
  }

  setVringBusyloopTimeout(index: number, microseconds: number): Promise<number> {
    return this.#call('VHOST_SET_VRING_BUSYLOOP_TIMEOUT', { index, microseconds }, 0, (vhost) =>
      this.#native.vhostSetVringBusyloopTimeout(vhost, index, microseconds),
    );
  }

  getVringBusyloopTimeout(index: number): Promise<number> {
    return this.#call('VHOST_GET_VRING_BUSYLOOP_TIMEOUT', { index }, 0, (vhost) =>
      this.#native.vhostGetVringBusyloopTimeout(vhost, index),
    );
  }

  setBackend(index: number, fd: number): Promise<number> {
    return this.#call('VHOST_NET_SET_BACKEND', { index, fd }, 0, (vhost) =>
      this.#native.vhostNetSetBackend(vhost, index, fd),
    );
  }

  newWorker(): Promise<number> {
    return this.#call('VHOST_NEW_WORKER', {}, 0, (vhost) => this.#native.vhostNewWorker(vhost));
  }

  freeWorker(workerId: number): Promise<number> {
    return this.#call('VHOST_FREE_WORKER', { workerId }, 0, (vhost) => this.#native.vhostFreeWorker(vhost, workerId));
  }

  attachVringWorker(index: number, workerId: number): Promise<number> {
    return this.#call('VHOST_ATTACH_VRING_WORKER', { index, workerId }, 0, (vhost) =>
      this.#native.vhostAttachVringWorker(vhost, index, workerId),
    );
  }

  getVringWorker(index: number): Promise<number> {
    return this.#call('VHOST_GET_VRING_WORKER', { index }, 0, (vhost) =>
      this.#native.vhostGetVringWorker(vhost, index),
    );
  }

  /** Any request with any argument bytes (or null), which the answer overwrites. */
  ioctl(request: number, argument: Uint8Array | null): Promise<number> {
    const name = `0x${request.toString(16).padStart(8, '0')}`;
    return this.#call(name, { bytes: argument?.length ?? null }, 0, (vhost) =>
      this.#native.vhostIoctl(vhost, request, argument),
    );
  }

  /** Closes after running calls have returned; the kernel detaches what is attached. Idempotent. */
  async close(): Promise<void> {
    if (this.#closed) return;
    this.#closed = true;
    const fd = this.#native.vhostFdNumber(this.#handle);
    await kernelCall(this.#observed, 'close', fd, {}, 0, () => this.#native.vhostClose(this.#handle));
  }
}

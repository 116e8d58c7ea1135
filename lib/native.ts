/**
 * Finds and types the addon: the only place that loads it.
 *
 * Native functions carry no policy. They answer a value, or a negative errno, and never throw for what the kernel says; a wrong
 * JavaScript type throws TypeError. Functions that can sleep in the kernel run on the thread pool and answer a promise of the same.
 */
import { existsSync } from 'node:fs';
import { dirname, join } from 'node:path';

declare const handle: unique symbol;
/** An owned file descriptor: close-on-exec, closed by `fdClose`, by the garbage collector or at the end of its environment. */
export type FdHandle = { readonly [handle]: 'fd' };
/** A reference-counted mmap between two guard pages: unmapped when the last of its holders (handle, buffers, vhost devices) lets go. */
export type MappingHandle = { readonly [handle]: 'mapping' };
/** An open /dev/vhost-net, with a reference to every mapping the kernel was told of, released only after its descriptor is closed. */
export type VhostHandle = { readonly [handle]: 'vhost' };
/** A libuv poll on a descriptor of which it holds a reference. */
export type PollHandle = { readonly [handle]: 'poll' };
/** Guest memory for the page part of a migration: holds its mappings and files until it is closed and no call is under way. */
export type PageStoreHandle = { readonly [handle]: 'page-store' };
/** One page connection over a stream socket, frame numbers and half-sent frames included. Refers to its descriptor until it is closed. */
export type PageLinkHandle = { readonly [handle]: 'page-link' };
/** A negative errno. */
export type Errno = number;
/** An unsigned 64-bit value; numbers must be safe integers. */
export type U64 = number | bigint;

export interface NativeAddon {
  // Descriptors
  /** Takes ownership of a descriptor of this process and sets FD_CLOEXEC. -EBADF. */
  fdAdopt(fd: number): FdHandle | Errno;
  /** A second descriptor of the same open file (F_DUPFD_CLOEXEC). */
  fdDup(fd: FdHandle): FdHandle | Errno;
  /** open(2) with O_CLOEXEC added. */
  fdOpen(path: string, flags: number): FdHandle | Errno;
  /** The same on a thread inside a network namespace (null: this one): for files of /proc that belong to it. */
  netnsOpen(netns: string | null, path: string, flags: number): Promise<FdHandle | Errno>;
  /** The number, for passing on; -EBADF once closed. */
  fdNumber(fd: FdHandle): number;
  /** The number, which the caller closes from now on; -EBUSY while a call or a poll on it runs. */
  fdRelease(fd: FdHandle): number;
  /** Idempotent. The descriptor is closed now, or when the last running call on it returns. */
  fdClose(fd: FdHandle): number;
  /** fdClose on the thread pool, for descriptors whose close sleeps (a tap takes its interface down): resolves when it is closed. */
  fdCloseAsync(fd: FdHandle): Promise<number>;
  /** Sets or clears O_NONBLOCK of the open file, which all its descriptors share. For adopted taps: framesRead must not block. */
  fdSetNonblocking(fd: FdHandle, on: boolean): number;

  // Memory
  /** memfd_create, ftruncate, then F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL. hugePageSize 0, 2 MiB or 1 GiB in bytes. */
  memfdCreate(name: string, size: number, hugePageSize: number): FdHandle | Errno;
  /**
   * Maps `length` bytes of fd (or anonymous memory when null) between two PROT_NONE guard pages, MAP_SHARED for descriptors.
   * hugePageSize aligns the address. `prot` is PROT_READ | PROT_WRITE bits.
   */
  mappingCreate(
    fd: FdHandle | null,
    offset: number,
    length: number,
    hugePageSize: number,
    prot: number,
  ): MappingHandle | Errno;
  /** HVA of the first byte. 0 after close. */
  mappingAddress(mapping: MappingHandle): number;
  /**
   * An external ArrayBuffer over the mapping, holding a reference of its own. -EINVAL after close. Throws ERR_BUFFER_TOO_LARGE above
   * Node 20's 4 GiB.
   */
  mappingBuffer(mapping: MappingHandle): ArrayBuffer | Errno;
  /** Detaches every buffer made by mappingBuffer and drops the handle's reference. Idempotent. */
  mappingClose(mapping: MappingHandle): number;
  /** madvise(2) on a range of the mapping. */
  mappingAdvise(mapping: MappingHandle, offset: number, length: number, advice: number): number;
  /** How many mappings of this process are still mapped (leak tests). */
  mappingsLive(): number;
  /** Data ranges of a memfd as [offset, length, offset, length...] by SEEK_DATA / SEEK_HOLE within [from, to). */
  memfdDataRanges(fd: FdHandle, from: number, to: number): number[] | Errno;
  /** F_GET_SEALS: F_SEAL_* bits of a memfd; -EINVAL for other files. */
  fdSeals(fd: FdHandle): number;
  /** pread(2) into `target` without mapping or allocating holes. Bytes read, or -errno. */
  fdPread(fd: FdHandle, target: Uint8Array, position: number): number;

  // eventfd
  eventFdCreate(initial: number, flags: number): FdHandle | Errno;
  /** Adds 1. 0 or -errno. */
  eventFdSignal(fd: FdHandle): number;
  /** Reads the counter: its value, or -EAGAIN. */
  eventFdDrain(fd: FdHandle): number;

  // Readiness
  /** Calls back with (status, events) while readable (1), writable (2), disconnected (4), prioritized (8). */
  pollStart(fd: FdHandle, events: number, callback: (status: number, events: number) => void): PollHandle | Errno;
  /** Ends the callbacks for good. Idempotent. */
  pollStop(poll: PollHandle): void;
  pollRef(poll: PollHandle, ref: boolean): void;

  // Sockets
  /**
   * A non-blocking socket of AF_UNIX, AF_INET or AF_INET6 and a type such as SOCK_STREAM, which belongs to the network namespace at
   * `netns` (null: this process's own).
   */
  socketCreate(netns: string | null, family: number, type: number): Promise<FdHandle | Errno>;
  /** Two AF_UNIX sockets that are connected with each other. */
  socketPair(): [FdHandle, FdHandle] | Errno;
  /**
   * Names are literal addresses with a port or, for AF_UNIX, a path or `@name` with port 0. -EINVAL for a name of another family,
   * -ENAMETOOLONG above 107 bytes.
   */
  socketBind(fd: FdHandle, host: string, port: number): number;
  /** 0 connected, -EINPROGRESS: writable when it is or failed (SO_ERROR). AF_UNIX: -EAGAIN when the listener's queue is full. */
  socketConnect(fd: FdHandle, host: string, port: number): number;
  socketListen(fd: FdHandle, backlog: number): number;
  /** A non-blocking connection, or -EAGAIN when none waits. */
  socketAccept(fd: FdHandle): FdHandle | Errno;
  /** An empty host for a socket without a name. */
  socketLocalName(fd: FdHandle): { host: string; port: number } | Errno;
  socketPeerName(fd: FdHandle): { host: string; port: number } | Errno;
  /** Options that are an int. */
  socketGetOption(fd: FdHandle, level: number, option: number): number;
  socketSetOption(fd: FdHandle, level: number, option: number, value: number): number;
  /**
   * One sendmsg(2) of at least one byte with up to 253 descriptors beside the first. Bytes taken: the descriptors went along even when
   * they are fewer than given. -EAGAIN.
   */
  socketSendDescriptors(fd: FdHandle, bytes: Uint8Array, fds: FdHandle[]): number;
  /**
   * One recvmsg(2): 0 bytes at the end of the stream. -EMSGSIZE when more than `most` (at most 253) descriptors came, -EMFILE when this
   * process had no number for one: all of that message are closed then.
   */
  socketReceiveDescriptors(fd: FdHandle, target: Uint8Array, most: number): { bytes: number; fds: FdHandle[] } | Errno;

  // /dev/vhost-net: one function per ioctl, named after it
  vhostOpen(path: string): Promise<VhostHandle | Errno>;
  /** Takes ownership of a descriptor opened by somebody else. */
  vhostAdopt(fd: number): VhostHandle | Errno;
  vhostFdNumber(vhost: VhostHandle): number;
  /** Closes after running calls have returned, then releases the mappings. Idempotent. */
  vhostClose(vhost: VhostHandle): Promise<number>;
  vhostSetOwner(vhost: VhostHandle): Promise<number>;
  vhostResetOwner(vhost: VhostHandle): Promise<number>;
  vhostGetFeatures(vhost: VhostHandle): Promise<bigint | Errno>;
  vhostSetFeatures(vhost: VhostHandle, features: bigint): Promise<number>;
  /** Two u64 words; -ENOTTY and others where the kernel has no arrays. */
  vhostGetFeaturesArray(vhost: VhostHandle): Promise<[bigint, bigint] | Errno>;
  vhostSetFeaturesArray(vhost: VhostHandle, word0: bigint, word1: bigint): Promise<number>;
  vhostGetBackendFeatures(vhost: VhostHandle): Promise<bigint | Errno>;
  vhostSetBackendFeatures(vhost: VhostHandle, features: bigint): Promise<number>;
  vhostSetForkFromOwner(vhost: VhostHandle, value: number): Promise<number>;
  vhostGetForkFromOwner(vhost: VhostHandle): Promise<number>;
  /**
   * Regions as [gpa, size, hva, gpa, size, hva...]; `padding` is the header's padding word (0 but in tests). On success the device
   * holds the given mappings instead of those of the table before, which are released after the ioctl has returned.
   */
  vhostSetMemTable(vhost: VhostHandle, regions: U64[], mappings: MappingHandle[], padding: number): Promise<number>;
  /** HVA of the bitmap; on success the device holds `mapping` (null: none) instead of the log before. */
  vhostSetLogBase(vhost: VhostHandle, hva: U64, mapping: MappingHandle | null): Promise<number>;
  /** Descriptor number, -1 removes. */
  vhostSetLogFd(vhost: VhostHandle, fd: number): Promise<number>;
  vhostSetVringNum(vhost: VhostHandle, index: number, num: number): Promise<number>;
  vhostSetVringBase(vhost: VhostHandle, index: number, num: number): Promise<number>;
  vhostGetVringBase(vhost: VhostHandle, index: number): Promise<number>;
  vhostSetVringAddr(
    vhost: VhostHandle,
    index: number,
    flags: number,
    desc: U64,
    used: U64,
    avail: U64,
    logGuestAddr: U64,
  ): Promise<number>;
  vhostSetVringKick(vhost: VhostHandle, index: number, fd: number): Promise<number>;
  vhostSetVringCall(vhost: VhostHandle, index: number, fd: number): Promise<number>;
  vhostSetVringErr(vhost: VhostHandle, index: number, fd: number): Promise<number>;
  vhostSetVringEndian(vhost: VhostHandle, index: number, num: number): Promise<number>;
  vhostGetVringEndian(vhost: VhostHandle, index: number): Promise<number>;
  vhostSetVringBusyloopTimeout(vhost: VhostHandle, index: number, microseconds: number): Promise<number>;
  vhostGetVringBusyloopTimeout(vhost: VhostHandle, index: number): Promise<number>;
  vhostNetSetBackend(vhost: VhostHandle, index: number, fd: number): Promise<number>;
  vhostNewWorker(vhost: VhostHandle): Promise<number>;
  vhostFreeWorker(vhost: VhostHandle, workerId: number): Promise<number>;
  vhostAttachVringWorker(vhost: VhostHandle, index: number, workerId: number): Promise<number>;
  vhostGetVringWorker(vhost: VhostHandle, index: number): Promise<number>;
  /** Any request with any argument bytes (or null), written back into `argument`: for probing and hostile tests. */
  vhostIoctl(vhost: VhostHandle, request: number, argument: Uint8Array | null): Promise<number>;

  // Taps
  /**
   * Opens `device` and sets the interface up (TUNSETIFF with `flags`) inside the network namespace `netns` (a path such as
   * /run/netns/x, or null for the current one), on a thread of its own so that no other thread changes namespace. An empty name or
   * "tap%d" lets the kernel choose.
   */
  tapOpen(
    device: string,
    netns: string | null,
    name: string,
    flags: number,
  ): Promise<{ fd: FdHandle; name: string } | Errno>;
  tunGetIff(fd: FdHandle): { name: string; flags: number } | Errno;
  tunGetFeatures(fd: FdHandle): number;
  tunSetPersist(fd: FdHandle, on: number): Promise<number>;
  tunSetOwner(fd: FdHandle, uid: number): Promise<number>;
  tunSetGroup(fd: FdHandle, gid: number): Promise<number>;
  tunSetOffload(fd: FdHandle, flags: number): Promise<number>;
  tunSetTxFilter(fd: FdHandle, flags: number, macs: Uint8Array): Promise<number>;
  tunGetSndbuf(fd: FdHandle): number;
  tunSetSndbuf(fd: FdHandle, bytes: number): Promise<number>;
  /** Classic BPF, 8 bytes an instruction (struct sock_filter). */
  tunAttachFilter(fd: FdHandle, program: Uint8Array): Promise<number>;
  tunDetachFilter(fd: FdHandle): Promise<number>;
  tunGetFilter(fd: FdHandle): Promise<Uint8Array | Errno>;
  tunGetVnetHdrSz(fd: FdHandle): number;
  tunSetVnetHdrSz(fd: FdHandle, bytes: number): Promise<number>;
  tunGetVnetLe(fd: FdHandle): number;
  tunSetVnetLe(fd: FdHandle, on: number): Promise<number>;
  tunGetVnetBe(fd: FdHandle): number;
  tunSetVnetBe(fd: FdHandle, on: number): Promise<number>;
  tunSetQueue(fd: FdHandle, flags: number): Promise<number>;
  tunSetSteeringEbpf(fd: FdHandle, programFd: number): Promise<number>;
  tunSetFilterEbpf(fd: FdHandle, programFd: number): Promise<number>;
  tunSetCarrier(fd: FdHandle, on: number): Promise<number>;
  /** The tap's namespace as a descriptor. */
  tunGetDevNetns(fd: FdHandle): FdHandle | Errno;
  tapGetHwaddr(fd: FdHandle): Uint8Array | Errno;
  tapSetHwaddr(fd: FdHandle, mac: Uint8Array): Promise<number>;
  /**
   * Interface requests that need a socket of the interface's own namespace. `what` is SIOCSIFTXQLEN, SIOCGIFTXQLEN, SIOCSIFMTU,
   * SIOCGIFMTU, SIOCSIFFLAGS, SIOCGIFFLAGS or SIOCGIFINDEX; answers the value for the getters, 0 for the setters.
   */
  netdevIoctl(netns: string | null, name: string, what: number, value: number): Promise<number>;
  /**
   * Reads up to `max` frames until -EAGAIN: frame i lies at i * stride of `arena`, its length in lengths[i]. Answers the count, or
   * -errno when not even one could be read.
   */
  framesRead(fd: FdHandle, arena: Uint8Array, stride: number, max: number, lengths: Int32Array): number;
  /** Writes `count` frames likewise, stopping at the first that fails. Answers how many were written, or -errno when none was. */
  framesWrite(fd: FdHandle, arena: Uint8Array, stride: number, count: number, lengths: Int32Array): number;

  // Dirty pages
  /**
   * Takes a log's bits and clears them, word by word with an atomic exchange (words that are 0 are only looked at), and ORs them into
   * `target`. Length is the shorter of both. Answers how many bits were set in `target` that were not before.
   */
  dirtyLogTake(log: MappingHandle, target: BigUint64Array): number;
  /** Bits set. */
  bitmapCount(bitmap: BigUint64Array): number;
  /** The index of every set bit from bit `from` on, into `out`, until it is full: answers how many. */
  bitmapIndexes(bitmap: BigUint64Array, from: number, out: Uint32Array): number;

  // Pages
  /** 1 if the range is all zero bytes, else 0. */
  rangeIsZero(memory: Uint8Array): number;
  /** The same hash for every 4 KiB page of `memory`, now, into out[first...]. 0 or -EINVAL. */
  pageHashesOf(memory: Uint8Array, out: BigUint64Array, first: number): number;
  /** A 64-bit hash of every 4 KiB page of the mapping's file content, holes as zero pages without allocating them. */
  pageHashes(fd: FdHandle, offset: number, length: number, out: BigUint64Array): Promise<number>;

  // Pages of a migration stream: docs/migration-stream.md, PAGES. Runs are [first page, pages, first page, pages...]; violations are
  // numbers that lib/migration/page-frame.ts knows: [code, offset in the payload, found, wanted], code 0 for none.
  /** Regions as [gpa, size, gpa, size...], with the mapping of each and the file behind it. -EINVAL when they overlap or do not fit. */
  pageStoreCreate(regions: number[], mappings: MappingHandle[], fds: FdHandle[]): PageStoreHandle | Errno;
  /** Takes over what another store has hashed, of regions that are in both; while no call on either runs. 0 or -errno. */
  pageStoreKeep(store: PageStoreHandle, before: PageStoreHandle): number;
  /**
   * A hash for each of out.length pages from `first` on, region after region, of what was unpacked; that of a zero page where nothing came. 0,
   * or -EINVAL for more than there are.
   */
  pageStoreHashes(store: PageStoreHandle, first: number, out: BigUint64Array): number;
  /** Idempotent. */
  pageStoreClose(store: PageStoreHandle): number;
  /**
   * Copies pages into a PAGES payload inside of `target` (at least PAGES_MAX_PAYLOAD bytes): answers [where it begins, bytes of its head,
   * bytes of data, pages, zero pages]. Pages outside of the store are left out. -E2BIG for more than fit one payload.
   */
  pagesPack(store: PageStoreHandle, runs: Uint32Array, round: number, target: Uint8Array): number[] | Errno;
  /**
   * Checks a payload, then puts it into the store; `decoded` has the data of one that is not plain. Answers [0, pages, zero pages, 0], or a
   * violation with nothing written. The head's checksum is the caller's.
   */
  pagesUnpack(store: PageStoreHandle, payload: Uint8Array, decoded: Uint8Array | null, round: number): number[] | Errno;
  /** `seed` of the stream's checksums, and the numbers of the next frame each way. The descriptor is a stream socket, blocking or not. */
  pageLinkCreate(fd: FdHandle, seed: number, nextSent: number, nextReceived: number): PageLinkHandle | Errno;
  /** Idempotent; a running call ends by itself, within its budget. */
  pageLinkClose(link: PageLinkHandle): number;
  /**
   * Packs and sends `runs`; empty ones go on with those before. Comes back after `budget` bytes, or when the socket takes nothing for 2 ms:
   * [status, pages, zero pages, bytes], status 0 all sent, 1 budget used up, 2 socket full. -EBUSY while another call is under way.
   */
  pageLinkSend(
    link: PageLinkHandle,
    store: PageStoreHandle,
    runs: Uint32Array,
    round: number,
    budget: number,
  ): Promise<number[] | Errno>;
  /** Queues one frame that is not PAGES, for the next pageLinkSend. -EBUSY while pages are left. */
  pageLinkFrame(link: PageLinkHandle, type: number, payload: Uint8Array): number;
  /**
   * Receives PAGES of `round` into the store, to the same bounds: [status, pages, zero pages, bytes, then a violation, then the number of
   * the next frame or of the one in question], status 1 budget used up, 2 nothing there, 3 another frame came, 4 the stream ended, 5 a violation.
   */
  pageLinkReceive(
    link: PageLinkHandle,
    store: PageStoreHandle,
    round: number,
    budget: number,
  ): Promise<number[] | Errno>;
  /** After status 3 header and payload, as far as the header can be followed; after 4 what came of a frame. */
  pageLinkTake(link: PageLinkHandle): Uint8Array | Errno;

  // Who wrote: PAGEMAP_SCAN (Linux 6.7+)
  /**
   * Registers the mapping with a write-protecting userfaultfd in asynchronous mode and protects it, so that every later write through
   * this mapping (and only through it) is remembered. -EINVAL or -ENOTTY where the kernel cannot.
   */
  writeWitnessStart(mapping: MappingHandle): FdHandle | Errno;
  /** Takes the pages written since the last call and protects them again: sets bit (firstPage + i) of target. Bits newly set. */
  writeWitnessTake(mapping: MappingHandle, target: BigUint64Array, firstPage: number): Promise<number>;

  // Time and threads
  /** membarrier(MEMBARRIER_CMD_GLOBAL): every CPU has passed through the scheduler when it resolves. */
  membarrier(): Promise<number>;
  /** CLOCK_MONOTONIC in microseconds, the same on every process of the host. */
  monotonicMicros(): number;
}

let loaded: NativeAddon | undefined;

/** Where package.json and binding.gyp are. */
export function packageRoot(): string {
  let folder = __dirname;
  while (!existsSync(join(folder, 'binding.gyp'))) {
    const parent = dirname(folder);
    if (parent === folder) throw new Error(`no package root above ${__dirname}`);
    folder = parent;
  }
  return folder;
}

/** The addon, loaded at the first call so that pure parts of the library work where it was not built. */
export function native(): NativeAddon {
  if (loaded === undefined) {
    const load = require('node-gyp-build') as (root: string) => NativeAddon;
    loaded = load(packageRoot());
  }
  return loaded;
}

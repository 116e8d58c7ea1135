/** One region of guest memory: a memfd, mapped once for this process and, when asked for, a second time for devices. */
import { constants } from 'node:buffer';
import { fstatSync, statfsSync } from 'node:fs';
import { F_SEAL_SHRINK } from '../constants/fcntl';
import { check, invalidArgument, VhostError } from '../errors';
import { type FdHandle, type MappingHandle, native } from '../native';
import { type GuestAddress, gpa, type HostAddress, hva, PAGE_SIZE } from './address';

const PROT_READ = 1;
const PROT_WRITE = 2;
const EINVAL = -22;
/** include/uapi/linux/magic.h */
const HUGETLBFS_MAGIC = 0x958458f6;

export interface RegionSpec {
  /** Guest physical address, a multiple of 4,096. */
  gpa: number;
  /** Bytes, a multiple of 4,096 and of the huge page size. */
  size: number;
  /** Bytes of a huge page; 0 or absent for normal pages. */
  hugePageSize?: number;
}

export interface AdoptedRegionSpec extends RegionSpec {
  /** A memfd of at least `size` bytes that nobody can shrink. */
  fd: FdHandle;
}

/** A region that another process shares by descriptor, as a vhost-user front end does. */
export interface SharedRegionSpec extends RegionSpec {
  /** A memfd or another file of memory, open for reading and writing, at least `offset + size` bytes long. */
  fd: FdHandle;
  /** Of the region's first byte in the file, a multiple of 4,096. */
  offset: number;
}

function hex(address: number): string {
  return address < 0 ? `-${hex(-address)}` : `0x${address.toString(16)}`;
}

function refuse(message: string, hint?: string): never {
  throw new VhostError('VHOST_ERR_MEMORY_TABLE', message, hint === undefined ? {} : { hint });
}

/** Throws VHOST_ERR_MEMORY_TABLE with value and limit unless the region can be. */
export function checkRegion({ gpa: at, size, hugePageSize = 0 }: RegionSpec): void {
  const where = `region at GPA ${hex(at)}`;
  if (!Number.isSafeInteger(at) || at < 0) refuse(`${where}: not an address from 0 to 2^53`);
  if (!Number.isSafeInteger(size) || size <= 0) refuse(`${where}: size ${size}, at least ${PAGE_SIZE}`);
  if (!Number.isSafeInteger(at + size)) refuse(`${where}: size ${size} ends beyond 2^53`);
  if (at % PAGE_SIZE !== 0) refuse(`${where}: not a multiple of ${PAGE_SIZE}`);
  if (size % PAGE_SIZE !== 0) refuse(`${where}: size ${size} is not a multiple of ${PAGE_SIZE}`);
  if (hugePageSize !== 0) {
    if (!(hugePageSize > PAGE_SIZE) || !Number.isInteger(Math.log2(hugePageSize))) {
      refuse(`${where}: huge pages of ${hugePageSize}, a power of two above ${PAGE_SIZE}`);
    }
    if (size % hugePageSize !== 0) {
      refuse(`${where}: size ${size} is not a multiple of its huge pages of ${hugePageSize}`);
    }
  }
  // Node 20: 4 GiB. Later ones: 2^53 - 1.
  if (size > constants.MAX_LENGTH) {
    refuse(
      `${where}: size ${size} above the ${constants.MAX_LENGTH} of one buffer`,
      'split the region in two that touch',
    );
  }
}

/** Throws VHOST_ERR_MEMORY_TABLE when two regions share an address. */
export function checkOverlap(regions: readonly RegionSpec[]): void {
  const sorted = [...regions].sort((a, b) => a.gpa - b.gpa);
  const show = (region: RegionSpec): string => `[${hex(region.gpa)}, ${hex(region.gpa + region.size)})`;
  for (let at = 1; at < sorted.length; at++) {
    const [low, high] = [sorted[at - 1]!, sorted[at]!];
    if (low.gpa + low.size > high.gpa) {
      refuse(`regions ${show(low)} and ${show(high)} overlap`, 'the kernel would take both and use either');
    }
  }
}

/**
 * Throws unless every descriptor can be the memory of its region, and of no other. A file that somebody can shrink would end this process
 * (SIGBUS) at the first access behind its new end, so the seal against it must be there; it can never be taken off. Looks only.
 */
export function checkDescriptors(specs: readonly AdoptedRegionSpec[]): void {
  const addon = native();
  const seen = new Set<FdHandle>();
  for (const { gpa: at, size, fd } of specs) {
    const where = `region at GPA ${hex(at)}`;
    if (seen.has(fd)) throw invalidArgument(`${where}: one descriptor for two regions`);
    seen.add(fd);
    const number = check(addon.fdNumber(fd), 'fcntl');
    const seals = addon.fdSeals(fd);
    if (seals === EINVAL)
      refuse(`${where}: descriptor ${number} is no memfd`, 'guest memory is a memfd (memfd_create)');
    if ((check(seals, 'fcntl') & F_SEAL_SHRINK) === 0) {
      refuse(`${where}: the memfd can be shrunk`, 'seal it with F_SEAL_SHRINK before it is passed on');
    }
    // After the seal was seen: what it is long enough for now, it stays long enough for.
    const { size: bytes } = fstatSync(number);
    if (bytes < size) refuse(`${where}: size ${size}, descriptor ${number} has ${bytes}`);
  }
}

/**
 * Throws VHOST_ERR_MEMORY_TABLE unless the descriptor is that of a file in which all of the region lies now. Unlike `checkDescriptors` it
 * takes files that can be shrunk, since front ends pass such: one that does it ends this process (SIGBUS).
 */
export function checkShared({ gpa: at, size, fd, offset }: SharedRegionSpec): void {
  const where = `region at GPA ${hex(at)}`;
  if (!Number.isSafeInteger(offset) || offset < 0 || !Number.isSafeInteger(offset + size)) {
    refuse(`${where}: offset ${offset}, from 0 to 2^53`);
  }
  if (offset % PAGE_SIZE !== 0) refuse(`${where}: offset ${offset} is not a multiple of ${PAGE_SIZE}`);
  const stats = fstatSync(check(native().fdNumber(fd), 'fcntl'));
  if (!stats.isFile()) refuse(`${where}: its descriptor is no file`, 'memory is shared as a memfd or a file');
  if (stats.size < offset + size) {
    refuse(`${where}: size ${size} at offset ${offset}, the file has ${stats.size} bytes`);
  }
}

/** Bytes of the pages that a file is mapped in: 4,096, or those of hugetlbfs. */
function mappingUnit(fd: FdHandle): number {
  const { type, bsize } = statfsSync(`/proc/self/fd/${check(native().fdNumber(fd), 'fcntl')}`);
  return type === HUGETLBFS_MAGIC ? bsize : PAGE_SIZE;
}

export class GuestRegion {
  readonly gpa: GuestAddress;
  /** Bytes. */
  readonly size: number;
  /** First address behind it. */
  readonly end: number;
  /** memfd of its content, from `offset` on. */
  readonly fd: FdHandle;
  readonly offset: number;
  readonly buffer: ArrayBuffer;
  /** The whole region, likewise u16 and u32. */
  readonly u8: Uint8Array;
  readonly u16: Uint16Array;
  readonly u32: Uint32Array;
  /** The mapping that devices are told of. */
  readonly mapping: MappingHandle;
  /** First byte of that mapping. */
  readonly hva: HostAddress;
  readonly #own: MappingHandle;

  /** @param lead bytes of the mappings before the region. */
  private constructor(
    spec: RegionSpec,
    fd: FdHandle,
    [own, device]: readonly [MappingHandle, MappingHandle],
    buffer: ArrayBuffer,
    offset: number,
    lead: number,
  ) {
    this.gpa = gpa(spec.gpa);
    this.size = spec.size;
    this.end = spec.gpa + spec.size;
    this.fd = fd;
    this.offset = offset;
    this.#own = own;
    this.mapping = device;
    this.hva = hva(native().mappingAddress(device) + lead);
    this.buffer = buffer;
    this.u8 = new Uint8Array(buffer, lead, spec.size);
    this.u16 = new Uint16Array(buffer, lead, spec.size / 2);
    this.u32 = new Uint32Array(buffer, lead, spec.size / 4);
  }

  /** A memfd for new memory, all zero. */
  static memfd(spec: RegionSpec): FdHandle {
    return check<FdHandle>(native().memfdCreate('guest-memory', spec.size, spec.hugePageSize ?? 0), 'memfd_create');
  }

  /** Maps `fd` from `offset` on, which is the region's from now on. A failure leaves nothing mapped and `fd` closed. */
  static map(spec: RegionSpec, fd: FdHandle, separate: boolean, offset = 0): GuestRegion {
    const addon = native();
    const mappings: MappingHandle[] = [];
    // A file of huge pages is mapped in whole ones, wherever in one of them the region begins.
    const lead = offset === 0 ? 0 : offset % mappingUnit(fd);
    const map = (): MappingHandle => {
      const mapping = check<MappingHandle>(
        addon.mappingCreate(fd, offset - lead, lead + spec.size, spec.hugePageSize ?? 0, PROT_READ | PROT_WRITE),
        'mmap',
      );
      mappings.push(mapping);
      return mapping;
    };
    try {
      const own = map();
      const device = separate ? map() : own;
      const buffer = check<ArrayBuffer>(addon.mappingBuffer(own), 'mmap');
      return new GuestRegion(spec, fd, [own, device], buffer, offset, lead);
    } catch (error) {
      for (const mapping of mappings) addon.mappingClose(mapping);
      addon.fdClose(fd);
      throw error;
    }
  }

  contains(at: number, length: number): boolean {
    return Number.isSafeInteger(at) && at >= this.gpa && length >= 0 && at + length <= this.end;
  }

  /** Views are detached; the memory goes when nobody refers to it any more. Idempotent. */
  close(): void {
    const addon = native();
    addon.mappingClose(this.#own);
    if (this.mapping !== this.#own) addon.mappingClose(this.mapping);
    addon.fdClose(this.fd);
  }
}

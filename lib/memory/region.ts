/** One region of guest memory: a memfd, mapped once for this process and, when asked for, a second time for devices. */
import { constants } from 'node:buffer';
import { fstatSync } from 'node:fs';
import { F_SEAL_SHRINK } from '../constants/fcntl';
import { check, invalidArgument, VhostError } from '../errors';
import { type FdHandle, type MappingHandle, native } from '../native';
import { type GuestAddress, gpa, type HostAddress, hva, PAGE_SIZE } from './address';

const PROT_READ = 1;
const PROT_WRITE = 2;
const EINVAL = -22;

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

export class GuestRegion {
  readonly gpa: GuestAddress;
  /** Bytes. */
  readonly size: number;
  /** First address behind it. */
  readonly end: number;
  /** memfd of its content. */
  readonly fd: FdHandle;
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

  private constructor(spec: RegionSpec, fd: FdHandle, own: MappingHandle, device: MappingHandle, buffer: ArrayBuffer) {
    this.gpa = gpa(spec.gpa);
    this.size = spec.size;
    this.end = spec.gpa + spec.size;
    this.fd = fd;
    this.#own = own;
    this.mapping = device;
    this.hva = hva(native().mappingAddress(device));
    this.buffer = buffer;
    this.u8 = new Uint8Array(buffer);
    this.u16 = new Uint16Array(buffer);
    this.u32 = new Uint32Array(buffer);
  }

  /** A memfd for new memory, all zero. */
  static memfd(spec: RegionSpec): FdHandle {
    return check<FdHandle>(native().memfdCreate('guest-memory', spec.size, spec.hugePageSize ?? 0), 'memfd_create');
  }

  /** Maps `fd`, which is the region's from now on. A failure leaves nothing mapped and `fd` closed. */
  static map(spec: RegionSpec, fd: FdHandle, separate: boolean): GuestRegion {
    const addon = native();
    const mappings: MappingHandle[] = [];
    const map = (): MappingHandle => {
      const mapping = check<MappingHandle>(
        addon.mappingCreate(fd, 0, spec.size, spec.hugePageSize ?? 0, PROT_READ | PROT_WRITE),
        'mmap',
      );
      mappings.push(mapping);
      return mapping;
    };
    try {
      const own = map();
      const device = separate ? map() : own;
      return new GuestRegion(spec, fd, own, device, check<ArrayBuffer>(addon.mappingBuffer(own), 'mmap'));
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

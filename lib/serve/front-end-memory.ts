/** Guest memory as a front end passes it: regions of its files, and where it has them in its own address space. */

import { closeAll } from '../descriptors';
import { VhostError } from '../errors';
import { type GuestAddress, gpa } from '../memory/address';
import { GuestMemory, type SharedRegionSpec } from '../memory/guest-memory';
import type { FdHandle } from '../native';
import type { WireRegion } from '../vhost-user/payload';

/** What the ring addresses of a front end are found by. */
interface Region {
  readonly gpa: number;
  readonly size: number;
  /** First byte in the front end's process. */
  readonly userAddr: bigint;
}

export class FrontEndMemory {
  /** What data paths are given. */
  readonly guest: GuestMemory;
  #regions: readonly Region[];

  private constructor(guest: GuestMemory, regions: readonly Region[]) {
    this.guest = guest;
    this.#regions = regions;
  }

  /**
   * Maps every region; `fds` are taken whatever happens. Throws VHOST_ERR_MEMORY_TABLE for regions that overlap, are not in whole pages, reach
   * over 2^53 or lie outside of their files, and the error of mmap(2).
   */
  static map(regions: readonly WireRegion[], fds: readonly FdHandle[]): FrontEndMemory {
    let specs: SharedRegionSpec[];
    try {
      if (regions.length === 0) throw new VhostError('VHOST_ERR_MEMORY_TABLE', 'a memory table without a region');
      specs = regions.map((region, index) => specOf(region, fds[index]!));
    } catch (error) {
      closeAll(fds);
      throw error;
    }
    return new FrontEndMemory(GuestMemory.share(specs), regions.map(regionOf));
  }

  get count(): number {
    return this.#regions.length;
  }

  /** Throws VHOST_ERR_MEMORY_TABLE when no region holds that address of the front end. */
  guestAddressOf(userAddr: bigint, what: string): GuestAddress {
    const region = this.#regions.find((one) => userAddr >= one.userAddr && userAddr < one.userAddr + BigInt(one.size));
    if (region === undefined) {
      throw new VhostError(
        'VHOST_ERR_MEMORY_TABLE',
        `the ${what} at the front end's address 0x${userAddr.toString(16)} is in none of its ${this.count} regions`,
      );
    }
    return gpa(region.gpa + Number(userAddr - region.userAddr));
  }

  /** First address behind all regions once that one is there too. Throws like `map` for an address that cannot be. */
  endWith(region: WireRegion): number {
    return Math.max(this.guest.end, number(region.guestAddr, 'address') + number(region.size, 'size'));
  }

  /** One more, while devices run. The descriptor is taken whatever happens. */
  async add(region: WireRegion, fd: FdHandle): Promise<void> {
    let spec: SharedRegionSpec;
    try {
      spec = specOf(region, fd);
    } catch (error) {
      closeAll([fd]);
      throw error;
    }
    await this.guest.addRegion(spec);
    this.#regions = [...this.#regions, regionOf(region)];
  }

  /** Whether there is a region of just that place and size. */
  has(region: WireRegion): boolean {
    return this.#find(region) !== undefined;
  }

  #find({ guestAddr, size, userAddr }: WireRegion): Region | undefined {
    return this.#regions.find(
      (one) => BigInt(one.gpa) === guestAddr && BigInt(one.size) === size && one.userAddr === userAddr,
    );
  }

  /** One less, while devices run; it must be there and not be the last. */
  async remove(wire: WireRegion): Promise<void> {
    const region = this.#find(wire)!;
    await this.guest.removeRegion(region.gpa);
    this.#regions = this.#regions.filter((one) => one !== region);
  }

  /** What a data path still refers to stays mapped until it lets go. Idempotent. */
  close(): void {
    this.guest.close();
  }
}

function specOf({ guestAddr, size, userAddr, mmapOffset }: WireRegion, fd: FdHandle): SharedRegionSpec {
  if (userAddr + size > 1n << 64n) {
    refuse(`0x${userAddr.toString(16)} with ${size} bytes`, "wraps around in the front end's address space");
  }
  return {
    gpa: number(guestAddr, 'address'),
    size: number(size, 'size'),
    offset: number(mmapOffset, 'offset'),
    fd,
  };
}

function regionOf({ guestAddr, size, userAddr }: WireRegion): Region {
  return { gpa: Number(guestAddr), size: Number(size), userAddr };
}

function number(value: bigint, what: string): number {
  if (value > BigInt(Number.MAX_SAFE_INTEGER)) refuse(`${what} 0x${value.toString(16)}`, 'is above 2^53');
  return Number(value);
}

function refuse(what: string, why: string): never {
  throw new VhostError('VHOST_ERR_MEMORY_TABLE', `a memory region: ${what} ${why}`);
}

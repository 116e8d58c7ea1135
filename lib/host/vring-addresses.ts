/** Where a vring and guest memory lie, in the words of the ioctls. */
import { VHOST_VRING_F_LOG } from '../constants/vhost';
import type { GuestAddress, HostAddress } from '../memory/address';
import type { MappingHandle } from '../native';

/** Where the three parts of a vring lie (HVAs) and where used ring writes are logged (GPA of the used ring). */
export interface VringAddresses {
  /** 0 or VHOST_VRING_F_LOG. */
  flags: number;
  desc: HostAddress;
  used: HostAddress;
  avail: HostAddress;
  logGuestAddr: GuestAddress;
}

/** A memory table as the kernel has it, to be put back when a later step fails. */
export interface MemTable {
  readonly regions: readonly number[];
  readonly mappings: readonly MappingHandle[];
  /** First byte behind the highest region. */
  readonly end: number;
}

/** Whether writes to the used ring are logged. */
export function logsUsedRing(addresses: VringAddresses | null): boolean {
  return addresses !== null && (addresses.flags & VHOST_VRING_F_LOG) !== 0;
}

/** First byte behind a used ring with its avail_event: 4 + 8 * size + 2 bytes. */
export function usedRingEnd(addresses: VringAddresses, size: number): number {
  return addresses.logGuestAddr + 6 + 8 * size;
}

/** What control queue and owner have made of a device beside what was negotiated: every data path serves it the same way. */
import type { ReceiveFilter } from '../net/receive-filter';

export interface PathSettings {
  /** Queue pairs in use, from the first on. */
  readonly activePairs: number;
  /** Frames the driver wants; null when it has no way to say so. */
  readonly receiveFilter: ReceiveFilter | null;
  /** Of the receive offloads (GUEST_ bits) that were acked, those that are on. */
  readonly guestOffloads: bigint;
  /** Down: no frame reaches the guest, and the host sees no carrier. */
  readonly linkUp: boolean;
}

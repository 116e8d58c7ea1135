/** What an inspection of a virtqueue is given and what it answers: plain data, fit for JSON. Addresses are hexadecimal text. */

/** What a virtio-net device uses a queue for. */
export type QueueRole = 'receive' | 'transmit' | 'control';

export interface InspectOptions {
  /** VIRTIO_RING_F_EVENT_IDX was negotiated. Default false. */
  eventIdx?: boolean;
  /** VIRTIO_RING_F_INDIRECT_DESC was negotiated. Default true. */
  indirect?: boolean;
  role?: QueueRole | undefined;
  /**
   * Whether a device serves the queue now. While it does, the position in the state may be older than the ring: of a split virtqueue the
   * used index then says the least that was taken.
   */
  running?: boolean | undefined;
  /** The used index up to which the driver has taken chains back, where it is known. Split virtqueues only. */
  usedSeen?: number | undefined;
  /** What the kick and call eventfds count, unread. */
  kicks?: number | undefined;
  calls?: number | undefined;
  /** Available chains that are listed; all are checked. Default 16. */
  limit?: number | undefined;
}

export type Place = { region: string; offset: number } | 'outside guest memory';

export interface InspectedDescriptor {
  /** In its table. */
  index: number;
  gpa: string;
  length: number;
  flags: string[];
  /** Where NEXT leads, or null. */
  next: number | null;
  place: Place;
  table: 'direct' | 'indirect';
}

export interface InspectedChain {
  /** Of a split virtqueue its available index, of a packed one the index of its first descriptor. */
  position: number;
  /** Of a split virtqueue the head. */
  id: number;
  descriptors: InspectedDescriptor[];
  readableBytes: number;
  writableBytes: number;
  /** False when what follows was not read: it breaks a rule, or there is too much of it. */
  whole: boolean;
}

export interface InspectedUsed {
  position: number;
  id: number;
  /** Bytes that the device wrote. */
  length: number;
}

export interface Indexes {
  /** Where the device takes next, and what says so. */
  nextAvail: number;
  nextAvailFrom: 'state' | 'used index';
  /** Chains made available and not taken; null where the ring does not tell. */
  pending: number | null;
  /** Taken and not used: chains of a split virtqueue, descriptors of a packed one. */
  inFlight: number | null;
  /** Used and not taken back by the driver. `used_event` as the source is a hint: a driver that polls leaves it behind. */
  usedWaiting: number | null;
  usedWaitingFrom: 'driver' | 'used_event' | null;
  /** Of a split virtqueue. */
  availIdx?: number;
  usedIdx?: number;
  /** Of a packed virtqueue: the device's positions, and where the driver writes next as far as the ring tells. */
  availWrap?: boolean;
  nextUsed?: number;
  usedWrap?: boolean;
  pendingDescriptors?: number;
  driverNext?: number;
}

/** What one side asked of the other. */
export interface Suppression {
  /** `at`: when index `event` is passed. */
  wants: 'always' | 'never' | 'at' | 'unknown';
  event: number | null;
  /** Of a kick wanted `at`: whether the available chains passed the event, have not come to it, or began behind it. */
  reached: 'reached' | 'ahead' | 'behind' | null;
  words: string;
}

export type Rule =
  | 'queue-size'
  | 'alignment'
  | 'ring-outside-memory'
  | 'index-distance'
  | 'used-ahead'
  | 'position'
  | 'head-range'
  | 'duplicate-id'
  | 'shared-descriptor'
  | 'loop'
  | 'next-range'
  | 'unmarked-descriptor'
  | 'indirect-not-negotiated'
  | 'indirect-with-next'
  | 'indirect-length'
  | 'indirect-nested'
  | 'chain-length'
  | 'chain-bytes'
  | 'readable-behind-writable'
  | 'zero-length'
  | 'outside-memory'
  | 'transmit-writable'
  | 'receive-readable'
  | 'control-no-status'
  | 'used-id-range'
  | 'event-structure';

export interface Violation {
  rule: Rule;
  /** Of virtio 1.4. */
  section: string;
  where: string;
  found: string;
  expected: string;
}

/** `broken`: a rule is violated; `stands`: something waits and nobody is known to come; `moves`: neither. */
export type Verdict = 'broken' | 'stands' | 'moves';

export interface QueueInspection {
  format: 'split' | 'packed';
  role: QueueRole | null;
  size: number;
  ready: boolean;
  running: boolean | null;
  eventIdx: boolean;
  indirect: boolean;
  addresses: { descTable: string; availRing: string; usedRing: string };
  indexes: Indexes;
  /** What the device asks of the driver, and the reverse. */
  suppression: { kick: Suppression; call: Suppression };
  notifications: { kicks: number | null; calls: number | null };
  /** Not yet taken, oldest first. */
  available: InspectedChain[];
  /** The last few, oldest first. */
  used: InspectedUsed[];
  violations: Violation[];
  /** Violations beyond those listed. */
  moreViolations: number;
  /** The indexes changed while they were read, at every attempt: what is said of chains may be of different moments. */
  moving: boolean;
  verdict: Verdict;
  /** Why it does not move, most important first. */
  diagnosis: string[];
}

export const hexAddress = (address: number | bigint): string => `0x${address.toString(16)}`;

/** `1 chain`, `2 chains`. */
export const counted = (count: number, what: string): string => `${count} ${what}${count === 1 ? '' : 's'}`;

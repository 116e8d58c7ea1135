/** What the demo's processes agree on. */
import type { StoppedRing } from '../backend/backend';
import type { MigrationResult } from '../migration/options';
import type { LedgerGap, LedgerReport } from '../observe/frame-ledger';

export interface DemoPlan {
  /** Path of the network namespace with the bridge. */
  netns: string;
  /** Frames a second, each way. */
  rate: number;
  /** Bytes of a frame. */
  frameSize: number;
  /** Bytes of guest memory. */
  memory: number;
  ringSize: number;
  guestMac: string;
  stationMac: string;
  downtimeLimitMs: number;
}

export const BRIDGE = 'br0';
export const STATION_MAC = '02:00:00:00:00:01';
export const GUEST_MAC = '02:00:00:00:00:02';
/** Longest time a frame may be under way when nobody sends any more. Milliseconds. */
export const DRAIN_MS = 500;

/** Flow numbers in the frames. */
export const GUEST_TO_NETWORK_FLOW = 1;
export const NETWORK_TO_GUEST_FLOW = 2;

/** Frames that a ledger can tell apart: 100 seconds at 10,000 a second, 128 KiB. */
export const LEDGER_CAPACITY = 1 << 20;

export type SideName = 'source' | 'destination';

/** Orders to a side, each answered by the word of the same name. */
export type Orders = {
  /** Opens the side's tap. */
  open: { order: DemoPlan; word: { tap: string } };
  /** Source: builds guest and device, and runs them. */
  boot: { order: null; word: { vhostFeatures: string } };
  /** Destination: waits for a guest on a port of the loopback. */
  listen: { order: null; word: { address: string } };
  /** Source: gives the guest away. */
  migrate: { order: { address: string }; word: { result: MigrationResult } };
  /** Destination: tells when the guest runs here. */
  received: { order: null; word: { pages: number; startMs: number } };
  /** The guest sends no more; what it had sent. */
  hush: { order: null; word: { sent: number } };
  /** What the guest received, held against what was sent to it; gaps in CLOCK_MONOTONIC microseconds, the same in every process. */
  report: { order: { sent: number }; word: { frames: LedgerReport; gaps: LedgerGap[] } };
  /** Stops everything and ends. */
  end: { order: null; word: { rings: readonly StoppedRing[] } };
};

/** What the processes of a migration benchmark agree on. */
import type { MigrationResult } from '../../lib/migration/options';
import type { LedgerReport } from '../../lib/observe/frame-ledger';

export type MovePath = 'emulated' | 'vhost-kernel';

export interface MovePlan {
  readonly netns: string;
  readonly path: MovePath;
  /** `echo` answers whoever sends. */
  readonly program: 'traffic' | 'echo';
  /** Frames a second, each way. */
  readonly rate: number;
  readonly pairs: number;
  /** Bytes of guest memory, and how many of them are written before anything moves. */
  readonly memory: number;
  readonly written: number;
  readonly capacity: number;
}

export const STATION_MAC = '02:00:00:00:00:01';
export const GUEST_MAC = '02:00:00:00:00:02';
export const FRAME_SIZE = 128;
export const TO_NETWORK = 1;

/** The guest's flows come first, one a pair. */
export function firstToGuest(pairs: number): number {
  return TO_NETWORK + pairs;
}

export interface Move {
  readonly result: Pick<MigrationResult, 'downtimeMs' | 'downtimeParts' | 'totalMs'>;
  readonly differing: number | null;
  readonly unproven: readonly string[];
}

export type MoveOrders = {
  /** Opens the tap, one queue a pair. */
  open: { order: MovePlan; word: { tap: string } };
  /** A guest runs here. */
  boot: { order: null; word: null };
  /** The next guest may come to this address. */
  listen: { order: { address: string }; word: null };
  /** It runs here now. */
  arrived: { order: null; word: null };
  migrate: { order: { address: string; local: boolean }; word: Move };
  hush: { order: null; word: { sent: number[] } };
  report: { order: { sent: number[] }; word: { frames: LedgerReport[] } };
  /** Bytes of RssAnon at most since the start, by looking every few milliseconds. */
  own: { order: null; word: { bytes: number } };
  end: { order: null; word: null };
};

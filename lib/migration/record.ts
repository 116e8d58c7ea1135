/** All that is known of one migration, as plain data: what a report is made of, and what a file keeps. */
import type { SideEnvironment } from './environment';
import type { HandoverAccount } from './handover/account';
import type { AuditResult, Difference } from './messages';
import type { MigrationPhase, Round } from './options';

export const RECORD_VERSION = 1;

export type MigrationOutcome = 'completed' | 'cancelled' | 'failed' | 'uncertain';

/** Pages sent of one region: `counts[row][bucket]` of the `pages` pages of a bucket; the last bucket may be shorter. */
export interface HeatRegion {
  gpa: number;
  /** Pages of the region. */
  total: number;
  /** Pages of a bucket. */
  pages: number;
  /** Rounds of a row: more than 1 in a migration of very many. A row then has the largest count of any of its rounds. */
  rounds: number;
  /** From round 0 on. */
  counts: number[][];
}

/** What was transferred and dirtied since the sample before. */
export interface RateSample {
  /** Since the beginning. Milliseconds. */
  atMs: number;
  bytesPerSecond: number;
  dirtyPagesPerSecond: number;
}

/** Why the rounds ended. */
export interface SwitchoverDecision {
  /** In words. */
  reason: string;
  /** Downtime that was expected. Milliseconds; null where nothing was measured yet. */
  estimateMs: number | null;
}

export interface MigrationRecord {
  version: typeof RECORD_VERSION;
  /** ISO 8601, UTC. */
  startedAt: string;
  outcome: MigrationOutcome;
  error: { code: string; message: string; hint: string | null } | null;
  source: SideEnvironment;
  /** Null when the two sides never spoke. */
  destination: SideEnvironment | null;
  /** Bytes. */
  guestMemory: { gpa: number; size: number }[];
  differences: Difference[];
  rounds: Round[];
  samples: RateSample[];
  totalMs: number;
  /** 0 when the guest was never stopped. */
  downtimeMs: number;
  /** Milliseconds by name, in the order in which they happened. */
  downtimeParts: Record<string, number>;
  /** From the last frame before to the first one after. Milliseconds; null where no frames were seen. */
  blackoutMs: { guestToNetwork: number | null; networkToGuest: number | null };
  /** Milliseconds since the beginning. */
  phases: { phase: MigrationPhase; atMs: number }[];
  heat: HeatRegion[];
  handover: HandoverAccount | null;
  audit: AuditResult | null;
  decision: SwitchoverDecision | null;
}

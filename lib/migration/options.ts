/** What a migration is given and what it tells: shared by both sides. */
import type { StoppedRing } from '../backend/backend';
import type { DirtySource } from '../memory/dirty-log';
import type { FaultPlan } from '../trace/fault-plan';
import type { AnnounceOptions } from './announce-rounds';
import type { ConvergenceDecision, ConvergenceOptions } from './convergence';
import type { HandoverAccount } from './handover/account';
import type { AuditResult, Difference } from './messages';
import type { PageCompression } from './page-compression';
import type { TlsOptions } from './transport-tls';

/** Whoever writes to guest memory beside the device: a guest program here, processors in a virtual machine. */
export interface MigratableGuest {
  /** After this resolves the guest executes nothing and writes nothing. */
  pause(): Promise<void>;
  resume(): void;
  /** From now on every page the guest writes is found in its dirty source. */
  startDirtyLog(): void;
  stopDirtyLog(): void;
  readonly dirtySource: DirtySource;
  /** What the destination needs beside guest memory to go on. */
  save(): Record<string, unknown>;
}

/** One pass over dirty pages. */
export interface Round {
  round: number;
  pages: number;
  zeroPages: number;
  bytes: number;
  ms: number;
  /** Pages that were dirty again when the round had been sent. */
  dirtyAfter: number;
  /** When it began, since the beginning of the migration. */
  startMs: number;
  /** Pages of it that are dirty whenever one looks, which were sent last. */
  hotPages: number;
  /** Newly dirty pages found before this round, by who wrote them. */
  dirtyBy: Record<string, number>;
}

export type MigrationPhase = 'setup' | 'precopy' | 'relay' | 'switchover' | 'ready' | 'commit' | 'running' | 'done';

export type MigrationEvent =
  | { kind: 'phase'; phase: MigrationPhase }
  | { kind: 'round'; round: Round }
  /** Pages and bytes of the round so far. */
  | { kind: 'progress'; round: number; pages: number; bytes: number }
  /** Before each round: what is to be sent in it, and what the downtime would be now. */
  | {
      kind: 'estimate';
      round: number;
      pages: number;
      dirtyPagesPerSecond: number;
      /** Milliseconds; null where nothing was measured yet. */
      downtimeMs: number | null;
      /** Until the switchover is over, at the present rates. Milliseconds; null when it does not converge. */
      leftMs: number | null;
    }
  /** Why the rounds end, or why receive traffic is throttled. */
  | { kind: 'decision'; action: ConvergenceDecision['action']; reason: string; estimateMs: number | null };

export interface MigrationOptions extends AnnounceOptions, ConvergenceOptions {
  /** Connections for pages beside the control connection, where more can be made: 0 to 16. Default 1. */
  channels?: number;
  /**
   * Of page data. Default none; zstd where Node has it. With page connections outside of TLS the destination must be given one too, whichever:
   * otherwise it takes plain pages straight from the socket, and refuses others.
   */
  compression?: PageCompression;
  /** Mutual TLS on every connection. */
  tls?: TlsOptions;
  /**
   * Hand over memory and taps to another process of this host instead of copying and moving: over a UNIX connection, for an upgrade of a
   * monitor in place. Default false.
   */
  local?: boolean;
  /** Bytes a second, over all connections together. Default 0, no limit. */
  maxBandwidth?: number;
  /** Longest wait for the peer at any one step. Milliseconds, default 30,000. */
  timeoutMs?: number;
  /** Ends the migration; before GO the source runs on as before. */
  signal?: AbortSignal;
  onEvent?: (event: MigrationEvent) => void;
  /** Compare both sides' memory page by page after the switchover. Default true. */
  audit?: boolean;
  /**
   * Hand over the frames that reach either tap while the guest moves, so that none is lost, doubled or reordered. Default true; without it,
   * or where a side does not read its taps itself, frames that reach the source meanwhile are lost.
   */
  handover?: boolean;
  /** A peer of which nothing was heard for so long is taken for gone. Milliseconds, default 10,000. */
  deadAfterMs?: number;
  /**
   * A file that gets every byte this side sends over the control connection, for `vhost-net inspect-stream`: guest memory is in it. Page
   * connections whose bytes go through JavaScript (TLS, compression) go to PATH.1 and so on.
   */
  record?: string;
  /** Steps named `migration:final-sync` and `migration:last-page` can be left out, to show that the audit would find it. */
  faults?: FaultPlan;
}

/** Parts of the downtime. Milliseconds. */
export interface DowntimeParts {
  stop: number;
  sync: number;
  lastPages: number;
  state: number;
  start: number;
}

export interface MigrationResult {
  rounds: Round[];
  totalMs: number;
  /** From the guest's pause to RUNNING arriving at the source: never less than the time the guest stood still. */
  downtimeMs: number;
  downtimeParts: DowntimeParts;
  bytes: number;
  vrings: StoppedRing[];
  differences: Difference[];
  /** What became of the frames meanwhile; null where none were handed over. */
  handover: HandoverAccount | null;
  audit: AuditResult | null;
}

/** Milliseconds between two readings of `performance.now()`, to the microsecond. */
export function elapsed(from: number, to = performance.now()): number {
  return Math.round((to - from) * 1000) / 1000;
}

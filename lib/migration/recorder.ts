/** Keeps what a migration tells while it goes on, for the record of it. */
import type { GuestMemory } from '../memory/guest-memory';
import type { SideEnvironment } from './environment';
import type { HandoverAccount } from './handover/account';
import type { HeatMap } from './heat-map';
import type { AuditResult, Difference } from './messages';
import { elapsed, type MigrationEvent, type MigrationPhase, type Round } from './options';
import type { MigrationOutcome, MigrationRecord, RateSample, SwitchoverDecision } from './record';
import { RECORD_VERSION } from './record';

/** Samples are at least so far apart. Milliseconds. */
const SAMPLE_MS = 100;
const MOST_SAMPLES = 10_000;

export class Recorder {
  readonly #startedAt = new Date();
  readonly #began = performance.now();
  readonly #onEvent: ((event: MigrationEvent) => void) | undefined;
  readonly #guestMemory: { gpa: number; size: number }[];
  readonly #phases: { phase: MigrationPhase; atMs: number }[] = [];
  readonly #samples: RateSample[] = [];
  #decision: SwitchoverDecision | null = null;
  #bytesBefore = 0;
  #sampledAt = 0;
  #sampledBytes = 0;
  #dirtyPagesPerSecond = 0;
  source: SideEnvironment | null = null;
  destination: SideEnvironment | null = null;
  differences: Difference[] = [];
  downtimeMs = 0;
  downtimeParts: Record<string, number> = {};
  handover: HandoverAccount | null = null;
  audit: AuditResult | null = null;

  constructor(memory: GuestMemory, onEvent: ((event: MigrationEvent) => void) | undefined) {
    this.#guestMemory = memory.regions.map(({ gpa, size }) => ({ gpa, size }));
    this.#onEvent = onEvent;
  }

  /** performance.now() of the beginning. */
  get began(): number {
    return this.#began;
  }

  /** An event of the migration: kept, and told to its owner. */
  readonly event = (event: MigrationEvent): void => {
    if (event.kind === 'phase') this.#phases.push({ phase: event.phase, atMs: elapsed(this.#began) });
    if (event.kind === 'decision') this.#decision = { reason: event.reason, estimateMs: event.estimateMs };
    if (event.kind === 'estimate') this.#dirtyPagesPerSecond = event.dirtyPagesPerSecond;
    if (event.kind === 'progress') this.#sample(this.#bytesBefore + event.bytes, false);
    if (event.kind === 'round') {
      this.#bytesBefore += event.round.bytes;
      this.#sample(this.#bytesBefore, true);
    }
    this.#onEvent?.(event);
  };

  #sample(bytes: number, always: boolean): void {
    const atMs = elapsed(this.#began);
    const since = atMs - this.#sampledAt;
    if (since <= 0 || (!always && since < SAMPLE_MS) || this.#samples.length >= MOST_SAMPLES) return;
    this.#samples.push({
      atMs,
      bytesPerSecond: Math.max(0, ((bytes - this.#sampledBytes) / since) * 1000),
      dirtyPagesPerSecond: this.#dirtyPagesPerSecond,
    });
    this.#sampledAt = atMs;
    this.#sampledBytes = bytes;
  }

  /** Null when not even this side's environment was found out. */
  record(outcome: MigrationOutcome, error: unknown, rounds: readonly Round[], heat: HeatMap): MigrationRecord | null {
    if (this.source === null) return null;
    const { firstSentMs, firstReceivedMs } = this.handover?.destination ?? { firstSentMs: null, firstReceivedMs: null };
    const blackout = (first: number | null): number | null => (first === null ? null : this.downtimeMs + first);
    return {
      version: RECORD_VERSION,
      startedAt: this.#startedAt.toISOString(),
      outcome,
      error: error === null ? null : told(error),
      source: this.source,
      destination: this.destination,
      guestMemory: this.#guestMemory,
      differences: this.differences,
      rounds: [...rounds],
      samples: this.#samples,
      totalMs: elapsed(this.#began),
      downtimeMs: this.downtimeMs,
      downtimeParts: this.downtimeParts,
      blackoutMs: { guestToNetwork: blackout(firstSentMs), networkToGuest: blackout(firstReceivedMs) },
      phases: this.#phases,
      heat: heat.regions,
      handover: this.handover,
      audit: this.audit,
      decision: this.#decision,
    };
  }
}

function told(error: unknown): NonNullable<MigrationRecord['error']> {
  const { code, message, hint } = error as { code?: unknown; message?: unknown; hint?: unknown };
  return {
    code: typeof code === 'string' ? code : 'ERROR',
    message: typeof message === 'string' ? message : String(error),
    hint: typeof hint === 'string' ? hint : null,
  };
}

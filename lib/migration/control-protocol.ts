/**
 * Orders to the process that owns a device, one JSON object a line over a UNIX socket:
 *
 *     {"id": 1, "method": "migrate", "params": {"address": "tcp:there:4444"}}
 *     {"id": 1, "event": {"kind": "phase", "phase": "setup"}}                    any number of times
 *     {"id": 1, "result": {...}}                                                 or
 *     {"id": 1, "error": {"code": "VHOST_ERR_STATE", "message": "...", "hint": null}}
 *
 * Several orders of one connection may be under way; the id, a whole number of the client's choice, says which one is meant.
 */
import { VhostError } from '../errors';
import type { DirtyRate } from '../observe/dirty-rate';
import { isObject, type Json } from './json';
import type { Difference } from './messages';
import type { MigrationEvent, MigrationOptions, MigrationPhase, MigrationResult } from './options';
import type { MigrationRecord } from './record';
import type { SavedFile } from './save';

/** Bytes of a line to the server: three PEM files and then some. */
export const LONGEST_ORDER = 256 * 1024;
/** Bytes of a line from it: the record of a migration of very many rounds. */
export const LONGEST_REPLY = 64 * 1024 * 1024;

export interface ControlFailure {
  code: string;
  /** Without the hint. */
  message: string;
  hint: string | null;
}

/** Of MigrationOptions, what can be said in JSON. */
export type ControlMigrationOptions = Pick<
  MigrationOptions,
  | 'channels'
  | 'compression'
  | 'maxBandwidth'
  | 'downtimeLimitMs'
  | 'maxRounds'
  | 'maxMs'
  | 'strategy'
  | 'local'
  | 'audit'
  | 'handover'
  | 'timeoutMs'
  | 'deadAfterMs'
> & { tls?: { ca: string; cert: string; key: string; serverName?: string } };

/**
 * - `failed`, `cancelled`: the guest runs where it was
 * - `uncertain`: it may run at the destination
 * - `returned`, `stranded`: it runs nowhere, until an order says where
 */
export type ControlOutcome = 'completed' | 'failed' | 'cancelled' | 'uncertain' | 'returned' | 'stranded';

/** What became of a migration that was begun. */
export interface MigrationAnswer {
  outcome: ControlOutcome;
  error: ControlFailure | null;
  /** Null unless it completed. */
  result: MigrationResult | null;
  /** Null when not even this side's environment was found out. */
  record: MigrationRecord | null;
}

export interface ControlStatus {
  pid: number;
  /** What goes on, or where the guest is when it does not run here. */
  state:
    | 'running'
    | 'migrating'
    | 'comparing'
    | 'saving'
    | 'measuring'
    | 'uncertain'
    | 'returned'
    | 'stranded'
    | 'moved'
    | 'saved'
    | 'stopped';
  /** Of the migration that goes on. */
  phase: MigrationPhase | null;
  /** Whether the device serves its guest. */
  running: boolean;
  mac: string;
  backend: string;
  /** Hexadecimal. */
  features: string;
  /** Bytes of guest memory. */
  memory: number;
  taps: string[];
  /** How the last migration ended. */
  last: { outcome: ControlOutcome; error: ControlFailure | null } | null;
  /** What the owner of the device says beside. */
  owner: Json;
}

type Nothing = Record<string, never>;

/** Methods, each with what it takes and what answers it. */
export interface ControlMethods {
  status: { params: Nothing; result: ControlStatus };
  preflight: { params: { address: string; options?: ControlMigrationOptions }; result: { differences: Difference[] } };
  migrate: { params: { address: string; options?: ControlMigrationOptions }; result: MigrationAnswer };
  /** Ends the migration, the save or the measurement that goes on. Whether there was one. */
  cancel: { params: Nothing; result: { cancelled: boolean } };
  resolve: { params: { where: 'here' | 'there' }; result: Nothing };
  'dirty-rate': { params: { seconds?: number; intervalMs?: number }; result: DirtyRate };
  announce: { params: Nothing; result: { rounds: number } };
  /** An absolute path. Without `resume` the guest leaves this process. */
  save: { params: { path: string; resume?: boolean }; result: SavedFile };
  /** Ends the guest. */
  stop: { params: Nothing; result: Nothing };
}

export type ControlMethod = keyof ControlMethods;

export interface ControlOrder<Method extends ControlMethod = ControlMethod> {
  id: number;
  method: Method;
  params: ControlMethods[Method]['params'];
}

export type ControlReply =
  | { id: number; event: MigrationEvent }
  | { id: number; result: unknown }
  /** Id null: of a line that had none that could be read. */
  | { id: number | null; error: ControlFailure };

/** What a failure looks like on the wire, */
export function describeFailure(error: unknown): ControlFailure {
  const { code, message, hint } = error as { code?: unknown; message?: unknown; hint?: unknown };
  const text = typeof message === 'string' ? message : String(error);
  const advice = typeof hint === 'string' ? hint : null;
  const end = advice === null ? '' : ` (${advice})`;
  return {
    code: typeof code === 'string' ? code : 'ERROR',
    message: end !== '' && text.endsWith(end) ? text.slice(0, -end.length) : text,
    hint: advice,
  };
}

/** and the error that it was. */
export function failureError({ code, message, hint }: ControlFailure): VhostError {
  return new VhostError(code, message, hint === null ? {} : { hint });
}

/** What a line from a server says. Throws VHOST_ERR_PROTOCOL. */
export function parseReply(line: string): ControlReply {
  let value: unknown;
  try {
    value = JSON.parse(line);
  } catch (cause) {
    throw new VhostError('VHOST_ERR_PROTOCOL', 'the control socket sent a line that is no JSON', { cause });
  }
  if (!isObject(value) || !('event' in value || 'result' in value || isObject(value.error))) {
    throw new VhostError('VHOST_ERR_PROTOCOL', 'the control socket sent a line that is no answer');
  }
  return value as unknown as ControlReply;
}

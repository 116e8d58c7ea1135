/**
 * Decodes any live virtqueue from guest memory without disturbing it, checks what virtio 1.4 demands of it, and says why it does not move.
 * Reads only; nothing that lies in the memory makes it throw, write or run on.
 */
import { VIRTQUEUE_MAX_SIZE } from '../constants/virtio-ring';
import { invalidArgument } from '../errors';
import type { QueueState } from './queue-state';
import { hexAddress, type InspectOptions, type QueueInspection } from './ring-inspection';
import { diagnose } from './ring-inspector-diagnosis';
import { inspectPacked, type PackedState } from './ring-inspector-packed';
import { type InspectedMemory, RingReader } from './ring-inspector-reader';
import { Violations } from './ring-inspector-rules';
import { inspectSplit } from './ring-inspector-split';
import type { RingMemory } from './ring-memory';

const DEFAULT_LIMIT = 16;

/**
 * `state` says where the queue lies and where the device stands; with `packed` in it, it is a packed virtqueue. The answer is plain data.
 * Throws VHOST_ERR_INVALID_ARGUMENT for a state or an option that is no such thing, and VHOST_ERR_CLOSED for closed memory.
 */
export function inspectQueue(
  memory: RingMemory | InspectedMemory,
  state: Readonly<QueueState>,
  options: InspectOptions = {},
): QueueInspection {
  checkState(state);
  const { eventIdx = false, indirect = true, limit = DEFAULT_LIMIT, role, running, kicks, calls } = options;
  requireInteger('limit', limit, 0, VIRTQUEUE_MAX_SIZE);
  if (options.usedSeen !== undefined) requireInteger('usedSeen', options.usedSeen, 0, 0xffff);
  const reader = new RingReader(memory);
  const format = isPacked(state) ? 'packed' : 'split';
  const chosen = { ...options, eventIdx, indirect };
  const findings = isPacked(state) ? inspectPacked(reader, state, chosen) : inspectSplit(reader, state, chosen);
  const violations = new Violations(format);
  violations.take(findings.violations);
  for (const chain of findings.chains) violations.take(chain.violations);
  const { verdict, words } = diagnose(findings, { ...options, ready: state.ready });
  return {
    format,
    role: role ?? null,
    size: state.size,
    ready: state.ready,
    running: running ?? null,
    eventIdx,
    indirect,
    addresses: {
      descTable: hexAddress(state.descTable),
      availRing: hexAddress(state.availRing),
      usedRing: hexAddress(state.usedRing),
    },
    indexes: findings.indexes,
    suppression: findings.suppression,
    notifications: { kicks: kicks ?? null, calls: calls ?? null },
    available: findings.chains.slice(0, limit).map(({ chain }) => chain),
    used: findings.used,
    violations: violations.list,
    moreViolations: violations.more,
    moving: findings.moving,
    verdict,
    diagnosis: words,
  };
}

const isPacked = (state: Readonly<QueueState>): state is PackedState => state.packed !== undefined;

function requireInteger(name: string, value: unknown, least: number, most: number): void {
  if (!Number.isInteger(value) || (value as number) < least || (value as number) > most) {
    throw invalidArgument(`${name} ${String(value)}`, `an integer from ${least} to ${most}`);
  }
}

/** Only what no ring could have: sizes and places that break a rule are found and named instead. */
function checkState(state: Readonly<QueueState>): void {
  const { size, ready, nextAvail, packed } = state;
  requireInteger('size', size, 1, VIRTQUEUE_MAX_SIZE);
  if (typeof ready !== 'boolean') throw invalidArgument(`ready ${String(ready)}`, 'true or false');
  // The last address that leaves room for any ring.
  for (const name of ['descTable', 'availRing', 'usedRing'] as const) {
    requireInteger(name, state[name], 0, Number.MAX_SAFE_INTEGER - 2 ** 20);
  }
  requireInteger('nextAvail', nextAvail, 0, packed === undefined ? 0xffff : size - 1);
  if (packed === undefined) return;
  requireInteger('nextUsed', packed.nextUsed, 0, size - 1);
  if (typeof packed.availWrap !== 'boolean' || typeof packed.usedWrap !== 'boolean') {
    throw invalidArgument('wrap counters of a packed virtqueue', 'true or false');
  }
}

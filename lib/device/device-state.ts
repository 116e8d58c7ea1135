/**
 * The device's state as readable, named fields: what a migration carries beside guest memory. Untrusted until `validateDeviceState`
 * has passed it; addresses and indexes are checked again by the backend that is started with them.
 */
import { ProtocolError } from '../errors';
import { gpa } from '../memory/address';
import type { QueueState } from '../virtqueue/queue-state';

export const DEVICE_STATE_VERSION = 1;

export interface DeviceState {
  version: number;
  /** Fields that a reader must know to go on; a name it does not know is refused. */
  mandatory: string[];
  /** Bits the driver acked, hexadecimal. */
  features: string;
  mac: string;
  mtu: number;
  queues: QueueState[];
}

const KNOWN = new Set(['features', 'mac', 'mtu', 'queues']);

function refuse(what: string, expected: string): never {
  throw new ProtocolError(`device state: ${what}`, 0, expected);
}

function integer(value: unknown, name: string, least: number, most: number): number {
  if (typeof value !== 'number' || !Number.isSafeInteger(value) || value < least || value > most) {
    refuse(`${name} is ${JSON.stringify(value)}`, `an integer from ${least} to ${most}`);
  }
  return value;
}

function queueState(value: unknown, index: number): QueueState {
  if (typeof value !== 'object' || value === null) refuse(`queue ${index} is ${JSON.stringify(value)}`, 'an object');
  const queue = value as Record<string, unknown>;
  const name = (field: string): string => `queue ${index} ${field}`;
  const size = integer(queue.size, name('size'), 1, 32768);
  if ((size & (size - 1)) !== 0) refuse(`${name('size')} is ${size}`, 'a power of two');
  if (typeof queue.ready !== 'boolean') refuse(`${name('ready')} is ${JSON.stringify(queue.ready)}`, 'true or false');
  const address = (field: 'descTable' | 'availRing' | 'usedRing', alignment: number) => {
    const at = integer(queue[field], name(field), 0, Number.MAX_SAFE_INTEGER);
    if (at % alignment !== 0) refuse(`${name(field)} is 0x${at.toString(16)}`, `a multiple of ${alignment}`);
    return gpa(at);
  };
  return {
    size,
    ready: queue.ready,
    descTable: address('descTable', 16),
    availRing: address('availRing', 2),
    usedRing: address('usedRing', 4),
    nextAvail: integer(queue.nextAvail, name('nextAvail'), 0, 65535),
  };
}

/** Gives back a state with nothing in it but what was checked. Throws ProtocolError. */
export function validateDeviceState(value: unknown): DeviceState {
  if (typeof value !== 'object' || value === null) refuse(JSON.stringify(value) ?? 'nothing', 'an object');
  const state = value as Record<string, unknown>;
  const version = integer(state.version, 'version', 1, DEVICE_STATE_VERSION);
  const mandatory = state.mandatory ?? [];
  if (!Array.isArray(mandatory)) refuse('mandatory', 'a list of names');
  for (const name of mandatory) {
    if (!KNOWN.has(String(name))) refuse(`mandatory field ${JSON.stringify(name)}`, `one of ${[...KNOWN].join(', ')}`);
  }
  if (typeof state.features !== 'string' || !/^0x[0-9a-f]{1,16}$/.test(state.features)) {
    refuse(`features is ${JSON.stringify(state.features)}`, 'a hexadecimal string of 64 bits');
  }
  if (typeof state.mac !== 'string' || !/^([0-9a-f]{2}:){5}[0-9a-f]{2}$/.test(state.mac)) {
    refuse(`mac is ${JSON.stringify(state.mac)}`, 'six hexadecimal bytes with colons');
  }
  if (!Array.isArray(state.queues) || state.queues.length < 2 || state.queues.length % 2 !== 0) {
    refuse('queues', 'two queues a pair');
  }
  return {
    version,
    mandatory: mandatory.map(String),
    features: state.features,
    mac: state.mac,
    mtu: integer(state.mtu ?? 1500, 'mtu', 68, 65535),
    queues: state.queues.map(queueState),
  };
}

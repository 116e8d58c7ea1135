/**
 * Where another process finds the virtqueues of this one, as JSON: what `vhost-net inspect` reads. Untrusted until `parseDescription` has
 * passed it.
 */
import { invalidArgument } from '../errors';
import { gpa } from '../memory/address';
import type { RegionFile } from '../memory/read-only-memory';
import type { PackedPosition, QueueState } from '../virtqueue/queue-state';
import type { QueueRole } from '../virtqueue/ring-inspection';

export interface DescribedQueue extends QueueState {
  role?: QueueRole;
  /** The eventfds' numbers in the process. */
  kickFd?: number;
  callFd?: number;
}

export interface Description {
  pid: number;
  /** Acked by the driver, hexadecimal with 0x. */
  features: string;
  /** Whether a device serves the queues; their positions may be older than the rings then. Default true. */
  running?: boolean;
  regions: RegionFile[];
  queues: DescribedQueue[];
}

const ROLES: readonly unknown[] = ['receive', 'transmit', 'control'] satisfies QueueRole[];

type Fields = Readonly<Record<string, unknown>>;

function refuse(what: string, expected: string): never {
  throw invalidArgument(`description: ${what}`, expected);
}

/** A copy of `value` with nothing else in it. Throws VHOST_ERR_INVALID_ARGUMENT that names the field. */
export function parseDescription(value: unknown): Description {
  const fields = object(value, 'the whole');
  const { features, running } = fields;
  if (typeof features !== 'string' || !/^0x[0-9a-f]{1,32}$/i.test(features)) refuse('features', 'hexadecimal with 0x');
  return {
    pid: integer(fields, 'pid', 'pid'),
    features,
    running: running === undefined ? true : boolean(running, 'running'),
    regions: list(fields.regions, 'regions').map((region, index) => parseRegion(region, `regions[${index}]`)),
    queues: list(fields.queues, 'queues').map((queue, index) => parseQueue(queue, `queues[${index}]`)),
  };
}

function parseRegion(value: unknown, where: string): RegionFile {
  const region = object(value, where);
  if (typeof region.path !== 'string' || region.path === '' || region.path.includes('\0')) {
    refuse(`${where}.path`, 'the path of a file');
  }
  const number = (name: string): number => integer(region, name, `${where}.${name}`);
  return { gpa: number('gpa'), size: number('size'), path: region.path, offset: number('offset') };
}

function parseQueue(value: unknown, where: string): DescribedQueue {
  const queue = object(value, where);
  const number = (name: string): number => integer(queue, name, `${where}.${name}`);
  const { role, packed, kickFd, callFd } = queue;
  if (role !== undefined && !ROLES.includes(role)) refuse(`${where}.role`, ROLES.join(', '));
  return {
    size: number('size'),
    ready: boolean(queue.ready, `${where}.ready`),
    descTable: gpa(number('descTable')),
    availRing: gpa(number('availRing')),
    usedRing: gpa(number('usedRing')),
    nextAvail: number('nextAvail'),
    ...(packed === undefined ? {} : { packed: parsePosition(packed, `${where}.packed`) }),
    ...(role === undefined ? {} : { role: role as QueueRole }),
    ...(kickFd === undefined ? {} : { kickFd: number('kickFd') }),
    ...(callFd === undefined ? {} : { callFd: number('callFd') }),
  };
}

function parsePosition(value: unknown, where: string): PackedPosition {
  const position = object(value, where);
  return {
    availWrap: boolean(position.availWrap, `${where}.availWrap`),
    nextUsed: integer(position, 'nextUsed', `${where}.nextUsed`),
    usedWrap: boolean(position.usedWrap, `${where}.usedWrap`),
  };
}

function object(value: unknown, where: string): Fields {
  if (typeof value !== 'object' || value === null || Array.isArray(value)) refuse(where, 'an object');
  return value as Fields;
}

function list(value: unknown, where: string): unknown[] {
  if (!Array.isArray(value)) refuse(where, 'a list');
  return value;
}

function integer(fields: Fields, name: string, where: string): number {
  const value = fields[name];
  if (!Number.isSafeInteger(value) || (value as number) < 0)
    refuse(`${where} is ${String(value)}`, 'an integer from 0');
  return value as number;
}

function boolean(value: unknown, where: string): boolean {
  if (typeof value !== 'boolean') refuse(`${where} is ${String(value)}`, 'true or false');
  return value;
}

/** Orders as untrusted input: every method and every parameter is known by name, or the order is refused by that name. */
import { isAbsolute } from 'node:path';
import { invalidArgument } from '../errors';
import type { ControlMethod, ControlOrder } from './control-protocol';
import { isObject, type Json } from './json';

/** Answers what it should have been, or null when all is well. */
type Check = (value: unknown) => string | null;

interface Shape {
  readonly required?: Readonly<Record<string, Check>>;
  readonly optional?: Readonly<Record<string, Check>>;
}

const SHOWN = 64;

const flag: Check = (value) => (typeof value === 'boolean' ? null : 'true or false');

function number(least: number, most: number, whole = false): Check {
  const expected = `a ${whole ? 'whole ' : ''}number from ${least} to ${most}`;
  return (value) =>
    typeof value === 'number' && value >= least && value <= most && (!whole || Number.isInteger(value))
      ? null
      : expected;
}

function text(most: number): Check {
  return (value) =>
    typeof value === 'string' && value.length > 0 && value.length <= most ? null : `text of 1 to ${most} characters`;
}

function oneOf(...words: readonly string[]): Check {
  return (value) => (words.includes(value as string) ? null : words.join(' or '));
}

function object(shape: Shape): Check {
  return (value) => {
    if (!isObject(value)) return 'an object';
    const wrong = faultOf(value, shape);
    return wrong === null ? null : `an object without this fault: ${wrong}`;
  };
}

const path: Check = (value) => text(4096)(value) ?? (isAbsolute(value as string) ? null : 'an absolute path');
/** setTimeout takes no longer one. */
const milliseconds = number(1, 2 ** 31 - 1);
const PEM = text(65_536);

const OPTIONS = object({
  optional: {
    channels: number(0, 16, true),
    compression: oneOf('none', 'deflate', 'zstd'),
    maxBandwidth: number(0, Number.MAX_SAFE_INTEGER),
    downtimeLimitMs: number(0, 86_400_000),
    maxRounds: number(0, 1_000_000, true),
    maxMs: number(0, Number.MAX_SAFE_INTEGER),
    strategy: oneOf('switchover', 'cancel', 'throttle'),
    local: flag,
    audit: flag,
    handover: flag,
    timeoutMs: milliseconds,
    deadAfterMs: milliseconds,
    tls: object({ required: { ca: PEM, cert: PEM, key: PEM }, optional: { serverName: text(253) } }),
  },
});

const TO: Shape = { required: { address: text(4200) }, optional: { options: OPTIONS } };

const METHODS: Readonly<Record<ControlMethod, Shape>> = {
  status: {},
  preflight: TO,
  migrate: TO,
  cancel: {},
  resolve: { required: { where: oneOf('here', 'there') } },
  'dirty-rate': { optional: { seconds: number(0.001, 3600), intervalMs: number(1, 3_600_000) } },
  announce: {},
  save: { required: { path }, optional: { resume: flag } },
  stop: {},
};

/** Null when the object has what it must have, and nothing that it may not. */
function faultOf(value: Json, { required = {}, optional = {} }: Shape): string | null {
  for (const name of Object.keys(value)) {
    if (!Object.hasOwn(required, name) && !Object.hasOwn(optional, name)) return `unknown parameter ${shown(name)}`;
  }
  for (const name of Object.keys(required)) {
    if (!Object.hasOwn(value, name)) return `parameter "${name}" is missing`;
  }
  for (const [name, check] of Object.entries({ ...required, ...optional })) {
    if (!Object.hasOwn(value, name)) continue;
    const expected = check(value[name]);
    if (expected !== null) return `parameter "${name}" is ${shown(value[name])}: expected ${expected}`;
  }
  return null;
}

/** Not all of what a stranger sent, which may be long, and never a key. */
function shown(value: unknown): string {
  if (isObject(value)) return 'an object';
  const json = JSON.stringify(value) ?? 'nothing';
  return json.length > SHOWN ? `${json.slice(0, SHOWN)}…` : json;
}

/** The id of a line that may be anything else; null where it has none. */
export function idOf(value: unknown): number | null {
  return isObject(value) && Number.isSafeInteger(value.id) ? (value.id as number) : null;
}

/** Throws VHOST_ERR_INVALID_ARGUMENT, which names what is wrong. */
export function checkOrder(value: unknown): ControlOrder {
  const id = idOf(value);
  if (!isObject(value) || id === null)
    throw invalidArgument('an order without an id', 'an object {id, method, params}');
  for (const name of Object.keys(value)) {
    if (!['id', 'method', 'params'].includes(name)) throw invalidArgument(`an order with ${shown(name)}`);
  }
  const { method, params = {} } = value;
  if (typeof method !== 'string' || !Object.hasOwn(METHODS, method)) {
    throw invalidArgument(`unknown method ${shown(method)}`, Object.keys(METHODS).join(', '));
  }
  if (!isObject(params)) throw invalidArgument(`${method}: params is ${shown(params)}`, 'an object');
  const fault = faultOf(params, METHODS[method as ControlMethod]);
  if (fault !== null) throw invalidArgument(`${method}: ${fault}`);
  return { id, method: method as ControlMethod, params: params as never };
}

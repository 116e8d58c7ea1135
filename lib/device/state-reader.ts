/** Checks fields of a saved state one by one: each answers a value of the right type and range, or throws ProtocolError naming it. */
import { ProtocolError } from '../errors';
import { isDuplex, isMtu, isSpeed, MAX_MTU, MIN_MTU } from './device-properties';

const MAC = /^([0-9a-f]{2}:){5}[0-9a-f]{2}$/;
/** As many as a transport has windows for. */
const FEATURES = /^0x[0-9a-f]{1,32}$/;
/** Characters of a string in a message. */
const MOST_SHOWN = 64;
/** Levels of what is copied without being known. */
const DEEPEST = 8;

export class Reader {
  readonly #what: string;

  constructor(what: string) {
    this.#what = what;
  }

  refuse(what: string, expected: string): never {
    throw new ProtocolError(`${this.#what}: ${what}`, 0, expected);
  }

  #refuseValue(value: unknown, name: string, expected: string): never {
    this.refuse(`${name} is ${shown(value)}`, expected);
  }

  integer(value: unknown, name: string, least: number, most: number): number {
    if (typeof value !== 'number' || !Number.isSafeInteger(value) || value < least || value > most) {
      this.#refuseValue(value, name, `an integer from ${least} to ${most}`);
    }
    return value;
  }

  /** A whole number from 0 on that need not be exact. */
  whole(value: unknown, name: string, most: number): number {
    if (typeof value !== 'number' || !Number.isInteger(value) || value < 0 || value > most) {
      this.#refuseValue(value, name, `a whole number from 0 to ${most}`);
    }
    return value;
  }

  boolean(value: unknown, name: string): boolean {
    if (typeof value !== 'boolean') this.#refuseValue(value, name, 'true or false');
    return value;
  }

  string(value: unknown, name: string, longest: number): string {
    if (typeof value !== 'string' || value.length > longest) {
      this.#refuseValue(value, name, `a string of up to ${longest} characters`);
    }
    return value;
  }

  /** A copy without holes. */
  list(value: unknown, name: string, least: number, most: number): unknown[] {
    if (!Array.isArray(value) || value.length < least || value.length > most) {
      this.#refuseValue(value, name, `a list of ${least} to ${most}`);
    }
    return Array.from<unknown>(value);
  }

  /** Feature bits as a hexadecimal string of up to 128 bits. */
  features(value: unknown, name: string): bigint {
    if (typeof value !== 'string' || !FEATURES.test(value)) {
      this.#refuseValue(value, name, 'a hexadecimal string of up to 128 bits');
    }
    return BigInt(value);
  }

  mac(value: unknown, name: string): string {
    if (typeof value !== 'string' || !MAC.test(value))
      this.#refuseValue(value, name, 'six hexadecimal bytes with colons');
    return value;
  }

  mtu(value: unknown, name: string): number {
    if (!isMtu(value as number)) this.#refuseValue(value, name, `an integer from ${MIN_MTU} to ${MAX_MTU}`);
    return value as number;
  }

  speed(value: unknown, name: string): number {
    if (!isSpeed(value as number)) this.#refuseValue(value, name, 'Mbit/s, or 4294967295');
    return value as number;
  }

  duplex(value: unknown, name: string): number {
    if (!isDuplex(value as number)) this.#refuseValue(value, name, '0, 1 or 255');
    return value as number;
  }
}

/** What a message shows of anything: never long, whatever it holds. */
export function shown(value: unknown): string {
  if (value === undefined) return 'missing';
  if (typeof value === 'string')
    return JSON.stringify(value.length > MOST_SHOWN ? `${value.slice(0, MOST_SHOWN)}…` : value);
  if (Array.isArray(value)) return `a list of ${value.length}`;
  return typeof value === 'object' && value !== null ? 'an object' : String(value);
}

/** A copy of an object that shares nothing with it. Throws ProtocolError for one that is nested too deep. */
export function plainCopy(reader: Reader, value: object, name: string, depth = DEEPEST): Record<string, unknown> {
  const copied = (entry: unknown): unknown => {
    if (typeof entry !== 'object' || entry === null) return entry;
    if (depth === 0) reader.refuse(`${name} is nested too deep`, `${DEEPEST} levels at most`);
    const copy = plainCopy(reader, entry, name, depth - 1);
    return Array.isArray(entry) ? Object.values(copy) : copy;
  };
  return Object.fromEntries(Object.entries(value).map(([key, entry]) => [key, copied(entry)]));
}

/** The fields of an object, which may hold anything. */
export function fields(reader: Reader, value: unknown, name: string): Record<string, unknown> {
  if (typeof value !== 'object' || value === null || Array.isArray(value)) {
    reader.refuse(`${name} is ${shown(value)}`, 'an object');
  }
  return value as Record<string, unknown>;
}

/**
 * Typed records of what kernel, guest and peers were told. Every record is published on the diagnostics channel `vhost-net:record`, and
 * kept, when a Trace is given, in a bounded buffer.
 */
import { channel } from 'node:diagnostics_channel';
import { invalidArgument } from '../errors';

export type TraceValue = string | number | bigint | boolean | null | readonly (string | number | bigint)[];
export type TraceArguments = Readonly<Record<string, TraceValue>>;

/** One ioctl (or open) on a vhost device or tap. */
export interface IoctlRecord {
  readonly kind: 'ioctl';
  /** The kernel's name of it, such as VHOST_SET_OWNER. */
  readonly name: string;
  readonly fd: number;
  readonly args: TraceArguments;
  /** What the kernel answered, or the negative errno. */
  readonly result: TraceValue;
  /** How long it took, queueing for a thread included. */
  readonly micros: number;
  /** Set when a fault plan had its hand in it. */
  readonly fault?: 'fail' | 'fail-after' | 'skip';
}

/** An object went from one state to another. */
export interface StateRecord {
  readonly kind: 'state';
  readonly object: string;
  readonly from: string;
  readonly to: string;
}

/** An eventfd was signalled by us ('signal') or found signalled ('wake'). */
export interface EventFdRecord {
  readonly kind: 'eventfd';
  readonly edge: 'signal' | 'wake';
  readonly name: string;
  readonly queue: number;
  /** Counter value of a wake. */
  readonly count: number;
}

/** Something a guest, a ring or the host got wrong, and that the library went on from. */
export interface FaultRecord {
  readonly kind: 'fault';
  readonly object: string;
  readonly message: string;
}

/** A command of the control virtqueue. */
export interface ControlRecord {
  readonly kind: 'control';
  readonly command: string;
  readonly args: TraceArguments;
  readonly ack: number;
}

/** A protocol message, sent or received. */
export interface MessageRecord {
  readonly kind: 'message';
  readonly direction: 'in' | 'out';
  readonly protocol: string;
  readonly name: string;
  readonly bytes: number;
  /** What it said, where the protocol has such records. */
  readonly args?: TraceArguments;
  /** Descriptors that came or went along. */
  readonly fds?: number;
}

/** Whatever kind, with its place and time. */
export type TraceEvent = IoctlRecord | StateRecord | EventFdRecord | FaultRecord | ControlRecord | MessageRecord;
export type TraceRecord = TraceEvent & {
  /** Milliseconds of performance.now(). */
  readonly at: number;
};

export const TRACE_CHANNEL = 'vhost-net:record';
const records = channel(TRACE_CHANNEL);

export interface TraceOptions {
  /** Records kept; the oldest go first. Default 4,096. */
  capacity?: number;
}

export class Trace {
  readonly capacity: number;
  #ring: TraceRecord[] = [];
  #next = 0;
  #dropped = 0;

  constructor({ capacity = 4096 }: TraceOptions = {}) {
    if (!Number.isInteger(capacity) || capacity < 1) throw invalidArgument(`trace capacity is ${capacity}, at least 1`);
    this.capacity = capacity;
  }

  /** Oldest first. */
  get records(): readonly TraceRecord[] {
    return [...this.#ring.slice(this.#next), ...this.#ring.slice(0, this.#next)];
  }

  /** Records that made room for newer ones. */
  get dropped(): number {
    return this.#dropped;
  }

  /** Names of the ioctls seen, oldest first: what most tests compare. */
  ioctls(fd?: number): string[] {
    return this.records.flatMap((record) =>
      record.kind === 'ioctl' && (fd === undefined || record.fd === fd) ? [record.name] : [],
    );
  }

  add(record: TraceRecord): void {
    if (this.#ring.length < this.capacity) {
      this.#ring.push(record);
      return;
    }
    this.#ring[this.#next] = record;
    this.#next = (this.#next + 1) % this.capacity;
    this.#dropped++;
  }

  clear(): void {
    this.#ring = [];
    this.#next = 0;
    this.#dropped = 0;
  }
}

/** True when a record would reach anybody: ask before building one. */
export function traced(trace: Trace | undefined): boolean {
  return trace !== undefined || records.hasSubscribers;
}

/** Stamps a record, keeps it in `trace` and publishes it. */
export function emit(trace: Trace | undefined, event: TraceEvent): void {
  if (!traced(trace)) return;
  const record: TraceRecord = { at: performance.now(), ...event };
  trace?.add(record);
  if (records.hasSubscribers) records.publish(record);
}

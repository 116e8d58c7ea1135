/** Messages as trace records, and as lines of a table. */
import { emit, type MessageRecord, type Trace, type TraceArguments, type TraceRecord, traced } from '../trace/trace';
import type { WireRegion } from './payload';

export const PROTOCOL = 'vhost-user';

export interface TracedMessage {
  direction: 'in' | 'out';
  /** `GET_FEATURES`, `GET_FEATURES reply`, or `request 99`. */
  name: string;
  /** Of the payload. */
  bytes: number;
  /** As parsed, or a few words in its place. */
  payload: unknown;
  fds: number;
  needReply?: boolean;
}

export function traceMessage(trace: Trace | undefined, message: TracedMessage): void {
  if (!traced(trace)) return;
  const { direction, name, bytes, payload, fds, needReply = false } = message;
  const args: TraceArguments = { ...(needReply ? { needReply } : {}), ...argumentsOf(payload) };
  emit(trace, { kind: 'message', direction, protocol: PROTOCOL, name, bytes, args, fds });
}

function argumentsOf(payload: unknown): TraceArguments {
  if (payload === null || payload === undefined) return {};
  if (Array.isArray(payload)) {
    return Object.fromEntries(payload.map((region: WireRegion, index) => [`region${index}`, regionText(region)]));
  }
  if (typeof payload !== 'object') return { value: payload as bigint | string | number };
  return Object.fromEntries(
    Object.entries(payload).map(([name, value]) => [name, value instanceof Uint8Array ? [...value] : value]),
  );
}

function regionText({ guestAddr, size, userAddr, mmapOffset }: WireRegion): string {
  return [guestAddr, size, userAddr, mmapOffset].map(hex).join(' ');
}

const hex = (value: bigint): string => `0x${value.toString(16)}`;

export const MESSAGE_COLUMNS = `${'ms'.padStart(10)}  ${'from'.padEnd(9)}  ${'message'.padEnd(28)}  ${'bytes'.padStart(5)}  fds  content`;

/** One line for a record of this protocol; null for any other. `from` is the front end's clock: milliseconds. */
export function messageLine(record: TraceRecord, from: number): string | null {
  if (record.kind !== 'message' || record.protocol !== PROTOCOL) return null;
  const { at, direction, name, bytes, fds = 0, args = {} }: MessageRecord & { at: number } = record;
  const cells = [
    (at - from).toFixed(3).padStart(10),
    (direction === 'in' ? 'front end' : 'back end').padEnd(9),
    name.padEnd(28),
    String(bytes).padStart(5),
    String(fds).padStart(3),
    Object.entries(args)
      .map(([key, value]) => `${key} ${typeof value === 'bigint' ? hex(value) : String(value)}`)
      .join(', '),
  ];
  return cells.join('  ').trimEnd();
}

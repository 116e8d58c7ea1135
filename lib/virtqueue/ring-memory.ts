/** What the rings need of guest memory: the smallest shape, which GuestMemory fits. */
import { endianness } from 'node:os';
import { VhostError } from '../errors';

/** One contiguous region as JavaScript sees it. */
export interface RegionView {
  /** Of the first byte of `u8`. */
  readonly gpa: number;
  /** The whole region. */
  readonly u8: Uint8Array;
}

export interface RingMemory {
  /** The region that wholly holds the range; throws when there is none. */
  regionOf(gpa: number, length: number): RegionView;
}

/** Where whoever writes to guest memory tells which bytes: GuestWriteLog fits. Told after the write. */
export interface WriteLog {
  readonly enabled: boolean;
  mark(gpa: number, length: number): void;
}

/** For memory that nobody migrates. */
export const NO_WRITE_LOG: WriteLog = Object.freeze({ enabled: false, mark: () => undefined });

/** 2 to the 32nd: addresses are kept as two u32, because BigInt is slow and shifts cut at 32 bits. */
export const HIGH_WORD = 0x1_0000_0000;

export const lowWord = (address: number): number => address >>> 0;
export const highWord = (address: number): number => Math.floor(address / HIGH_WORD);

/** Typed arrays read rings in host order, the specification says little-endian; both are the same on every host vhost-net runs on. */
if (endianness() !== 'LE') {
  throw new VhostError('VHOST_ERR_UNSUPPORTED', 'virtqueues are served on little-endian hosts only');
}

/** Views over a range of guest memory, made once and kept: their indexes start at the range, so they stay small integers. */
export function bytesAt(memory: RingMemory, gpa: number, length: number): Uint8Array {
  const region = memory.regionOf(gpa, length);
  return new Uint8Array(region.u8.buffer, region.u8.byteOffset + (gpa - region.gpa), length);
}

export function u16At(memory: RingMemory, gpa: number, count: number): Uint16Array {
  const bytes = bytesAt(memory, gpa, count * 2);
  return new Uint16Array(bytes.buffer, bytes.byteOffset, count);
}

export function u32At(memory: RingMemory, gpa: number, count: number): Uint32Array {
  const bytes = bytesAt(memory, gpa, count * 4);
  return new Uint32Array(bytes.buffer, bytes.byteOffset, count);
}

/** For words whose top bit is often set: what Atomics.load answers is then still a small integer, and not allocated. */
export function i32At(memory: RingMemory, gpa: number, count: number): Int32Array {
  const bytes = bytesAt(memory, gpa, count * 4);
  return new Int32Array(bytes.buffer, bytes.byteOffset, count);
}

export function f64At(memory: RingMemory, gpa: number, count: number): Float64Array {
  const bytes = bytesAt(memory, gpa, count * 8);
  return new Float64Array(bytes.buffer, bytes.byteOffset, count);
}

/**
 * What follows a header (vhost-user specification, "Message structure"), kind by kind: as a record, and as bytes. A record says what was
 * sent; whether this back end can do it is for the session to decide. Addresses, sizes and offsets stay bigint until it has.
 */
import {
  VHOST_MEMORY_BASELINE_NREGIONS,
  VHOST_USER_VRING_IDX_MASK,
  VHOST_USER_VRING_NOFD_MASK,
} from '../constants/vhost-user';
import { ProtocolError } from '../errors';

/** struct vhost_vring_state: what `num` means is the request's affair. */
export interface VringState {
  readonly index: number;
  readonly num: number;
}

/** Which ring a descriptor is for; `noFd`: none comes along, and none is to be used. */
export interface VringFd {
  readonly index: number;
  readonly noFd: boolean;
}

/** struct vhost_vring_addr: three addresses of the front end's own process, and the used ring's guest address. */
export interface VringAddr {
  readonly index: number;
  readonly flags: number;
  readonly desc: bigint;
  readonly used: bigint;
  readonly avail: bigint;
  readonly log: bigint;
}

/** A region as the front end has it: where the guest sees it, where it does itself, and where it begins in the descriptor's file. */
export interface WireRegion {
  readonly guestAddr: bigint;
  readonly size: bigint;
  readonly userAddr: bigint;
  readonly mmapOffset: bigint;
}

export interface LogBase {
  readonly size: bigint;
  readonly offset: bigint;
}

export interface DeviceConfig {
  readonly offset: number;
  readonly size: number;
  readonly flags: number;
  readonly bytes: Uint8Array;
}

export interface Inflight {
  readonly mmapSize: bigint;
  readonly mmapOffset: bigint;
  readonly numQueues: number;
  readonly queueSize: number;
}

export interface Iotlb {
  readonly iova: bigint;
  readonly size: bigint;
  readonly userAddr: bigint;
  readonly perm: number;
  readonly type: number;
}

export interface DeviceStateTransfer {
  readonly direction: number;
  readonly phase: number;
}

/** By kind of payload. */
export interface Payloads {
  empty: null;
  u64: bigint;
  vringState: VringState;
  vringFd: VringFd;
  vringAddr: VringAddr;
  memory: readonly WireRegion[];
  memReg: WireRegion;
  log: LogBase;
  config: DeviceConfig;
  inflight: Inflight;
  iotlb: Iotlb;
  deviceState: DeviceStateTransfer;
}

export type PayloadKind = keyof Payloads;

interface Codec<T> {
  /** Fewest and most bytes. */
  readonly least: number;
  readonly most: number;
  parse(view: DataView): T;
  /** How many bytes `value` takes. */
  bytesOf(value: T): number;
  emit(view: DataView, value: T): void;
}

const REGION_BYTES = 32;
const CONFIG_HEAD = 12;
/** VHOST_USER_MAX_CONFIG_SIZE. */
const CONFIG_MOST = 256;
const INFLIGHT_BYTES = 20;
/** As C pads the structure. */
const INFLIGHT_PADDED = 24;

function fixed<T>(bytes: number, parse: (view: DataView) => T, emit: (view: DataView, value: T) => void): Codec<T> {
  return { least: bytes, most: bytes, parse, bytesOf: () => bytes, emit };
}

function regionAt(view: DataView, at: number): WireRegion {
  return {
    guestAddr: view.getBigUint64(at, true),
    size: view.getBigUint64(at + 8, true),
    userAddr: view.getBigUint64(at + 16, true),
    mmapOffset: view.getBigUint64(at + 24, true),
  };
}

function emitRegion(view: DataView, at: number, region: WireRegion): void {
  view.setBigUint64(at, region.guestAddr, true);
  view.setBigUint64(at + 8, region.size, true);
  view.setBigUint64(at + 16, region.userAddr, true);
  view.setBigUint64(at + 24, region.mmapOffset, true);
}

function parseMemory(view: DataView): readonly WireRegion[] {
  const count = view.getUint32(0, true);
  if (count > VHOST_MEMORY_BASELINE_NREGIONS) {
    throw new ProtocolError(`${count} memory regions`, 0, `at most ${VHOST_MEMORY_BASELINE_NREGIONS}`);
  }
  const bytes = 8 + count * REGION_BYTES;
  // QEMU before 2.9 sends the whole structure whatever it holds.
  if (view.byteLength !== bytes && view.byteLength !== 8 + VHOST_MEMORY_BASELINE_NREGIONS * REGION_BYTES) {
    throw new ProtocolError(`${view.byteLength} bytes for ${count} memory regions`, 0, `${bytes}`);
  }
  return Array.from({ length: count }, (_, index) => regionAt(view, 8 + index * REGION_BYTES));
}

function parseVringFd(view: DataView): VringFd {
  const value = view.getBigUint64(0, true);
  const known = BigInt(VHOST_USER_VRING_IDX_MASK | VHOST_USER_VRING_NOFD_MASK);
  if ((value & ~known) !== 0n) {
    throw new ProtocolError(
      `0x${value.toString(16)} for a ring and its descriptor`,
      0,
      `bits of 0x${known.toString(16)}`,
    );
  }
  const word = Number(value);
  return { index: word & VHOST_USER_VRING_IDX_MASK, noFd: (word & VHOST_USER_VRING_NOFD_MASK) !== 0 };
}

function parseConfig(view: DataView): DeviceConfig {
  const [offset, size, flags] = [0, 4, 8].map((at) => view.getUint32(at, true)) as [number, number, number];
  if (size !== view.byteLength - CONFIG_HEAD) {
    throw new ProtocolError(`${size} bytes of configuration`, 4, `${view.byteLength - CONFIG_HEAD}, as many as came`);
  }
  return { offset, size, flags, bytes: new Uint8Array(view.buffer, view.byteOffset + CONFIG_HEAD, size).slice() };
}

const CODECS: { readonly [Kind in PayloadKind]: Codec<Payloads[Kind]> } = {
  empty: fixed(
    0,
    () => null,
    () => undefined,
  ),
  u64: fixed(
    8,
    (view) => view.getBigUint64(0, true),
    (view, value) => view.setBigUint64(0, value, true),
  ),
  vringState: fixed(
    8,
    (view) => ({ index: view.getUint32(0, true), num: view.getUint32(4, true) }),
    (view, { index, num }) => {
      view.setUint32(0, index, true);
      view.setUint32(4, num, true);
    },
  ),
  vringFd: fixed(8, parseVringFd, (view, { index, noFd }) =>
    view.setBigUint64(0, BigInt(index | (noFd ? VHOST_USER_VRING_NOFD_MASK : 0)), true),
  ),
  vringAddr: fixed(
    40,
    (view) => ({
      index: view.getUint32(0, true),
      flags: view.getUint32(4, true),
      desc: view.getBigUint64(8, true),
      used: view.getBigUint64(16, true),
      avail: view.getBigUint64(24, true),
      log: view.getBigUint64(32, true),
    }),
    (view, { index, flags, desc, used, avail, log }) => {
      view.setUint32(0, index, true);
      view.setUint32(4, flags, true);
      for (const [at, address] of [desc, used, avail, log].entries()) view.setBigUint64(8 + 8 * at, address, true);
    },
  ),
  memory: {
    least: 8,
    most: 8 + VHOST_MEMORY_BASELINE_NREGIONS * REGION_BYTES,
    parse: parseMemory,
    bytesOf: (regions) => 8 + regions.length * REGION_BYTES,
    emit: (view, regions) => {
      view.setUint32(0, regions.length, true);
      for (const [index, region] of regions.entries()) emitRegion(view, 8 + index * REGION_BYTES, region);
    },
  },
  memReg: fixed(
    8 + REGION_BYTES,
    (view) => regionAt(view, 8),
    (view, region) => emitRegion(view, 8, region),
  ),
  log: fixed(
    16,
    (view) => ({ size: view.getBigUint64(0, true), offset: view.getBigUint64(8, true) }),
    (view, { size, offset }) => {
      view.setBigUint64(0, size, true);
      view.setBigUint64(8, offset, true);
    },
  ),
  config: {
    least: CONFIG_HEAD,
    most: CONFIG_HEAD + CONFIG_MOST,
    parse: parseConfig,
    bytesOf: ({ bytes }) => CONFIG_HEAD + bytes.length,
    emit: (view, { offset, size, flags, bytes }) => {
      for (const [at, word] of [offset, size, flags].entries()) view.setUint32(4 * at, word, true);
      new Uint8Array(view.buffer, view.byteOffset + CONFIG_HEAD, bytes.length).set(bytes);
    },
  },
  inflight: {
    least: INFLIGHT_BYTES,
    most: INFLIGHT_PADDED,
    parse: (view) => ({
      mmapSize: view.getBigUint64(0, true),
      mmapOffset: view.getBigUint64(8, true),
      numQueues: view.getUint16(16, true),
      queueSize: view.getUint16(18, true),
    }),
    bytesOf: () => INFLIGHT_PADDED,
    emit: (view, { mmapSize, mmapOffset, numQueues, queueSize }) => {
      view.setBigUint64(0, mmapSize, true);
      view.setBigUint64(8, mmapOffset, true);
      view.setUint16(16, numQueues, true);
      view.setUint16(18, queueSize, true);
    },
  },
  iotlb: fixed(
    32,
    (view) => ({
      iova: view.getBigUint64(0, true),
      size: view.getBigUint64(8, true),
      userAddr: view.getBigUint64(16, true),
      perm: view.getUint8(24),
      type: view.getUint8(25),
    }),
    (view, { iova, size, userAddr, perm, type }) => {
      for (const [at, word] of [iova, size, userAddr].entries()) view.setBigUint64(8 * at, word, true);
      view.setUint8(24, perm);
      view.setUint8(25, type);
    },
  ),
  deviceState: fixed(
    8,
    (view) => ({ direction: view.getUint32(0, true), phase: view.getUint32(4, true) }),
    (view, { direction, phase }) => {
      view.setUint32(0, direction, true);
      view.setUint32(4, phase, true);
    },
  ),
};

export interface Bounds {
  readonly least: number;
  readonly most: number;
}

/** What was expected, in words. */
export const boundsText = ({ least, most }: Bounds): string => (least === most ? `${least}` : `${least} to ${most}`);

/** Fewest and most bytes of a kind: asked before anything is allocated. */
export function payloadBounds(kind: PayloadKind): Bounds {
  const { least, most } = CODECS[kind];
  return { least, most };
}

/** Throws VHOST_ERR_PROTOCOL for a length, a count or a reserved bit that the kind does not have. */
export function parsePayload<Kind extends PayloadKind>(kind: Kind, bytes: Uint8Array): Payloads[Kind] {
  const { least, most, parse } = CODECS[kind];
  if (bytes.length < least || bytes.length > most) {
    throw new ProtocolError(`a payload (${kind}) of ${bytes.length} bytes`, 0, boundsText({ least, most }));
  }
  return parse(new DataView(bytes.buffer, bytes.byteOffset, bytes.length));
}

export function emitPayload<Kind extends PayloadKind>(kind: Kind, value: Payloads[Kind]): Uint8Array {
  const codec: Codec<Payloads[Kind]> = CODECS[kind];
  const bytes = new Uint8Array(codec.bytesOf(value));
  codec.emit(new DataView(bytes.buffer), value);
  return bytes;
}

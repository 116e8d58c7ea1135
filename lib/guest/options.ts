/** What a guest is booted with, and where its parts go in guest memory. */
import { ETH_FRAME_LEN } from '../constants/if-ether';
import {
  VIRTIO_F_ANY_LAYOUT,
  VIRTIO_F_VERSION_1,
  VIRTIO_NET_F_MRG_RXBUF,
  VIRTIO_RING_F_EVENT_IDX,
  VIRTIO_RING_F_INDIRECT_DESC,
} from '../constants/virtio-net';
import { invalidArgument } from '../errors';
import { PAGE_SIZE } from '../memory/address';
import { parseMac } from '../net/ethernet';
import { hasBit } from '../net/features';
import { headerLength } from '../net/header';
import { MAX_TEST_FRAME, requireFrameSize } from '../net/test-frame';
import { FrameLedger } from '../observe/frame-ledger';
import { alignUp, requireQueueSize, splitLayout } from '../virtqueue/layout';
import { driverStateBytes, indirectTableBytes, type SplitDriverOptions } from '../virtqueue/split-driver-state';
import { BOOT_BLOCK_BYTES } from './boot-block';

/** In the order of their numbers in the boot block. */
export const GUEST_PROGRAMS = ['traffic', 'echo', 'sink', 'flood-transmit', 'flood-receive'] as const;

/**
 * - `traffic` sends numbered frames at a rate and accounts for what comes in
 * - `echo` sends every frame back
 * - `sink` accounts for what comes in
 * - `flood-transmit` sends one and the same frame as fast as the ring takes it
 * - `flood-receive` takes frames as fast as they come, counts them and looks at nothing
 */
export type GuestProgram = (typeof GUEST_PROGRAMS)[number];

export interface GuestOptions {
  /** Guest physical address of the boot block, a multiple of 4,096: everything but the buffers follows it. */
  gpa: number;
  program: GuestProgram;
  /** Feature bits that driver and device agreed on. */
  features: bigint;
  /** Lower case, with colons. */
  mac: string;
  /** To whom frames go. Default: broadcast. */
  peerMac?: string;
  /** Frames a second of `traffic`. Default 1,000. */
  rate?: number;
  /** Bytes of a frame without the virtio-net header, 60 to 65,535. Default 128; 64 for the floods. */
  frameSize?: number;
  /** Flow number of the frames sent. Default 1. */
  flow?: number;
  /** Flow number of the frames that the ledger accounts for. Default 2. */
  receiveFlow?: number;
  /** Frames after which `traffic` sends no more. Default 0: no end. */
  frames?: number;
  /** Entries of the receive and the transmit queue. Default 256. */
  rxSize?: number;
  txSize?: number;
  /** Bytes of a buffer, header included. Default 2,048, more if the frames need it. */
  rxBufferSize?: number;
  txBufferSize?: number;
  /** Frames a poll handles at most, each way. Default 64. */
  batch?: number;
  /** Frames `traffic` makes up for at once after a delay. Default: 50 ms worth, at least 64. */
  burst?: number;
  /** Sequences that the ledger tells apart. Default 65,536. */
  ledgerCapacity?: number;
  /** Where the buffers go, a multiple of 4,096. Default: behind the rest. */
  buffersGpa?: number;
  /** Give the header a descriptor of its own. Default: only where the features allow no other framing. */
  separateHeader?: boolean;
}

export type GuestPlan = Required<GuestOptions> & {
  headerLength: number;
  merged: boolean;
  rx: SplitDriverOptions;
  tx: SplitDriverOptions;
  rxState: number;
  txState: number;
  ledger: number;
  ledgerBytes: number;
  scratchBytes: number;
  /** First address behind everything but the buffers. */
  controlEnd: number;
  buffersBytes: number;
};

const BROADCAST = 'ff:ff:ff:ff:ff:ff';
/** Descriptors of an indirect table: header and frame. */
const TABLE_ENTRIES = 2;

function requireInteger(name: string, value: number, least: number, most: number): void {
  if (!Number.isInteger(value) || value < least || value > most)
    throw invalidArgument(`${name} ${value}`, `${least} to ${most}`);
}

function requireAddress(name: string, address: number): void {
  if (!Number.isSafeInteger(address) || address < 0 || address % PAGE_SIZE !== 0) {
    throw invalidArgument(`${name} 0x${address.toString(16)}`, `a multiple of ${PAGE_SIZE}`);
  }
}

/** Defaults filled in, everything checked and placed. Throws VHOST_ERR_INVALID_ARGUMENT. */
export function planGuest(options: GuestOptions): GuestPlan {
  const { gpa, program, features, mac, frames = 0, rxSize = 256, txSize = 256, batch = 64 } = options;
  const rate = program === 'traffic' ? (options.rate ?? 1000) : 0;
  const flood = program.startsWith('flood');
  const { peerMac = BROADCAST, frameSize = flood ? 64 : 128, flow = 1, receiveFlow = 2 } = options;
  const { burst = Math.max(64, Math.ceil(rate / 20)), ledgerCapacity = 65536 } = options;
  const header = headerLength(features);
  const merged = hasBit(features, VIRTIO_NET_F_MRG_RXBUF);
  const anyFraming = hasBit(features, VIRTIO_F_VERSION_1) || hasBit(features, VIRTIO_F_ANY_LAYOUT);
  const { separateHeader = !anyFraming } = options;
  const room = alignUp(Math.max(2048, header + frameSize), 64);
  const { rxBufferSize = room, txBufferSize = room } = options;

  if (!GUEST_PROGRAMS.includes(program)) throw invalidArgument(`guest program ${program}`, GUEST_PROGRAMS.join(', '));
  requireAddress('boot block at', gpa);
  parseMac(mac);
  parseMac(peerMac);
  requireQueueSize(rxSize);
  requireQueueSize(txSize);
  requireFrameSize(frameSize);
  requireInteger('flow', flow, 0, 0xffff);
  requireInteger('receive flow', receiveFlow, 0, 0xffff);
  requireInteger('batch', batch, 1, 32768);
  requireInteger('limit of frames', frames, 0, 0xffffffff);
  const leastBuffer = merged ? 64 : header + ETH_FRAME_LEN;
  requireInteger('receive buffer size', rxBufferSize, leastBuffer, 2 ** 20);
  requireInteger('transmit buffer size', txBufferSize, header + frameSize, 2 ** 20);
  if (rxBufferSize % 64 !== 0 || txBufferSize % 64 !== 0) throw invalidArgument('buffer size', 'a multiple of 64');
  if (!(rate >= 0 && burst >= 1))
    throw invalidArgument(`rate ${rate} with bursts of ${burst}`, 'a rate from 0, bursts from 1');
  if (separateHeader && (rxSize < 2 || txSize < 2) && !hasBit(features, VIRTIO_RING_F_INDIRECT_DESC)) {
    throw invalidArgument('a queue of one entry for chains of two descriptors');
  }

  const eventIdx = hasBit(features, VIRTIO_RING_F_EVENT_IDX);
  const indirect = separateHeader && hasBit(features, VIRTIO_RING_F_INDIRECT_DESC);
  let at = gpa + BOOT_BLOCK_BYTES;
  const take = (bytes: number, alignment: number): number => {
    const start = alignUp(at, alignment);
    at = start + bytes;
    return start;
  };
  const queue = (size: number): { driver: SplitDriverOptions; state: number } => {
    const { bytes } = splitLayout(0, size, eventIdx);
    const { desc, avail, used } = splitLayout(take(bytes, 64), size, eventIdx);
    const state = take(driverStateBytes(size), 64);
    const driver: SplitDriverOptions = { size, desc, avail, used, eventIdx };
    if (indirect) {
      const tables = take(indirectTableBytes(size, TABLE_ENTRIES), 64);
      driver.indirect = { tables, entries: TABLE_ENTRIES };
    }
    return { driver, state };
  };
  const rx = queue(rxSize);
  const tx = queue(txSize);
  const ledgerBytes = FrameLedger.bytes(ledgerCapacity);
  const ledger = take(ledgerBytes, 64);
  const controlEnd = alignUp(at, PAGE_SIZE);
  const { buffersGpa = controlEnd } = options;
  requireAddress('buffers at', buffersGpa);
  const scratchBytes = merged ? alignUp(MAX_TEST_FRAME, 64) : 0;
  const buffersBytes = alignUp(rxSize * rxBufferSize + txSize * txBufferSize + scratchBytes, PAGE_SIZE);
  if (buffersGpa < controlEnd && buffersGpa + buffersBytes > gpa) {
    throw invalidArgument(
      `buffers at 0x${buffersGpa.toString(16)}`,
      `outside 0x${gpa.toString(16)} to 0x${controlEnd.toString(16)}`,
    );
  }
  return {
    gpa,
    program,
    features,
    mac,
    peerMac,
    rate,
    frameSize,
    flow,
    receiveFlow,
    frames,
    rxSize,
    txSize,
    rxBufferSize,
    txBufferSize,
    batch,
    burst,
    ledgerCapacity,
    buffersGpa,
    separateHeader,
    headerLength: header,
    merged,
    rx: rx.driver,
    tx: tx.driver,
    rxState: rx.state,
    txState: tx.state,
    ledger,
    ledgerBytes,
    scratchBytes,
    controlEnd,
    buffersBytes,
  };
}

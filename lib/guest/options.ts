/** What a guest is booted with. */
import { ETH_FRAME_LEN } from '../constants/if-ether';
import {
  VIRTIO_F_ANY_LAYOUT,
  VIRTIO_F_VERSION_1,
  VIRTIO_NET_F_MRG_RXBUF,
  VIRTIO_RING_F_INDIRECT_DESC,
} from '../constants/virtio-net';
import { MAX_QUEUE_PAIRS } from '../device/device-properties';
import { invalidArgument } from '../errors';
import { PAGE_SIZE } from '../memory/address';
import { parseMac } from '../net/ethernet';
import { hasBit } from '../net/features';
import { headerLength } from '../net/header';
import { BROADCAST } from '../net/receive-filter';
import { type FrameKind, fromGuest, requireFlows } from '../net/test-flows';
import { leastFrameSize, requireFrameSize } from '../net/test-frame';
import { alignUp } from '../virtqueue/layout';

export const DEFAULT_QUEUE_SIZE = 256;

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
  /**
   * Queue pairs, 1 to 32. Every pair runs the program: `traffic` sends a flow on each, and frames are accounted to their flow whichever
   * pair they come on. Default 1.
   */
  pairs?: number;
  /** How many of them, the first ones, may send, see Guest.activePairs. Default: all. */
  activePairs?: number;
  /**
   * How the frames look: `udp` lets a tap with several queues tell the flows apart, with ports and addresses by net/test-flows.ts. Default:
   * `udp` with several pairs, else `raw`.
   */
  shape?: FrameKind;
  /** Frames a second of `traffic`, of all flows together, which have equal shares. Default 1,000. */
  rate?: number;
  /** Bytes of a frame without the virtio-net header, 60 (`udp`: 66) to 65,535. Default 128; for the floods 64, or 66. */
  frameSize?: number;
  /** Flow number of the frames sent by the first pair; those of the others follow. Default 1. */
  flow?: number;
  /** Flow number of the frames that the first ledger accounts for; the others follow. Default: behind as many as there are pairs, 2 for one. */
  receiveFlow?: number;
  /** Frames of each flow after which `traffic` sends no more. Default 0: no end. */
  frames?: number;
  /** Entries of the receive and the transmit queue of a pair. Default 256. */
  rxSize?: number;
  txSize?: number;
  /** Entries of the control queue, of a guest whose features have one. Default 64. */
  controlSize?: number;
  /** Bytes of a buffer, header included. Default 2,048, more if the frames need it. */
  rxBufferSize?: number;
  txBufferSize?: number;
  /** Frames a poll handles at most, each way, on each pair. Default 64. */
  batch?: number;
  /** Frames of a flow that `traffic` makes up for at once after a delay. Default: 50 ms worth, at least 64. */
  burst?: number;
  /** Sequences that a ledger tells apart. Default 65,536. */
  ledgerCapacity?: number;
  /** Where the buffers go, a multiple of 4,096. Default: behind the rest. */
  buffersGpa?: number;
  /** Give the header a descriptor of its own. Default: only where the features allow no other framing. */
  separateHeader?: boolean;
}

/** Options with every default filled in, and what follows from them. */
export type GuestSettings = Required<Omit<GuestOptions, 'buffersGpa'>> & {
  headerLength: number;
  /** Frames may come in several buffers. */
  merged: boolean;
};

function requireInteger(name: string, value: number, least: number, most: number): void {
  if (!Number.isInteger(value) || value < least || value > most)
    throw invalidArgument(`${name} ${value}`, `${least} to ${most}`);
}

export function requireAddress(name: string, address: number): void {
  if (!Number.isSafeInteger(address) || address < 0 || address % PAGE_SIZE !== 0) {
    throw invalidArgument(`${name} 0x${address.toString(16)}`, `a multiple of ${PAGE_SIZE}`);
  }
}

/** Throws VHOST_ERR_INVALID_ARGUMENT. The sizes of the queues are checked where those are placed. */
export function guestSettings(options: GuestOptions): GuestSettings {
  const { gpa, program, features, mac, frames = 0, batch = 64 } = options;
  const { rxSize = DEFAULT_QUEUE_SIZE, txSize = DEFAULT_QUEUE_SIZE, controlSize = 64 } = options;
  const { pairs = 1, activePairs = pairs, shape = pairs > 1 ? 'udp' : 'raw' } = options;
  const rate = program === 'traffic' ? (options.rate ?? 1000) : 0;
  const look = fromGuest(shape, 0);
  const { peerMac = BROADCAST, flow = 1, receiveFlow = 1 + pairs, ledgerCapacity = 65536 } = options;
  const { frameSize = program.startsWith('flood') ? Math.max(64, leastFrameSize(look)) : 128 } = options;
  const { burst = Math.max(64, Math.ceil(rate / pairs / 20)) } = options;
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
  requireInteger('queue pairs', pairs, 1, MAX_QUEUE_PAIRS);
  requireInteger('active pairs', activePairs, 1, pairs);
  requireFrameSize(frameSize, look);
  requireFlows(flow, pairs);
  requireFlows(receiveFlow, pairs, 'receive flow');
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
  return {
    gpa,
    program,
    features,
    mac,
    peerMac,
    pairs,
    activePairs,
    shape,
    rate,
    frameSize,
    flow,
    receiveFlow,
    frames,
    rxSize,
    txSize,
    controlSize,
    rxBufferSize,
    txBufferSize,
    batch,
    burst,
    ledgerCapacity,
    separateHeader,
    headerLength: header,
    merged,
  };
}

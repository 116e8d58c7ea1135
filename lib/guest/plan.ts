/**
 * Where the parts of a guest go in guest memory: a stretch for each pair, one after another and all alike, that begins with the pair's boot
 * block; behind them the control queue, and the buffers of all pairs, unless those lie elsewhere.
 */
import { VIRTIO_NET_F_CTRL_VQ } from '../constants/virtio-net';
import { invalidArgument } from '../errors';
import { PAGE_SIZE } from '../memory/address';
import { hasBit } from '../net/features';
import { MAX_TEST_FRAME } from '../net/test-frame';
import { FrameLedger } from '../observe/frame-ledger';
import { alignUp } from '../virtqueue/layout';
import { BOOT_BLOCK_BYTES } from './boot-block';
import { type GuestOptions, type GuestSettings, guestSettings, requireAddress } from './options';
import { planQueue, type QueuePlan } from './rings';

export interface PairPlan {
  /** Of its boot block. */
  gpa: number;
  flow: number;
  receiveFlow: number;
  rx: QueuePlan;
  tx: QueuePlan;
  ledger: number;
  /** Address of its buffers. */
  buffers: number;
}

/** Bytes of the buffer for commands and their acks. */
export const CONTROL_AREA_BYTES = 2048;

export interface GuestPlan extends GuestSettings {
  pairPlans: PairPlan[];
  /** The control queue and its command buffer; null where the features have none. */
  control: { queue: QueuePlan; area: number } | null;
  /** From one pair's boot block to the next one's. */
  stride: number;
  ledgerBytes: number;
  scratchBytes: number;
  /** First address behind everything but the buffers. */
  controlEnd: number;
  /** Of all pairs, one after another. */
  buffersGpa: number;
  buffersBytes: number;
}

/** Bytes of one pair's buffers: receive, transmit, scratch. */
export function pairBufferBytes(rxBytes: number, txBytes: number, scratchBytes: number): number {
  return alignUp(rxBytes + txBytes + scratchBytes, PAGE_SIZE);
}

/** Defaults filled in, everything checked and placed. Throws VHOST_ERR_INVALID_ARGUMENT. */
export function planGuest(options: GuestOptions): GuestPlan {
  const settings = guestSettings(options);
  const { gpa, features, pairs, rxSize, txSize, rxBufferSize, txBufferSize, separateHeader, merged } = settings;
  const ledgerBytes = FrameLedger.bytes(settings.ledgerCapacity);
  let at = gpa;
  const take = (bytes: number, alignment: number): number => {
    const start = alignUp(at, alignment);
    at = start + bytes;
    return start;
  };
  const pairPlans = Array.from({ length: pairs }, (_, index): PairPlan => {
    const block = take(BOOT_BLOCK_BYTES, PAGE_SIZE);
    const rx = planQueue(features, rxSize, separateHeader, take);
    const tx = planQueue(features, txSize, separateHeader, take);
    const ledger = take(ledgerBytes, 64);
    const { flow, receiveFlow } = settings;
    return { gpa: block, flow: flow + index, receiveFlow: receiveFlow + index, rx, tx, ledger, buffers: 0 };
  });
  const control = hasBit(features, VIRTIO_NET_F_CTRL_VQ)
    ? { queue: planQueue(features, settings.controlSize, false, take), area: take(CONTROL_AREA_BYTES, 64) }
    : null;
  const controlEnd = alignUp(at, PAGE_SIZE);
  const { buffersGpa = controlEnd } = options;
  requireAddress('buffers at', buffersGpa);
  const scratchBytes = merged ? alignUp(MAX_TEST_FRAME, 64) : 0;
  const pairBytes = pairBufferBytes(rxSize * rxBufferSize, txSize * txBufferSize, scratchBytes);
  for (const [index, pair] of pairPlans.entries()) pair.buffers = buffersGpa + index * pairBytes;
  const buffersBytes = pairs * pairBytes;
  if (buffersGpa < controlEnd && buffersGpa + buffersBytes > gpa) {
    throw invalidArgument(
      `buffers at 0x${buffersGpa.toString(16)}`,
      `outside 0x${gpa.toString(16)} to 0x${controlEnd.toString(16)}`,
    );
  }
  const stride = pairs > 1 ? pairPlans[1]!.gpa - gpa : controlEnd - gpa;
  return { ...settings, pairPlans, control, stride, ledgerBytes, scratchBytes, controlEnd, buffersGpa, buffersBytes };
}

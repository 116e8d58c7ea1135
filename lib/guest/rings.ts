/** The guest's virtqueues: the one place that knows which formats of rings there are. Everything else works with DriverQueue. */
import { VIRTIO_F_RING_PACKED, VIRTIO_RING_F_EVENT_IDX, VIRTIO_RING_F_INDIRECT_DESC } from '../constants/virtio-net';
import { hasBit } from '../net/features';
import type { DriverQueue } from '../virtqueue/driver-queue';
import { splitLayout } from '../virtqueue/layout';
import { attachDriver } from '../virtqueue/open-queue';
import { PackedDriver } from '../virtqueue/packed-driver';
import { type PackedDriverOptions, packedDriverStateBytes } from '../virtqueue/packed-driver-state';
import { packedLayout } from '../virtqueue/packed-layout';
import type { RingMemory, WriteLog } from '../virtqueue/ring-memory';
import { SplitDriver } from '../virtqueue/split-driver';
import { driverStateBytes, indirectTableBytes, type SplitDriverOptions } from '../virtqueue/split-driver-state';

/** Descriptors of an indirect table: header and frame. */
const TABLE_ENTRIES = 2;

/** Takes a stretch of guest memory: its address. */
export type Take = (bytes: number, alignment: number) => number;

/** Where a queue and its driver's state go. */
export type QueuePlan =
  | { format: 'split'; state: number; driver: SplitDriverOptions }
  | { format: 'packed'; state: number; driver: PackedDriverOptions };

/** Places a queue. `chains` says that every frame has two buffers: then they go through indirect tables where the features allow. */
export function planQueue(features: bigint, size: number, chains: boolean, take: Take): QueuePlan {
  const plan = hasBit(features, VIRTIO_F_RING_PACKED)
    ? planPacked(features, size, take)
    : planSplit(features, size, take);
  if (chains && hasBit(features, VIRTIO_RING_F_INDIRECT_DESC)) {
    plan.driver.indirect = { tables: take(indirectTableBytes(size, TABLE_ENTRIES), 64), entries: TABLE_ENTRIES };
  }
  return plan;
}

function planSplit(features: bigint, size: number, take: Take): QueuePlan {
  const eventIdx = hasBit(features, VIRTIO_RING_F_EVENT_IDX);
  const { bytes } = splitLayout(0, size, eventIdx);
  const { desc, avail, used } = splitLayout(take(bytes, 64), size, eventIdx);
  const state = take(driverStateBytes(size), 64);
  return { format: 'split', state, driver: { size, desc, avail, used, eventIdx } };
}

function planPacked(features: bigint, size: number, take: Take): QueuePlan {
  const eventIdx = hasBit(features, VIRTIO_RING_F_EVENT_IDX);
  const { bytes } = packedLayout(0, size);
  const { desc, driverEvent, deviceEvent } = packedLayout(take(bytes, 64), size);
  const state = take(packedDriverStateBytes(size), 64);
  return { format: 'packed', state, driver: { size, desc, driverEvent, deviceEvent, eventIdx } };
}

/** Writes an unused queue to guest memory. */
export function formatQueue(memory: RingMemory, plan: QueuePlan, log: WriteLog): void {
  if (plan.format === 'packed') PackedDriver.format(memory, plan.state, plan.driver, log);
  else SplitDriver.format(memory, plan.state, plan.driver, log);
}

/** Goes on with the queue whose driver's state lies at `state`. Throws VHOST_ERR_RING when there is none. */
export function attachQueue(memory: RingMemory, state: number, log: WriteLog): DriverQueue {
  return attachDriver(memory, state, log);
}

/** The guest's virtqueues: the one place that knows which formats of rings there are. Everything else works with DriverQueue. */
import { VIRTIO_F_RING_PACKED, VIRTIO_RING_F_EVENT_IDX, VIRTIO_RING_F_INDIRECT_DESC } from '../constants/virtio-net';
import { VhostError } from '../errors';
import { hasBit } from '../net/features';
import type { DriverQueue } from '../virtqueue/driver-queue';
import { splitLayout } from '../virtqueue/layout';
import type { RingMemory, WriteLog } from '../virtqueue/ring-memory';
import { SplitDriver } from '../virtqueue/split-driver';
import { driverStateBytes, indirectTableBytes, type SplitDriverOptions } from '../virtqueue/split-driver-state';

/** Descriptors of an indirect table: header and frame. */
const TABLE_ENTRIES = 2;

/** Takes a stretch of guest memory: its address. */
export type Take = (bytes: number, alignment: number) => number;

export interface QueuePlan {
  /** Where the driver's state goes. */
  state: number;
  driver: SplitDriverOptions;
}

/** Throws VHOST_ERR_UNSUPPORTED for rings that cannot be driven. */
function requireFormat(features: bigint): void {
  if (hasBit(features, VIRTIO_F_RING_PACKED))
    throw new VhostError('VHOST_ERR_UNSUPPORTED', 'packed rings in the guest');
}

/** Places a queue. `chains` says that every frame has two buffers: then they go through indirect tables where the features allow. */
export function planQueue(features: bigint, size: number, chains: boolean, take: Take): QueuePlan {
  requireFormat(features);
  const eventIdx = hasBit(features, VIRTIO_RING_F_EVENT_IDX);
  const { bytes } = splitLayout(0, size, eventIdx);
  const { desc, avail, used } = splitLayout(take(bytes, 64), size, eventIdx);
  const state = take(driverStateBytes(size), 64);
  const driver: SplitDriverOptions = { size, desc, avail, used, eventIdx };
  if (chains && hasBit(features, VIRTIO_RING_F_INDIRECT_DESC)) {
    driver.indirect = { tables: take(indirectTableBytes(size, TABLE_ENTRIES), 64), entries: TABLE_ENTRIES };
  }
  return { state, driver };
}

/** Writes an unused queue to guest memory. */
export function formatQueue(memory: RingMemory, { state, driver }: QueuePlan, log: WriteLog): void {
  SplitDriver.format(memory, state, driver, log);
}

/** Goes on with the queue whose driver's state lies at `state`. Throws VHOST_ERR_RING when there is none. */
export function attachQueue(memory: RingMemory, features: bigint, state: number, log: WriteLog): DriverQueue {
  requireFormat(features);
  return SplitDriver.attach(memory, state, log);
}

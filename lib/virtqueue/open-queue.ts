/** Either half of a virtqueue of either format, for whoever does not mind which. */
import type { DeviceQueue } from './device-queue';
import type { DriverQueue } from './driver-queue';
import { readMagic } from './driver-state';
import { PackedDevice, type PackedDeviceOptions } from './packed-device';
import { PackedDriver } from './packed-driver';
import { PACKED_DRIVER_MAGIC } from './packed-driver-state';
import type { QueueState } from './queue-state';
import type { RingMemory, WriteLog } from './ring-memory';
import { SplitDevice, type SplitDeviceOptions } from './split-device';
import { SplitDriver } from './split-driver';

/** The options are the same for both formats. */
export type DeviceQueueOptions = SplitDeviceOptions & PackedDeviceOptions;

/** A state with packed positions is of a packed virtqueue. Throws VHOST_ERR_RING for a state that does not fit guest memory. */
export function openDeviceQueue(
  memory: RingMemory,
  state: Readonly<QueueState>,
  options: DeviceQueueOptions = {},
): DeviceQueue {
  return state.packed === undefined
    ? new SplitDevice(memory, state, options)
    : new PackedDevice(memory, state, options);
}

/** Goes on with the queue whose driver state lies at `stateAt`, by its magic. Throws VHOST_ERR_RING when there is none. */
export function attachDriver(memory: RingMemory, stateAt: number, log?: WriteLog): DriverQueue {
  return readMagic(memory, stateAt) === PACKED_DRIVER_MAGIC
    ? PackedDriver.attach(memory, stateAt, log)
    : SplitDriver.attach(memory, stateAt, log);
}

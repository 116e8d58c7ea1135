/** A device while a data path serves it: with queue states of the path's own, which say where a ring stood that is out of service. */
import { copyQueueState, type QueueState } from '../virtqueue/queue-state';
import type { BackendDevice, QueueNotifiers } from './backend';
import type { PathSettings } from './path-settings';

export class ServedDevice implements BackendDevice {
  /** What the path was started with; its queues describe a ring that is to be served anew. */
  readonly described: BackendDevice;
  readonly queues: QueueState[];

  constructor(described: BackendDevice) {
    this.described = described;
    this.queues = described.queues.map(copyQueueState);
  }

  /** Takes a queue as the device describes it now: it is to be served anew. */
  renew(queue: number): void {
    this.queues[queue] = copyQueueState(this.described.queues[queue]!);
  }

  get memory(): BackendDevice['memory'] {
    return this.described.memory;
  }

  get features(): bigint {
    return this.described.features;
  }

  get notifiers(): readonly QueueNotifiers[] {
    return this.described.notifiers;
  }

  get settings(): PathSettings | undefined {
    return this.described.settings;
  }
}

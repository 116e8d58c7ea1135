/** Describes the virtqueues of this process for `vhost-net inspect`. */
import type { QueueNotifiers } from '../backend/backend';
import type { GuestMemory } from '../memory/guest-memory';
import { native } from '../native';
import type { QueueState } from '../virtqueue/queue-state';
import type { QueueRole } from '../virtqueue/ring-inspection';
import type { Description } from './queue-description';

export interface DescribedParts {
  memory: GuestMemory;
  /** Acked by the driver. */
  features: bigint;
  queues: readonly QueueState[];
  /** Described when it is ready; its notifiers are behind those of `queues`. */
  controlQueue?: QueueState | null;
  /** Default: receive 2n, transmit 2n + 1. */
  roles?: readonly QueueRole[];
  /** With them the command also says what the eventfds count. */
  notifiers?: readonly QueueNotifiers[];
  /** Whether a device serves the queues. Default true. */
  running?: boolean;
}

/** Valid while this process lives and its memory keeps its regions. Throws VHOST_ERR_CLOSED. A VirtioNetDevice has the parts. */
export function describeQueues(parts: DescribedParts): Description {
  const { memory, features, queues, controlQueue, roles, notifiers, running = true } = parts;
  const all = controlQueue?.ready === true ? [...queues, controlQueue] : queues;
  return {
    pid: process.pid,
    features: `0x${features.toString(16)}`,
    running,
    regions: memory.regions.map(({ gpa, size, fd }) => ({
      gpa,
      size,
      path: `/proc/${process.pid}/fd/${native().fdNumber(fd)}`,
      offset: 0,
    })),
    queues: all.map((queue, index) => {
      const own = index === queues.length ? 'control' : index % 2 === 0 ? 'receive' : 'transmit';
      const notifier = notifiers?.[index];
      return {
        ...queue,
        role: roles?.[index] ?? own,
        ...(notifier === undefined ? {} : { kickFd: notifier.kick.fd, callFd: notifier.call.fd }),
      };
    }),
  };
}

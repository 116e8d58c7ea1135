/** Inspects the queues of a description: opens the memory of another process for reading and looks. */
import { readFileSync } from 'node:fs';
import { VIRTIO_RING_F_EVENT_IDX, VIRTIO_RING_F_INDIRECT_DESC } from '../constants/virtio-ring';
import { invalidArgument } from '../errors';
import { ReadOnlyMemory } from '../memory/read-only-memory';
import { hasBit } from '../net/features';
import type { QueueInspection } from '../virtqueue/ring-inspection';
import { inspectQueue } from '../virtqueue/ring-inspector';
import type { Description } from './queue-description';

export interface NumberedInspection {
  queue: number;
  inspection: QueueInspection;
}

/**
 * All queues, or the one numbered `queue`. Throws VHOST_ERR_INVALID_ARGUMENT for a queue that is not described or cannot be, and what
 * opening the regions throws.
 */
export function inspectDescription(
  description: Description,
  { queue, limit }: { queue?: number | undefined; limit?: number | undefined } = {},
): NumberedInspection[] {
  const { pid, queues, regions, running } = description;
  if (queue !== undefined && queues[queue] === undefined) {
    throw invalidArgument(`queue ${queue}`, `the description has ${queues.length}`);
  }
  const features = BigInt(description.features);
  const memory = ReadOnlyMemory.open(regions);
  try {
    return queues.flatMap(({ role, kickFd, callFd, ...state }, number) => {
      if (queue !== undefined && queue !== number) return [];
      const inspection = inspectQueue(memory, state, {
        eventIdx: hasBit(features, VIRTIO_RING_F_EVENT_IDX),
        indirect: hasBit(features, VIRTIO_RING_F_INDIRECT_DESC),
        role,
        running,
        limit,
        kicks: eventFdCount(pid, kickFd),
        calls: eventFdCount(pid, callFd),
      });
      return [{ queue: number, inspection }];
    });
  } finally {
    memory.close();
  }
}

/** What an eventfd of a process counts, without reading it empty; undefined where there is none to be seen. */
function eventFdCount(pid: number, fd: number | undefined): number | undefined {
  if (fd === undefined) return undefined;
  try {
    const count = /^eventfd-count:\s*([0-9a-f]+)$/m.exec(readFileSync(`/proc/${pid}/fdinfo/${fd}`, 'utf8'));
    return count === null ? undefined : Number.parseInt(count[1]!, 16);
  } catch {
    return undefined;
  }
}

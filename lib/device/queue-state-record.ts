/** A queue state as it is read back. Where its parts lie in guest memory is checked by whoever serves it. */
import {
  VIRTQUEUE_MAX_SIZE,
  VRING_AVAIL_ALIGN_SIZE,
  VRING_DESC_ALIGN_SIZE,
  VRING_USED_ALIGN_SIZE,
} from '../constants/virtio-ring';
import { gpa } from '../memory/address';
import { isQueueSize } from '../virtqueue/layout';
import type { PackedPosition, QueueState } from '../virtqueue/queue-state';
import { fields, type Reader } from './state-reader';

export function decodeQueue(reader: Reader, value: unknown, name: string): QueueState {
  const queue = fields(reader, value, name);
  const of = (field: string): string => `${name} ${field}`;
  const size = reader.integer(queue.size, of('size'), 1, VIRTQUEUE_MAX_SIZE);
  const packed = queue.packed === undefined ? undefined : decodePacked(reader, queue.packed, of('packed'), size);
  if (packed === undefined && !isQueueSize(size)) reader.refuse(`${of('size')} is ${size}`, 'a power of two');
  const address = (field: 'descTable' | 'availRing' | 'usedRing', alignment: number) => {
    const at = reader.integer(queue[field], of(field), 0, Number.MAX_SAFE_INTEGER);
    if (at % alignment !== 0) reader.refuse(`${of(field)} is 0x${at.toString(16)}`, `a multiple of ${alignment}`);
    return gpa(at);
  };
  return {
    size,
    ready: reader.boolean(queue.ready, of('ready')),
    descTable: address('descTable', VRING_DESC_ALIGN_SIZE),
    availRing: address('availRing', packed === undefined ? VRING_AVAIL_ALIGN_SIZE : VRING_USED_ALIGN_SIZE),
    usedRing: address('usedRing', VRING_USED_ALIGN_SIZE),
    nextAvail: reader.integer(queue.nextAvail, of('nextAvail'), 0, packed === undefined ? 0xffff : size - 1),
    ...(packed === undefined ? {} : { packed }),
  };
}

function decodePacked(reader: Reader, value: unknown, name: string, size: number): PackedPosition {
  const packed = fields(reader, value, name);
  return {
    availWrap: reader.boolean(packed.availWrap, `${name} availWrap`),
    nextUsed: reader.integer(packed.nextUsed, `${name} nextUsed`, 0, size - 1),
    usedWrap: reader.boolean(packed.usedWrap, `${name} usedWrap`),
  };
}

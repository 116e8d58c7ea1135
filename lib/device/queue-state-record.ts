/**
 * A queue state as it is read back. Where the parts of a queue lie in guest memory is checked by whoever serves it; of one that is not
 * enabled the registers are whatever the driver has written to them, and are checked when it is.
 */
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

/** What a driver can write to an address register; beyond 2^53 it is rounded, and no memory is there. */
const MOST_ADDRESS = 2 ** 64;
const MOST_WORD = 0xffffffff;
const MOST_INDEX = 0xffff;

export function decodeQueue(reader: Reader, value: unknown, name: string): QueueState {
  const queue = fields(reader, value, name);
  const of = (field: string): string => `${name} ${field}`;
  const ready = reader.boolean(queue.ready, of('ready'));
  const size = ready
    ? reader.integer(queue.size, of('size'), 1, VIRTQUEUE_MAX_SIZE)
    : reader.integer(queue.size, of('size'), 0, MOST_WORD);
  const last = ready ? size - 1 : MOST_INDEX;
  const packed = queue.packed === undefined ? undefined : decodePacked(reader, queue.packed, of('packed'), last);
  if (ready && packed === undefined && !isQueueSize(size)) reader.refuse(`${of('size')} is ${size}`, 'a power of two');
  const address = (field: 'descTable' | 'availRing' | 'usedRing', alignment: number) => {
    if (!ready) return gpa(reader.whole(queue[field], of(field), MOST_ADDRESS));
    const at = reader.integer(queue[field], of(field), 0, Number.MAX_SAFE_INTEGER);
    if (at % alignment !== 0) reader.refuse(`${of(field)} is 0x${at.toString(16)}`, `a multiple of ${alignment}`);
    return gpa(at);
  };
  return {
    size,
    ready,
    descTable: address('descTable', VRING_DESC_ALIGN_SIZE),
    availRing: address('availRing', packed === undefined ? VRING_AVAIL_ALIGN_SIZE : VRING_USED_ALIGN_SIZE),
    usedRing: address('usedRing', VRING_USED_ALIGN_SIZE),
    nextAvail: reader.integer(queue.nextAvail, of('nextAvail'), 0, packed === undefined ? MOST_INDEX : last),
    ...(packed === undefined ? {} : { packed }),
  };
}

function decodePacked(reader: Reader, value: unknown, name: string, last: number): PackedPosition {
  const packed = fields(reader, value, name);
  return {
    availWrap: reader.boolean(packed.availWrap, `${name} availWrap`),
    nextUsed: reader.integer(packed.nextUsed, `${name} nextUsed`, 0, last),
    usedWrap: reader.boolean(packed.usedWrap, `${name} usedWrap`),
  };
}

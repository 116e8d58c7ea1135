import { VhostError } from '../errors';

/** What a device says of a ring it will not touch again. */
export function brokenRing(format: 'split' | 'packed', what: string, cause?: unknown): VhostError {
  return new VhostError('VHOST_ERR_RING', `${format} virtqueue: ${what}`, cause === undefined ? {} : { cause });
}

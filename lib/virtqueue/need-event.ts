/**
 * Whether moving an index from `from` to `to` passed the entry the other side waits for (vring_need_event, virtio 1.4 section 2.7.10):
 * all three are free-running modulo 65536.
 */
export function needEvent(event: number, to: number, from: number): boolean {
  return ((to - event - 1) & 0xffff) < ((to - from) & 0xffff);
}

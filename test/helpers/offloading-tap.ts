/** A host with offloads: its frames go into the network with a virtio-net header, unsegmented and without checksums. */

import type { Tap } from '../../lib/host/tap';
import { type VirtioNetHeader, writeHeader } from '../../lib/net/header';

/** Bytes of the header such a tap is set to. */
export const OFFLOADING_HEADER = 12;

const NONE: VirtioNetHeader = {
  flags: 0,
  gsoType: 0,
  hdrLen: 0,
  gsoSize: 0,
  csumStart: 0,
  csumOffset: 0,
  numBuffers: 0,
};

/** Throws unless the tap took it. */
export function inject(tap: Tap, bytes: Uint8Array, header: Partial<VirtioNetHeader> = {}): void {
  const frame = new Uint8Array(OFFLOADING_HEADER + bytes.length);
  writeHeader(new DataView(frame.buffer), 0, OFFLOADING_HEADER, { ...NONE, ...header });
  frame.set(bytes, OFFLOADING_HEADER);
  if (tap.writeFrames(frame, frame.length, 1, Int32Array.of(frame.length)) !== 1) throw new Error('not taken');
}

/**
 * Tells the network that an address has moved: a reverse-ARP request as a broadcast from it (RFC 903), which makes every switch on the
 * way learn the port, and needs nothing from the guest.
 */
import type { Tap } from '../host/tap';

const FRAME_LENGTH = 60;
const ETHERTYPE_RARP = 0x8035;

/** The frame itself, without a virtio-net header. `mac` has colons. */
export function rarpFrame(mac: string): Uint8Array {
  const address = Uint8Array.from(mac.split(':'), (byte) => Number.parseInt(byte, 16));
  const frame = new Uint8Array(FRAME_LENGTH);
  const view = new DataView(frame.buffer);
  frame.fill(0xff, 0, 6);
  frame.set(address, 6);
  view.setUint16(12, ETHERTYPE_RARP);
  view.setUint16(14, 1); // hardware type Ethernet
  view.setUint16(16, 0x0800); // protocol type IPv4
  view.setUint8(18, 6);
  view.setUint8(19, 4);
  view.setUint16(20, 3); // request reverse
  frame.set(address, 22);
  frame.set(address, 32);
  return frame;
}

/** Sends it into the network through the tap, as if the guest had: writing beside an attached vhost is allowed, reading is not. */
export function announce(tap: Tap, mac: string): void {
  const header = tap.vnetHdrSize;
  const stride = header + FRAME_LENGTH;
  const arena = new Uint8Array(stride);
  arena.set(rarpFrame(mac), header);
  tap.writeFrames(arena, stride, 1, Int32Array.of(stride));
}

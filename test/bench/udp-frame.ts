/** What testpmd's txonly sends: UDP from 198.18.0.1 to 198.18.0.2, port 9 to 9, without a UDP checksum. */

const IP = 14;
const UDP = 34;

/** `length` in bytes, from 60. */
export function udpFrame(length: number): Uint8Array {
  const frame = Buffer.alloc(length);
  frame.set([0x02, 0, 0, 0, 0, 0x00, 0x02, 0, 0, 0, 0, 0x01, 0x08, 0x00]);
  frame.set([0x45, 0, 0, 0, 0, 0, 0, 0, 64, 17, 0, 0, 198, 18, 0, 1, 198, 18, 0, 2], IP);
  frame.writeUInt16BE(length - IP, IP + 2);
  frame.writeUInt16BE(internetChecksum(frame, IP, UDP), IP + 10);
  frame.writeUInt16BE(9, UDP);
  frame.writeUInt16BE(9, UDP + 2);
  frame.writeUInt16BE(length - UDP, UDP + 4);
  return frame;
}

/** RFC 1071 over the 16-bit words from `from` to `to`. */
function internetChecksum(bytes: Buffer, from: number, to: number): number {
  let sum = 0;
  for (let at = from; at < to; at += 2) sum += bytes.readUInt16BE(at);
  while (sum > 0xffff) sum = (sum & 0xffff) + (sum >>> 16);
  return ~sum & 0xffff;
}

/** Frames for the guest on their way to the destination: u16 queue pair, u16 zero, u32 length, then the frame with its virtio-net header. */
import { ETH_HLEN } from '../../constants/if-ether';
import { VIRTIO_NET_HDR_SIZE } from '../../constants/virtio-net';
import { ProtocolError } from '../../errors';

const ENTRY_HEADER = 8;
/** Bytes of the shortest frame, with the shortest header (virtio 1.4 section 5.1.6): a tap gives none that is shorter. */
const LEAST = VIRTIO_NET_HDR_SIZE + ETH_HLEN;
/** Bytes after which a batch is sent. */
const FULL = 256 * 1024;

export class FrameBatch {
  #parts: Uint8Array[] = [];
  #bytes = 0;

  get empty(): boolean {
    return this.#bytes === 0;
  }

  get full(): boolean {
    return this.#bytes >= FULL;
  }

  add(pair: number, frame: Uint8Array): void {
    const header = Buffer.alloc(ENTRY_HEADER);
    header.writeUInt16LE(pair, 0);
    header.writeUInt32LE(frame.length, 4);
    this.#parts.push(header, frame);
    this.#bytes += ENTRY_HEADER + frame.length;
  }

  take(): Buffer {
    const taken = Buffer.concat(this.#parts, this.#bytes);
    this.#parts = [];
    this.#bytes = 0;
    return taken;
  }
}

/** `offset` is where the payload began in the stream, `largest` the longest frame with its header. */
export function decodeFrames(
  payload: Buffer,
  offset: number,
  { pairs, largest }: { pairs: number; largest: number },
  onFrame: (pair: number, frame: Uint8Array) => void,
): void {
  for (let at = 0; at < payload.length; ) {
    if (payload.length - at < ENTRY_HEADER) {
      throw new ProtocolError(`FRAMES with ${payload.length - at} bytes left`, offset + at, `${ENTRY_HEADER} or more`);
    }
    const pair = payload.readUInt16LE(at);
    const length = payload.readUInt32LE(at + 4);
    if (pair >= pairs) throw new ProtocolError(`a frame for pair ${pair}`, offset + at, `0 to ${pairs - 1}`);
    if (length < LEAST || length > largest || length > payload.length - at - ENTRY_HEADER) {
      throw new ProtocolError(
        `a frame of ${length} bytes`,
        offset + at + 4,
        `${LEAST} to ${Math.min(largest, payload.length - at - ENTRY_HEADER)}`,
      );
    }
    at += ENTRY_HEADER;
    onFrame(pair, payload.subarray(at, at + length));
    at += length;
  }
}

/** Frames of a recorded stream, good or bad, with what is wrong with each. Goes on behind an error where it can; holds one frame at a time. */
import {
  checksumOf,
  FRAME_HEADER_SIZE,
  FRAME_MAX_PAYLOAD,
  FrameType,
  frameName,
  STREAM_MAGIC,
  streamSeed,
} from './frame';

export interface InspectedFrame {
  offset: number;
  type: number;
  name: string;
  sequence: number;
  length: number;
  /** Unknown in what a destination sends: the seed is the source's identity, which only the other direction has. */
  checksum: 'ok' | 'bad' | 'unknown';
  payload: Buffer;
  errors: string[];
}

/** Bytes that are no frame. */
export interface Garbage {
  offset: number;
  bytes: number;
  errors: string[];
}

const KNOWN = new Set<number>(Object.values(FrameType));
const MAGIC = Buffer.alloc(4);
MAGIC.writeUInt32LE(STREAM_MAGIC);

/** Reads a byte source of any size. */
class Window {
  readonly #chunks: AsyncIterator<Uint8Array>;
  #bytes: Buffer = Buffer.alloc(0);
  /** Of the first byte that is held. */
  offset = 0;

  constructor(chunks: AsyncIterable<Uint8Array>) {
    this.#chunks = chunks[Symbol.asyncIterator]();
  }

  get bytes(): Buffer {
    return this.#bytes;
  }

  /** Holds at least so many bytes, or all that there are. */
  async fill(length: number): Promise<boolean> {
    const parts = [this.#bytes];
    let held = this.#bytes.length;
    while (held < length) {
      const { done, value } = await this.#chunks.next();
      if (done === true) break;
      parts.push(Buffer.from(value.buffer, value.byteOffset, value.byteLength));
      held += value.byteLength;
    }
    if (parts.length > 1) this.#bytes = Buffer.concat(parts);
    return held >= length;
  }

  drop(length: number): void {
    this.#bytes = this.#bytes.subarray(length);
    this.offset += length;
  }
}

/** In their order. Throws only what `chunks` throws. */
export async function* streamFrames(chunks: AsyncIterable<Uint8Array>): AsyncGenerator<InspectedFrame | Garbage> {
  const window = new Window(chunks);
  let expected = 0;
  let seed: number | null = 0;
  while (await window.fill(1)) {
    const whole = await window.fill(FRAME_HEADER_SIZE);
    if (!whole || window.bytes.readUInt32LE(0) !== STREAM_MAGIC) {
      yield await skip(window, whole ? 'no frame begins here' : 'the stream ends within a header');
      continue;
    }
    const header = Buffer.from(window.bytes.subarray(0, FRAME_HEADER_SIZE));
    const [type, flags] = [header.readUInt16LE(4), header.readUInt16LE(6)];
    const [sequence, length] = [header.readUInt32LE(8), header.readUInt32LE(12)];
    if (length > FRAME_MAX_PAYLOAD) {
      yield await skip(window, `a length of ${length} bytes, at most ${FRAME_MAX_PAYLOAD}`);
      continue;
    }
    const { offset } = window;
    if (!(await window.fill(FRAME_HEADER_SIZE + length))) {
      const got = window.bytes.length - FRAME_HEADER_SIZE;
      yield await skip(window, `${frameName(type)} ends after ${got} of ${length} bytes`);
      continue;
    }
    const payload = window.bytes.subarray(FRAME_HEADER_SIZE, FRAME_HEADER_SIZE + length);
    const errors: string[] = [];
    if (!KNOWN.has(type)) errors.push(`type ${type} is not known`);
    if (flags !== 0) errors.push(`flags are 0x${flags.toString(16)}, not 0`);
    if (sequence !== expected) errors.push(`number ${sequence}, ${expected} was due`);
    const checksum = verdict(type, header, payload, type === FrameType.HELLO ? 0 : seed);
    if (checksum === 'bad') {
      await window.fill(FRAME_HEADER_SIZE + length + MAGIC.length);
      if (!beginsAt(window.bytes, FRAME_HEADER_SIZE + length)) {
        // Its length may be what is wrong: the next frame begins where the next magic is.
        yield await skip(window, `${frameName(type)} with another checksum, and no frame behind it`);
        continue;
      }
      errors.push('the checksum is another');
    }
    yield { offset, type, name: frameName(type), sequence, length, checksum, payload, errors };
    if (type === FrameType.HELLO && checksum === 'ok') seed = seedIn(payload);
    expected = (sequence + 1) >>> 0;
    window.drop(FRAME_HEADER_SIZE + length);
  }
}

function beginsAt(bytes: Buffer, at: number): boolean {
  return bytes.length < at + MAGIC.length || bytes.readUInt32LE(at) === STREAM_MAGIC;
}

/** To the next magic, or the end. */
async function skip(window: Window, error: string): Promise<Garbage> {
  const { offset } = window;
  window.drop(1);
  for (;;) {
    const more = await window.fill(Math.max(window.bytes.length + 1, FRAME_HEADER_SIZE));
    const found = window.bytes.indexOf(MAGIC);
    if (found >= 0) {
      window.drop(found);
      break;
    }
    // The beginning of a magic may be among the last bytes.
    window.drop(more ? Math.max(0, window.bytes.length - 3) : window.bytes.length);
    if (!more) break;
  }
  const bytes = window.offset - offset;
  return { offset, bytes, errors: [`${error}: ${bytes} bytes are left out`] };
}

function verdict(type: number, header: Buffer, payload: Buffer, seed: number | null): InspectedFrame['checksum'] {
  if (seed === null) return 'unknown';
  const actual = checksumOf(type, header, payload, seed);
  return actual === header.readUInt32LE(16) ? 'ok' : 'bad';
}

/** A destination's HELLO has no identity. */
function seedIn(payload: Buffer): number | null {
  try {
    const { identity } = JSON.parse(payload.toString('utf8')) as { identity?: unknown };
    return typeof identity === 'string' && identity !== '' ? streamSeed(Buffer.from(identity, 'hex')) : null;
  } catch {
    return null;
  }
}

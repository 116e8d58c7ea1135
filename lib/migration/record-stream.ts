/** A file of what one side sends over one connection, byte for byte, for inspect-stream and for tests. It never holds up or fails a migration. */
import { createWriteStream, type WriteStream } from 'node:fs';
import { VhostError } from '../errors';

/** Bytes that wait for a slow disk before the recording is given up: one with a gap would be of no use. */
const MAX_WAITING = 256 * 1024 * 1024;
/** How long `close` waits for the disk. */
const LINGER_MS = 5000;

export class StreamRecording {
  readonly #file: WriteStream;
  #failure: Error | null = null;

  /** Replaces the file at `path`. It holds guest memory, so it is for its owner alone. */
  constructor(path: string) {
    this.#file = createWriteStream(path, { mode: 0o600 });
    this.#file.on('error', (error) => {
      this.#failure ??= error;
    });
  }

  /** Why the recording is not whole: the file cannot be written, or the disk is too slow. Null while all is well. */
  get failure(): Error | null {
    return this.#failure;
  }

  /** Keeps `bytes` until they are written: they must not change. */
  readonly write = (bytes: Uint8Array): void => {
    if (this.#failure !== null || !this.#file.writable) return;
    this.#file.write(bytes);
    if (this.#file.writableLength <= MAX_WAITING) return;
    this.#failure = new VhostError('VHOST_ERR_STATE', `${this.#file.writableLength} bytes wait for the disk`);
    this.#file.destroy();
  };

  /** Resolves when the kernel has everything, the file has failed, or the disk stands still. Never rejects. */
  async close(): Promise<void> {
    await new Promise<void>((resolve) => {
      if (this.#file.closed) {
        resolve();
        return;
      }
      const timer = setTimeout(resolve, LINGER_MS);
      this.#file.once('close', () => {
        clearTimeout(timer);
        resolve();
      });
      this.#file.end();
    });
    this.#file.destroy();
  }
}

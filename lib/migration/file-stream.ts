/**
 * A file as the other side of a migration stream. A file answers nothing: who writes reads the greeting that a destination would give, and
 * what a reader writes goes nowhere. Nothing is buffered beyond what the streams hold back for.
 */
import type { FileHandle } from 'node:fs/promises';
import { Duplex } from 'node:stream';
import { VhostError } from '../errors';
import { encodeFrameHeader, FrameType, STREAM_MIN_VERSION, STREAM_VERSION } from './frame';

/** What of a FileHandle a save needs. */
export interface SaveFile {
  write(bytes: Uint8Array): Promise<{ bytesWritten: number }>;
  sync(): Promise<void>;
  close(): Promise<void>;
}

const READ_SIZE = 256 * 1024;
/** One frame of pages. */
const WRITE_AHEAD = 1024 * 1024;

/** The greeting of a destination that takes this version. */
function greeting(): Buffer {
  const hello = {
    version: STREAM_VERSION,
    minVersion: STREAM_MIN_VERSION,
    product: 'file',
    identity: '',
    channel: 'control',
    index: 0,
  };
  const payload = Buffer.from(JSON.stringify(hello));
  return Buffer.concat([encodeFrameHeader(FrameType.HELLO, 0, payload, 0), payload]);
}

/** Writes to the file, one piece after the other. `errored` is what the file said, whatever became of it above. */
export class FileWriter extends Duplex {
  readonly #file: SaveFile;

  constructor(file: SaveFile) {
    super({ writableHighWaterMark: WRITE_AHEAD });
    this.#file = file;
    this.push(greeting());
  }

  override _read(): void {}

  override _write(chunk: Buffer, _encoding: BufferEncoding, done: (error?: Error | null) => void): void {
    this.#writeAll(chunk).then(
      () => done(),
      (error: Error) => done(error),
    );
  }

  async #writeAll(bytes: Buffer): Promise<void> {
    for (let at = 0; at < bytes.length; ) at += (await this.#file.write(bytes.subarray(at))).bytesWritten;
  }

  /** Resolves when the kernel has everything. */
  flushed(): Promise<void> {
    return new Promise((resolve, reject) => {
      this.once('error', reject);
      this.end(() => {
        this.off('error', reject);
        if (this.errored === null) resolve();
        else reject(this.errored);
      });
    });
  }
}

/** Reads the file from its beginning. */
export class FileReader extends Duplex {
  readonly #file: FileHandle;

  constructor(file: FileHandle) {
    super({ readableHighWaterMark: READ_SIZE });
    this.#file = file;
  }

  override _read(): void {
    this.#file.read(Buffer.allocUnsafe(READ_SIZE), 0, READ_SIZE, null).then(
      ({ bytesRead, buffer }) => this.push(bytesRead === 0 ? null : buffer.subarray(0, bytesRead)),
      (error: Error) => this.destroy(error),
    );
  }

  override _write(_chunk: Buffer, _encoding: BufferEncoding, done: () => void): void {
    done();
  }
}

const HINTS: Readonly<Record<string, string>> = {
  ENOSPC: 'the disk is full: a file takes as much as the guest has touched',
  EDQUOT: 'the disk quota is used up',
  EFBIG: 'files may not be so large: see ulimit -f',
  EROFS: 'the file system is read-only',
  EACCES: 'this user may not',
  EPERM: 'this user may not',
  ENOENT: 'the file, or the folder that it should lie in, is not there',
  ENOTDIR: 'a part of the path is no folder',
  EISDIR: 'it is a folder',
  EIO: 'the disk failed',
};

/** What the file system refused, with the file and what to do. Anything else is given back as it is. */
export function fileError(error: unknown, path: string, hint?: string): unknown {
  if (error instanceof VhostError) return error;
  const { code, errno, syscall } = error as NodeJS.ErrnoException;
  if (code === undefined || syscall === undefined) return error;
  const advice = hint ?? HINTS[code];
  return new VhostError(code, `${code}: ${syscall} '${path}'`, {
    ...(errno === undefined ? {} : { errno }),
    syscall,
    path,
    ...(advice === undefined ? {} : { hint: advice }),
    cause: error,
  });
}

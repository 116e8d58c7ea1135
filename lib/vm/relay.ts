import type { Socket } from 'node:net';
import type { Writable } from 'node:stream';
import { TrailerFilter } from './trailer';

export interface Relay {
  /** Resolves once the trailer was seen (true) or the port closed without one (false), and all bytes were handed on. */
  readonly finished: Promise<boolean>;
  /** Milliseconds for which nothing has arrived; 0 while the target is still taking what has. */
  idleMs(): number;
}

/**
 * Moves a port's bytes to `target`, no faster than it takes them, up to the trailer. A target that fails (its reader is gone)
 * is reported once; the rest is then dropped.
 */
export function relay(port: Socket, trailer: string, target: Writable, targetFailed: () => void): Relay {
  const filter = new TrailerFilter(trailer);
  let broken = false;
  let writing = false;
  let last = performance.now();
  const onError = (): void => {
    if (!broken) targetFailed();
    broken = true;
  };
  target.on('error', onError);
  const write = async (bytes: Buffer): Promise<void> => {
    if (broken || bytes.length === 0) return;
    writing = true;
    await new Promise<void>((resolve) => {
      target.once('close', resolve);
      target.write(bytes, () => {
        target.off('close', resolve);
        resolve();
      });
    });
    writing = false;
    last = performance.now();
  };
  const pump = async (): Promise<boolean> => {
    try {
      for await (const chunk of port as AsyncIterable<Buffer>) {
        last = performance.now();
        await write(filter.push(chunk));
        if (filter.ended) return true;
      }
    } catch {
      // The machine is gone; all that it had sent was handed on.
    }
    await write(filter.flush());
    return false;
  };
  const finished = pump().finally(() => target.off('error', onError));
  return { finished, idleMs: () => (writing ? 0 : performance.now() - last) };
}

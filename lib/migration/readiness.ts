/** Waits until a socket can be read or written, without a thread. */
import { abortedError, check, VhostError } from '../errors';
import { type FdHandle, native, type PollHandle } from '../native';

export const Readiness = { READABLE: 1, WRITABLE: 2 } as const;
export type Readiness = (typeof Readiness)[keyof typeof Readiness];

/** Resolves when the call that would have waited is worth another try. Throws VHOST_ERR_TIMEOUT after `timeoutMs`, VHOST_ERR_ABORTED. */
export async function untilReady(
  fd: FdHandle,
  events: Readiness,
  doing: string,
  timeoutMs: number | null,
  signal: AbortSignal,
): Promise<void> {
  if (signal.aborted) throw abortedError(doing, signal.reason);
  let poll: PollHandle | undefined;
  let timer: NodeJS.Timeout | undefined;
  let onAbort: (() => void) | undefined;
  try {
    await new Promise<void>((resolve, reject) => {
      poll = check<PollHandle>(
        native().pollStart(fd, events, () => resolve()),
        'epoll_ctl',
      );
      onAbort = () => reject(abortedError(doing, signal.reason));
      signal.addEventListener('abort', onAbort, { once: true });
      if (timeoutMs === null) return;
      const silence = (): void =>
        reject(
          new VhostError('VHOST_ERR_TIMEOUT', `${doing}: nothing for ${timeoutMs} ms`, {
            hint: 'the peer or the network stands still',
          }),
        );
      timer = setTimeout(silence, timeoutMs);
    });
  } finally {
    if (poll !== undefined) native().pollStop(poll);
    if (onAbort !== undefined) signal.removeEventListener('abort', onAbort);
    clearTimeout(timer);
  }
}

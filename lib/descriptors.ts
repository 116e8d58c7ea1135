/** What both protocols that pass descriptors need: letting go of them, and the error where this process has no number for one more. */
import { systemError, VhostError } from './errors';
import { type FdHandle, native } from './native';

export const EMFILE = -24;

export function closeAll(fds: readonly FdHandle[]): void {
  for (const fd of fds) native().fdClose(fd);
}

/** Of a recvmsg(2) that would have brought descriptors. */
export function noNumbers(): VhostError {
  const { code, message, errno, syscall } = systemError(EMFILE, 'recvmsg');
  return new VhostError(code, message, {
    errno: errno!,
    syscall: syscall!,
    hint: 'this process has no room for so many descriptors: raise its limit (ulimit -n)',
  });
}

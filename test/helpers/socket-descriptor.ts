/** The descriptor of a socket that Node made, for code that wants one of its own. */
import type { Socket } from 'node:net';
import { check } from '../../lib/errors';
import { type FdHandle, native } from '../../lib/native';

/** Owns it from here on: the socket, which must stand paused, is neither used nor destroyed any more, since its number is not Node's now. */
export function takeDescriptor(socket: Socket): FdHandle {
  const { fd } = (socket as unknown as { _handle: { fd: number } })._handle;
  return check<FdHandle>(native().fdAdopt(fd), 'fcntl');
}

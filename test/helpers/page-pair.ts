/** Two ends of page connections on UNIX sockets, and memories to move between them. */
import { mkdtempSync, rmSync } from 'node:fs';
import { connect, createServer, type Server, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { check } from '../../lib/errors';
import { type FdHandle, native } from '../../lib/native';

export const PAGE = 4096;
export const SEED = 0x1234abcd;

export interface SocketPair {
  near: Socket;
  far: Socket;
}

/** Both ends paused: nothing is read before somebody asks. */
export async function socketPair(): Promise<SocketPair> {
  const folder = mkdtempSync(join(tmpdir(), 'vhn-pages-'));
  const server: Server = createServer({ pauseOnConnect: true });
  try {
    const path = join(folder, 's');
    await new Promise<void>((resolve) => server.listen(path, resolve));
    const accepted = new Promise<Socket>((resolve) => server.once('connection', resolve));
    const near = connect(path);
    const far = await accepted;
    for (const socket of [near, far]) socket.on('error', () => undefined);
    near.pause();
    return { near, far };
  } finally {
    server.close();
    rmSync(folder, { recursive: true });
  }
}

/** A second descriptor of a socket that Node has. */
export function descriptorOf(socket: Socket): FdHandle {
  const { fd } = (socket as unknown as { _handle: { fd: number } })._handle;
  const borrowed = check<FdHandle>(native().fdOpen(`/dev/null`, 0), 'open');
  native().fdClose(borrowed);
  return check<FdHandle>(native().fdAdopt(duplicate(fd)), 'fcntl');
}

function duplicate(fd: number): number {
  const handle = check<FdHandle>(native().fdAdopt(fd), 'fcntl');
  kept.push(handle);
  return native().fdNumber(check<FdHandle>(native().fdDup(handle), 'fcntl'));
}
const kept: FdHandle[] = [];

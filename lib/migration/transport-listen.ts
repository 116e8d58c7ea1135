/** Listening sockets: binding them, a UNIX name that a dead listener left behind, and taking connections as they come. */
import { chmodSync, lstatSync, rmSync, unlinkSync } from 'node:fs';
import * as so from '../constants/socket';
import { check, VhostError } from '../errors';
import { READABLE, StreamSocket } from '../host/socket';
import { native, type PollHandle } from '../native';

const OWNER_ONLY = 0o600;
/** How long accepting rests when this process or host has no descriptor left. */
const REST_MS = 100;

/** A UNIX listener, and how its file goes again. */
export interface BoundUnix {
  socket: StreamSocket;
  remove(): void;
}

export async function bindUnix(path: string, netns: string | null, backlog: number): Promise<BoundUnix> {
  const socket = await StreamSocket.create(so.AF_UNIX, netns);
  try {
    if (path.startsWith('@')) {
      bindAbstract(socket, path);
      socket.listen(backlog);
      return { socket, remove: () => undefined };
    }
    await bindFile(socket, path, netns);
    // Nobody can connect before listen: the mode holds from the first connection on.
    chmodSync(path, OWNER_ONLY);
    const { dev, ino } = lstatSync(path);
    const remove = (): void => {
      const now = lstatSync(path, { throwIfNoEntry: false });
      // Somebody else's by now when it was replaced.
      if (now?.dev === dev && now.ino === ino) unlinkSync(path);
    };
    try {
      socket.listen(backlog);
    } catch (error) {
      remove();
      throw error;
    }
    return { socket, remove };
  } catch (error) {
    socket.close();
    throw error;
  }
}

const LISTENING = 'somebody listens there: end that process, or choose another name';

/** Abstract names go with the last descriptor of their socket: one that is taken has a living owner. */
function bindAbstract(socket: StreamSocket, name: string): void {
  try {
    socket.bind({ host: name, port: 0 });
  } catch (error) {
    if (error instanceof VhostError && error.code === 'EADDRINUSE') throw inUse(name, error, LISTENING);
    throw error;
  }
}

async function bindFile(socket: StreamSocket, path: string, netns: string | null): Promise<void> {
  try {
    socket.bind({ host: path, port: 0 });
  } catch (error) {
    if (!(error instanceof VhostError && error.code === 'EADDRINUSE')) throw error;
    if (lstatSync(path, { throwIfNoEntry: false })?.isSocket() === false) {
      throw inUse(path, error, 'it exists and is no socket: choose another path or remove it');
    }
    if (await answers(path, netns)) throw inUse(path, error, LISTENING);
    rmSync(path, { force: true });
    socket.bind({ host: path, port: 0 });
  }
}

function inUse(path: string, { errno, syscall }: VhostError, hint: string): VhostError {
  return new VhostError('EADDRINUSE', `EADDRINUSE: bind '${path}'`, { errno: errno!, syscall: syscall!, path, hint });
}

/**
 * Whether a socket of a living process has that name. Asked with a socket of another type, which the kernel refuses for that reason: a
 * listener does not hear of it.
 */
async function answers(path: string, netns: string | null): Promise<boolean> {
  const probe = await StreamSocket.create(so.AF_UNIX, netns, so.SOCK_DGRAM);
  try {
    probe.connect({ host: path, port: 0 });
    return true;
  } catch (error) {
    const { code } = error as VhostError;
    if (code === 'EPROTOTYPE') return true;
    // ENOENT: its owner removed it meanwhile.
    if (code === 'ECONNREFUSED' || code === 'ENOENT') return false;
    throw error;
  } finally {
    probe.close();
  }
}

/** Takes connections until it is stopped. `onError` hears what accept(2) says beside them; accepting goes on. */
export class AcceptLoop {
  readonly #socket: StreamSocket;
  readonly #take: (socket: StreamSocket) => void;
  readonly #onError: (error: VhostError) => void;
  #poll: PollHandle | null = null;
  #rest: NodeJS.Timeout | undefined;

  constructor(socket: StreamSocket, take: (socket: StreamSocket) => void, onError: (error: VhostError) => void) {
    this.#socket = socket;
    this.#take = take;
    this.#onError = onError;
    this.#watch();
  }

  #watch(): void {
    this.#poll = check<PollHandle>(
      native().pollStart(this.#socket.handle, READABLE, () => this.#acceptAll()),
      'epoll_ctl',
    );
  }

  #acceptAll(): void {
    while (this.#poll !== null) {
      let socket: StreamSocket | null;
      try {
        socket = this.#socket.accept();
      } catch (error) {
        const refused = error as VhostError;
        // The peer gave up while it waited.
        if (refused.code === 'ECONNABORTED') continue;
        // It would be called again at once for the same reason.
        this.#pause();
        this.#onError(refused);
        return;
      }
      if (socket === null) return;
      this.#take(socket);
    }
  }

  #pause(): void {
    this.#unwatch();
    this.#rest = setTimeout(() => this.#watch(), REST_MS);
  }

  #unwatch(): void {
    if (this.#poll !== null) native().pollStop(this.#poll);
    this.#poll = null;
  }

  stop(): void {
    clearTimeout(this.#rest);
    this.#unwatch();
  }
}

/** Stands between source and destination of a migration without page connections, and sees every frame of it before it goes on. */
import { createConnection, createServer, type Server, type Socket } from 'node:net';
import { FRAME_HEADER_SIZE, type FrameType } from '../../lib/migration/frame';

export type From = 'source' | 'destination';

/** Called before a frame goes on; answers false when it does not, and ends both connections then. */
export type OnFrame = (from: From, type: FrameType) => boolean;

export class FrameProxy {
  readonly #server: Server;
  readonly #sockets = new Set<Socket>();

  private constructor(server: Server) {
    this.#server = server;
  }

  static async listen(path: string, to: string, onFrame: OnFrame): Promise<FrameProxy> {
    const server = createServer();
    const proxy = new FrameProxy(server);
    server.on('connection', (source) => {
      const destination = createConnection(to);
      proxy.#join(source, destination, (type) => onFrame('source', type));
      proxy.#join(destination, source, (type) => onFrame('destination', type));
    });
    await new Promise<void>((resolve) => server.listen(path, resolve));
    return proxy;
  }

  #join(from: Socket, to: Socket, onFrame: (type: FrameType) => boolean): void {
    this.#sockets.add(from);
    let held = Buffer.alloc(0);
    from.on('data', (chunk: Buffer) => {
      held = Buffer.concat([held, chunk]);
      while (held.length >= FRAME_HEADER_SIZE) {
        const end = FRAME_HEADER_SIZE + held.readUInt32LE(12);
        if (held.length < end) return;
        if (!onFrame(held.readUInt16LE(4) as FrameType)) {
          from.destroy();
          to.destroy();
          return;
        }
        to.write(held.subarray(0, end));
        held = held.subarray(end);
      }
    });
    from.on('error', () => undefined);
    from.on('close', () => {
      this.#sockets.delete(from);
      to.end();
    });
  }

  async close(): Promise<void> {
    for (const socket of this.#sockets) socket.destroy();
    await new Promise<void>((resolve) => this.#server.close(() => resolve()));
  }
}

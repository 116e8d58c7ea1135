/** The source's further connections: for pages, and for descriptors. */
import type { FdHandle } from '../native';
import { Channel, type ConnectionKind } from './channel';
import type { Connection } from './connection';
import { streamSeed } from './frame';
import type { PageCompression } from './page-compression';
import { type PageConnection, pageConnection } from './page-connection';

export interface LinkOptions {
  timeoutMs?: number | undefined;
  signal?: AbortSignal | undefined;
  compression?: PageCompression | undefined;
}

/** Makes one more connection to where the control connection goes. */
export type Dial = () => Promise<Connection>;

function channelOptions({ timeoutMs, signal }: LinkOptions): { timeoutMs?: number; signal?: AbortSignal } {
  return { ...(timeoutMs === undefined ? {} : { timeoutMs }), ...(signal === undefined ? {} : { signal }) };
}

async function greeted(dial: Dial, identity: Uint8Array, kind: ConnectionKind, index: number, options: LinkOptions) {
  const connection = await dial();
  try {
    await new Channel(connection.stream, channelOptions(options)).greet(identity, kind, index, options.compression);
    return connection;
  } catch (error) {
    connection.close();
    throw error;
  }
}

/** `count` page connections of the migration with that identity; none stays open when one fails. */
export async function openPageConnections(
  dial: Dial,
  identity: Uint8Array,
  count: number,
  options: LinkOptions,
): Promise<PageConnection[]> {
  const opened: PageConnection[] = [];
  try {
    for (let index = 1; index <= count; index++) {
      const connection = await greeted(dial, identity, 'pages', index, options);
      opened.push(asPages(connection, streamSeed(identity), options));
    }
    return opened;
  } catch (error) {
    for (const pages of opened) pages.close();
    throw error;
  }
}

/** A greeted connection, from either side. */
export function asPages(connection: Connection, seed: number, options: LinkOptions): PageConnection {
  const { compression = 'none' } = options;
  const { stream } = connection;
  // TLS has none; compressed pages go through JavaScript.
  const direct = connection.fd !== null && compression === 'none';
  const fd = direct ? connection.takeFd() : null;
  return pageConnection({ stream, fd, seed }, { ...channelOptions(options), compression });
}

/** A connection for descriptors, whose owner closes it. */
export async function openDescriptors(dial: Dial, identity: Uint8Array, options: LinkOptions): Promise<FdHandle> {
  const connection = await greeted(dial, identity, 'descriptors', 0, options);
  return connection.takeFd();
}

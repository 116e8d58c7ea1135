/** The source's further connections: for pages, and for descriptors. */
import type { FdHandle } from '../native';
import { Channel } from './channel';
import type { Connection } from './connection';
import { streamSeed } from './frame';
import type { ConnectionKind } from './hello';
import type { PageCompression } from './page-compression';
import { type PageConnection, pageConnection } from './page-connection';
import { StreamRecording } from './record-stream';

export interface LinkOptions {
  timeoutMs?: number | undefined;
  signal?: AbortSignal | undefined;
  compression?: PageCompression | undefined;
  /** Page connections that go through a stream are recorded in this with a dot and their number. */
  record?: string | undefined;
}

/** Makes one more connection to where the control connection goes. */
export type Dial = () => Promise<Connection>;

async function greet(
  connection: Connection,
  identity: Uint8Array,
  kind: ConnectionKind,
  index: number,
  options: LinkOptions,
  recording: StreamRecording | null = null,
): Promise<void> {
  try {
    const { timeoutMs, signal } = options;
    const channel = new Channel(connection.stream, { timeoutMs, signal, onSent: recording?.write });
    await channel.greet(identity, kind, index, options.compression);
  } catch (error) {
    connection.close();
    await recording?.close();
    throw error;
  }
}

/** TLS has no descriptor; compressed pages go through JavaScript. */
function isDirect(connection: Connection, { compression = 'none' }: LinkOptions): boolean {
  return connection.fd !== null && compression === 'none';
}

function recordingOf(connection: Connection, index: number, options: LinkOptions): StreamRecording | null {
  const { record } = options;
  return record === undefined || isDirect(connection, options) ? null : new StreamRecording(`${record}.${index}`);
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
      const connection = await dial();
      const recording = recordingOf(connection, index, options);
      await greet(connection, identity, 'pages', index, options, recording);
      opened.push(asPages(connection, streamSeed(identity), options, recording));
    }
    return opened;
  } catch (error) {
    for (const pages of opened) pages.close();
    throw error;
  }
}

/** A greeted connection, from either side. */
export function asPages(
  connection: Connection,
  seed: number,
  options: LinkOptions,
  recording: StreamRecording | null = null,
): PageConnection {
  const { compression = 'none', timeoutMs, signal } = options;
  const { stream } = connection;
  const fd = isDirect(connection, options) ? connection.takeFd() : null;
  return pageConnection({ stream, fd, seed, recording }, { timeoutMs, signal, compression });
}

/** A connection for descriptors, whose owner closes it. */
export async function openDescriptors(dial: Dial, identity: Uint8Array, options: LinkOptions): Promise<FdHandle> {
  const connection = await dial();
  await greet(connection, identity, 'descriptors', 0, options);
  return connection.takeFd();
}

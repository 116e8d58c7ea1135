/**
 * One process of the pages benchmark: `source PATH BYTES CONNECTIONS random|zero|untouched` or `destination PATH BYTES CONNECTIONS
 * fresh|touched`, with page connections over UNIX sockets at PATH and one more to say how many pages come, and that they have. The
 * destination says with a line that it listens; both end with a line of JSON.
 */
import { once } from 'node:events';
import { connect, createServer, type Socket } from 'node:net';
import { PassThrough } from 'node:stream';
import { PAGE_SIZE } from '../../lib/memory/address';
import { dataRanges } from '../../lib/memory/data-ranges';
import { GuestMemory } from '../../lib/memory/guest-memory';
import { PageBitmap } from '../../lib/memory/page-bitmap';
import { type PageConnection, pageConnection } from '../../lib/migration/page-connection';
import { PageReceiver } from '../../lib/migration/page-receiver';
import { PageSender } from '../../lib/migration/page-sender';
import { takeDescriptor } from '../helpers/socket-descriptor';

const SEED = 1;

function pages(socket: Socket): PageConnection {
  return pageConnection({ stream: new PassThrough(), fd: takeDescriptor(socket), seed: SEED });
}

function fill(memory: GuestMemory): void {
  for (const { u32 } of memory.regions) {
    let state = 1;
    for (let at = 0; at < u32.length; at++) {
      state = (Math.imul(state, 1664525) + 1013904223) | 0;
      u32[at] = state;
    }
  }
}

async function source(path: string, memory: GuestMemory, connections: number): Promise<void> {
  const sockets = await Promise.all(
    Array.from({ length: connections + 1 }, async () => {
      const socket = connect(path);
      await new Promise((resolve) => socket.once('connect', resolve));
      socket.pause();
      return socket;
    }),
  );
  const bitmap = new PageBitmap(memory.end / PAGE_SIZE);
  const began = performance.now();
  for (const { page, pages: count } of dataRanges(memory)) bitmap.setRange(page, count);
  const sender = new PageSender(memory, sockets.slice(1).map(pages));
  const done = new Promise((resolve) => sockets[0]!.once('data', resolve).resume());
  sockets[0]!.write(`${bitmap.count()}`);
  const sent = await sender.send(bitmap, 0);
  await done;
  const seconds = (performance.now() - began) / 1000;
  const { maxRSS } = process.resourceUsage();
  process.stdout.write(`${JSON.stringify({ ...sent, seconds, maxRss: maxRSS * 1024 })}\n`);
}

async function destination(path: string, memory: GuestMemory, connections: number): Promise<void> {
  const sockets: Socket[] = [];
  const server = createServer({ pauseOnConnect: true });
  const all = new Promise<void>((resolve) => {
    server.on('connection', (socket) => {
      if (sockets.push(socket) === connections + 1) resolve();
    });
  });
  server.listen(path, () => process.stdout.write('listening\n'));
  await all;
  server.close();
  const receiver = new PageReceiver(memory, sockets.slice(1).map(pages));
  const [count] = (await once(sockets[0]!.resume(), 'data')) as [Buffer];
  await receiver.endRound({ round: 0, pages: Number(count), final: true }, 0);
  await new Promise<void>((resolve) => sockets[0]!.write('!', () => resolve()));
  const { maxRSS } = process.resourceUsage();
  process.stdout.write(`${JSON.stringify({ maxRss: maxRSS * 1024 })}\n`);
  process.exit(0);
}

async function main(): Promise<void> {
  const [role, path, bytes, connections, kind] = process.argv.slice(2) as [string, string, string, string, string];
  const memory = GuestMemory.create([{ gpa: 0, size: Number(bytes) }]);
  if (kind === 'touched') fill(memory);
  if (role === 'destination') return await destination(path, memory, Number(connections));
  if (kind === 'random') fill(memory);
  if (kind === 'zero') for (const { u8 } of memory.regions) u8.fill(0);
  await source(path, memory, Number(connections));
  process.exit(0);
}

main().catch((error: unknown) => {
  process.stderr.write(`${String(error)}\n`);
  process.exit(1);
});

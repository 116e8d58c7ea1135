import { mkdtempSync, rmSync } from 'node:fs';
import { connect, createServer, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { duplexPair, PassThrough } from 'node:stream';
import fc from 'fast-check';
import { dataRanges } from '../../lib/memory/data-ranges';
import { GuestMemory } from '../../lib/memory/guest-memory';
import { PageBitmap } from '../../lib/memory/page-bitmap';
import { BandwidthLimit } from '../../lib/migration/bandwidth-limit';
import { encodeFrameHeader, FrameType } from '../../lib/migration/frame';
import type { PageCarrier } from '../../lib/migration/page-carrier';
import { PageChunks } from '../../lib/migration/page-chunks';
import type { PageCompression } from '../../lib/migration/page-compression';
import {
  type PageConnection,
  type PageConnectionOptions,
  type PageConnectionParts,
  pageConnection,
} from '../../lib/migration/page-connection';
import { PageReceiver } from '../../lib/migration/page-receiver';
import { PageSender } from '../../lib/migration/page-sender';
import { hashPages } from '../../lib/observe/page-audit';
import { takeDescriptor } from '../helpers/socket-descriptor';

const PAGE = 4096;
const SEED = 0x9a7e_11d3;
const REGIONS = [
  { gpa: 0, size: 600 * PAGE },
  { gpa: 1024 * PAGE, size: 300 * PAGE },
  { gpa: 1324 * PAGE, size: 900 * PAGE },
];
const END = 2224;

const open: { close(): void }[] = [];
afterEach(() => {
  for (const thing of open.splice(0).reverse()) thing.close();
});

function memoryOf(regions = REGIONS): GuestMemory {
  const memory = GuestMemory.create(regions);
  open.push(memory);
  return memory;
}

/** Two ends of a UNIX socket, paused: nothing is read before somebody asks. */
async function sockets(): Promise<[Socket, Socket]> {
  const folder = mkdtempSync(join(tmpdir(), 'vhn-pages-'));
  const server = createServer({ pauseOnConnect: true });
  const path = join(folder, 's');
  await new Promise<void>((resolve) => server.listen(path, resolve));
  const accepted = new Promise<Socket>((resolve) => server.once('connection', resolve));
  const near = connect(path).pause();
  const far = await accepted;
  for (const socket of [near, far]) socket.on('error', () => undefined);
  server.close();
  rmSync(folder, { recursive: true });
  return [near, far];
}

function taken(socket: Socket): PageConnectionParts {
  return { stream: new PassThrough(), fd: takeDescriptor(socket), seed: SEED };
}

type Kind = 'descriptor' | 'stream';

async function connected(kind: Kind, options: PageConnectionOptions = {}): Promise<[PageConnection, PageConnection]> {
  const pair = (await sockets()).map((stream) => {
    const parts = kind === 'stream' ? { stream, fd: null, seed: SEED } : taken(stream);
    return pageConnection(parts, { timeoutMs: 5000, ...options });
  });
  open.push(...pair);
  return pair as [PageConnection, PageConnection];
}

async function pairs(
  kind: Kind,
  count: number,
  options?: PageConnectionOptions,
): Promise<[PageConnection[], PageConnection[]]> {
  const made = await Promise.all(Array.from({ length: count }, () => connected(kind, options)));
  return [made.map(([near]) => near), made.map(([, far]) => far)];
}

function receiverOf(memory: GuestMemory, connections: PageConnection[], timeoutMs = 5000): PageReceiver {
  const receiver = new PageReceiver(memory, connections, { timeoutMs });
  open.push(receiver);
  return receiver;
}

/** Data in some pages by the seed, zeros in others, the rest never touched. */
function scatter(memory: GuestMemory, seed: number): void {
  let state = seed | 1;
  for (const { u8, size } of memory.regions) {
    for (let page = 0; page < size / PAGE; page++) {
      state = (Math.imul(state, 1103515245) + 12345) | 0;
      const kind = (state >>> 16) % 4;
      if (kind < 2) u8.fill(state & 0xff || 1, page * PAGE + ((state >>> 8) & 0xff), (page + 1) * PAGE);
      else if (kind === 2) u8[page * PAGE] = 0;
    }
  }
}

function touched(memory: GuestMemory): PageBitmap {
  const bitmap = new PageBitmap(END);
  for (const { page, pages } of dataRanges(memory)) bitmap.setRange(page, pages);
  return bitmap;
}

const WAYS: [string, Kind, number, PageCompression][] = [
  ['one descriptor', 'descriptor', 1, 'none'],
  ['three descriptors', 'descriptor', 3, 'none'],
  ['two streams', 'stream', 2, 'none'],
  ['two deflated streams', 'stream', 2, 'deflate'],
];

test.each(WAYS)('memory and rounds come over whole through %s', async (_name, kind, count, compression) => {
  const [source, destination] = [memoryOf(), memoryOf()];
  scatter(source, count);
  const [near, far] = await pairs(kind, count, { compression });
  const [sender, receiver] = [new PageSender(source, near), receiverOf(destination, far)];
  for (let round = 0; round < 3; round++) {
    const bitmap = touched(source);
    const [sent] = await Promise.all([
      sender.send(bitmap, round),
      receiver.endRound({ round, pages: bitmap.count(), final: round === 2 }, 0),
    ]);
    expect(sent.pages).toBe(bitmap.count());
    expect(await hashPages(destination)).toEqual(await hashPages(source));
    scatter(source, round * 31 + 7);
    source.view(3 * PAGE, PAGE).fill(0);
  }
  expect(receiver.received.hashes(0, receiver.received.pages)).toEqual(await hashPages(destination));
  expect(receiver.moved.bytes).toBeGreaterThan(0);
});

test('any pages of any memory, and only those', async () => {
  await fc.assert(
    fc.asyncProperty(
      fc.integer(),
      fc.array(fc.tuple(fc.nat(END - 1), fc.integer({ min: 1, max: 200 })), { maxLength: 12 }),
      async (seed, ranges) => {
        const [source, destination] = [memoryOf(), memoryOf()];
        scatter(source, seed);
        const bitmap = new PageBitmap(END);
        for (const [page, pages] of ranges) bitmap.setRange(page, Math.min(pages, END - page));
        const [near, far] = await pairs('descriptor', 2);
        const receiver = receiverOf(destination, far);
        const expected = REGIONS.flatMap(({ gpa, size }) =>
          Array.from({ length: size / PAGE }, (_, at) => gpa / PAGE + at),
        ).filter((page) => bitmap.has(page));
        const [sent] = await Promise.all([
          new PageSender(source, near).send(bitmap, 0),
          receiver.endRound({ round: 0, pages: expected.length, final: true }, 0),
        ]);
        expect(sent.pages).toBe(expected.length);
        for (const { gpa, size } of REGIONS) {
          for (let at: number = gpa; at < gpa + size; at += PAGE) {
            const there = Buffer.from(destination.read(at, PAGE));
            const wanted = bitmap.has(at / PAGE) ? source.read(at, PAGE) : Buffer.alloc(PAGE);
            if (!there.equals(wanted)) throw new Error(`page ${at / PAGE} differs`);
          }
        }
        for (const thing of open.splice(0).reverse()) thing.close();
      },
    ),
    { numRuns: 12 },
  );
});

test('zero pages leave holes at the destination', async () => {
  const [source, destination] = [memoryOf(), memoryOf()];
  source.view(5 * PAGE, 100 * PAGE).fill(0);
  source.view(40 * PAGE, PAGE).fill(1);
  const [near, far] = await pairs('descriptor', 2);
  const receiver = receiverOf(destination, far);
  const [sent] = await Promise.all([
    new PageSender(source, near).send(touched(source), 0),
    receiver.endRound({ round: 0, pages: 100, final: true }, 0),
  ]);
  expect(sent).toEqual(expect.objectContaining({ pages: 100, zeroPages: 99 }));
  expect(dataRanges(destination)).toEqual([{ page: 40, pages: 1 }]);
});

test('hot pages are cut last, and pages outside of memory not at all', () => {
  const bitmap = new PageBitmap(END);
  bitmap.fill();
  const hot = new PageBitmap(END);
  hot.setRange(2, 3);
  hot.set(1500);
  const chunks = new PageChunks(memoryOf(), bitmap, hot);
  const pages: number[] = [];
  for (let runs = chunks.next(100); runs !== null; runs = chunks.next(100)) {
    let inChunk = 0;
    for (let at = 0; at < runs.length; at += 2) {
      inChunk += runs[at + 1]!;
      for (let page = runs[at]!; page < runs[at]! + runs[at + 1]!; page++) pages.push(page);
    }
    expect(inChunk).toBeLessThanOrEqual(100);
  }
  expect(pages.slice(-4)).toEqual([2, 3, 4, 1500]);
  expect(pages.length).toBe(1800);
  expect(new Set(pages).size).toBe(1800);
});

test('a limit is kept by everybody together, and can be changed on the way', async () => {
  let now = 0;
  const clock = {
    now: () => now,
    sleep: async (ms: number) => {
      now += ms;
    },
  };
  const memory = memoryOf();
  const carriers: PageCarrier[] = [0, 1, 2].map(() => ({
    chunk: 1024,
    send: async (_store, runs: Uint32Array) => {
      let pages = 0;
      for (let at = 1; at < runs.length; at += 2) pages += runs[at]!;
      return { pages, zeroPages: 0, bytes: pages * PAGE };
    },
    end: async () => undefined,
  }));
  const bitmap = new PageBitmap(END);
  bitmap.fill();
  const limit = 100 * PAGE * 10;
  const sender = new PageSender(memory, carriers, { maxBandwidth: limit, clock });
  const { bytes } = await sender.send(bitmap, 0);
  expect(bytes).toBe(1800 * PAGE);
  // Whoever sends last pays nothing: a chunk of each may be ahead of the limit.
  expect(now / 1000).toBeGreaterThan((bytes - 4 * 50 * PAGE) / limit);
  expect(now / 1000).toBeLessThan((bytes / limit) * 1.2);
  const before = now;
  sender.maxBandwidth = 0;
  await sender.send(bitmap, 1);
  expect(now - before).toBeLessThanOrEqual(50);
  expect(() => new BandwidthLimit(-1)).toThrow(/bandwidth/);
});

test.each<[Kind]>([['descriptor'], ['stream']])('an abort ends a round that stands still: %s', async (kind) => {
  // More than the sockets between them hold.
  const source = memoryOf([{ gpa: 0, size: 64 << 20 }]);
  source.view(0, 64 << 20).fill(1);
  const bitmap = new PageBitmap(16384);
  bitmap.fill();
  const abort = new AbortController();
  const [near] = await pairs(kind, 2, { signal: abort.signal });
  const sending = new PageSender(source, near, { signal: abort.signal }).send(bitmap, 0);
  setTimeout(() => abort.abort('enough'), 50);
  await expect(sending).rejects.toEqual(expect.objectContaining({ code: 'VHOST_ERR_ABORTED' }));
});

test.each<[Kind]>([['descriptor'], ['stream']])('a connection that ends fails the whole: %s', async (kind) => {
  const [source, destination] = [memoryOf(), memoryOf()];
  scatter(source, 1);
  const [near, far] = await pairs(kind, 2);
  const receiver = receiverOf(destination, far);
  near[1]!.close();
  await expect(receiver.failure).rejects.toEqual(expect.objectContaining({ code: 'VHOST_ERR_PROTOCOL' }));
  const round = receiver.endRound({ round: 0, pages: 0, final: true }, 0);
  await expect(round).rejects.toThrow(/the stream ends/);
  await expect(new PageSender(source, near).send(touched(source), 0)).rejects.toThrow();
});

test('a round with a page missing, and one that ends on one connection only', async () => {
  const [source, destination] = [memoryOf(), memoryOf()];
  source.view(0, 10 * PAGE).fill(1);
  const [near, far] = await pairs('descriptor', 1);
  const receiver = receiverOf(destination, far);
  await new PageSender(source, near).send(touched(source), 0);
  await expect(receiver.endRound({ round: 0, pages: 11, final: false }, 5)).rejects.toThrow(
    /with 11 pages at offset 5: expected round 0 with 10 pages/,
  );
  const [some, ends] = await pairs('descriptor', 2);
  const late = receiverOf(memoryOf(), ends, 100);
  await new PageSender(source, some.slice(0, 1)).send(touched(source), 0);
  await expect(late.endRound({ round: 0, pages: 10, final: true }, 0)).rejects.toThrow(/not on every page connection/);
});

const end = Buffer.from(JSON.stringify({ round: 0, pages: 1 }));
const reason = Buffer.from(JSON.stringify({ reason: 'no more room' }));
const framed = (type: FrameType, sequence: number, payload: Buffer): Buffer =>
  Buffer.concat([encodeFrameHeader(type, sequence, payload, SEED), payload]);
test.each<[string, Buffer, RegExp]>([
  ['a count that is wrong', framed(FrameType.PAGES_END, 1, end), /PAGES_END of round 0 with 1 pages/],
  ['another frame', framed(FrameType.GO, 1, Buffer.alloc(0)), /GO at offset 0: expected PAGES or PAGES_END/],
  ['a number that is wrong', framed(FrameType.PAGES_END, 2, end), /number 2 at offset 8: expected number 1/],
  ['a checksum that is wrong', framed(FrameType.PAGES_END, 1, end).fill(0, 16, 20), /checksum 0x0/],
  ['a peer that fails', framed(FrameType.ERROR, 1, reason), /no more room/],
  ['no stream of this kind', Buffer.from('GET / HTTP/1.1\r\n\r\n    '), /begins with 0x20544547/],
  [
    'a long PAGES frame',
    Buffer.from(encodeFrameHeader(FrameType.PAGES, 1, Buffer.alloc(2 << 20), SEED)),
    /PAGES of 2097152/,
  ],
  ['half a header', Buffer.from('VHNM'), /ends after 4 bytes of a frame at offset 4/],
])('%s is refused on a descriptor', async (_name, bytes, message) => {
  const [near, far] = await sockets();
  const destination = pageConnection(taken(far), { timeoutMs: 1000 });
  open.push(destination);
  const receiver = receiverOf(memoryOf(), [destination]);
  near.end(bytes);
  await expect(receiver.failure).rejects.toThrow(message);
  near.destroy();
});

test('a compression that this Node has not is named', async () => {
  const [stream] = duplexPair();
  const make = (): PageConnection => pageConnection({ stream, fd: null, seed: 0 }, { compression: 'zstd' });
  if ('zstdCompress' in require('node:zlib')) make().close();
  else expect(make).toThrow(expect.objectContaining({ code: 'VHOST_ERR_UNSUPPORTED' }));
});

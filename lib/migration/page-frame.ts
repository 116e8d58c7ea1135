/**
 * PAGES payloads as plain data: for inspection, for tests, and as a second reading of the format beside the addon's, which does the work.
 *
 *     u32 round | u32 runs | u32 stored bytes | u32 encoding | runs x { u32 first page, u16 pages, u16 kind } | u64 hash for each data page
 *     | data as stored
 */
import { ProtocolError } from '../errors';
import { PAGE_SIZE } from '../memory/address';
import {
  HASH_SIZE,
  PAGES_FIXED,
  PAGES_MAX_DATA,
  PAGES_MAX_RUNS,
  PageEncoding,
  pagesHeadLength,
  RUN_SIZE,
  RunKind,
} from './page-layout';

/** Pages that follow one another and are of one kind. */
export interface PagesRun {
  /** GPA / 4096. */
  page: number;
  /** 1 to 65535. */
  pages: number;
  kind: RunKind;
}

export interface PagesPayload {
  round: number;
  encoding: PageEncoding;
  runs: PagesRun[];
  /** One for each page of the data runs, in their order. */
  hashes: bigint[];
  /** As stored. */
  data: Uint8Array;
}

type Wording = (found: number, wanted: number) => [what: string, expected: string];

/** What can be wrong, by the addon's numbers (PageViolation of native/core/page_stream.h). */
const VIOLATIONS: Readonly<Record<number, Wording>> = {
  1: (found, wanted) => [`PAGES of ${found} bytes`, `at least ${wanted}`],
  2: (found, wanted) => [`PAGES of round ${found}`, `round ${wanted}`],
  3: (found, wanted) => [`PAGES with ${found} runs`, `at most ${wanted}`],
  4: (found, wanted) => [`PAGES with ${found} runs`, `a payload of ${wanted} bytes or more`],
  5: (found, wanted) => [`page data of encoding ${found}`, wanted === 0 ? '0: plain' : `0 to ${wanted}`],
  6: (found) => [`run of kind ${found}`, '0 or 1'],
  7: (found, wanted) => [`run of ${wanted} pages from page 0x${found.toString(16)}`, 'pages of one memory region'],
  8: (found, wanted) => [`PAGES with ${found} pages of data`, `at most ${wanted}`],
  9: (found, wanted) => [`${found} bytes of page data`, `${wanted} by the table of runs`],
  10: (found, wanted) => [`PAGES of ${found} bytes`, `${wanted} by its own table`],
  11: (found, wanted) => [
    `PAGES has checksum 0x${found.toString(16)}`,
    `0x${wanted.toString(16)}: damaged, or a frame of another stream`,
  ],
  12: (found) => [`data page ${found} of the frame has another hash`, 'the hash that came with it'],
};

/** The error for what is wrong; `base` is where the payload began in the stream. */
export function pagesViolation(
  code: number,
  offset: number,
  found: number,
  wanted: number,
  base: number,
): ProtocolError {
  const [what, expected] = VIOLATIONS[code]!(found, wanted);
  return new ProtocolError(what, base + offset, expected);
}

/** Throws ProtocolError unless it is one by itself. Hashes and regions need the memory, and are not looked at. */
export function decodePages(payload: Uint8Array, base = 0): PagesPayload {
  const wrong = (code: number, offset: number, found: number, wanted: number): ProtocolError =>
    pagesViolation(code, offset, found, wanted, base);
  const { byteLength } = payload;
  if (byteLength < PAGES_FIXED) throw wrong(1, 0, byteLength, PAGES_FIXED);
  const view = new DataView(payload.buffer, payload.byteOffset, byteLength);
  const [round, count, stored, encoding] = [0, 4, 8, 12].map((at) => view.getUint32(at, true)) as [
    number,
    number,
    number,
    number,
  ];
  if (count > PAGES_MAX_RUNS) throw wrong(3, 4, count, PAGES_MAX_RUNS);
  const table = PAGES_FIXED + count * RUN_SIZE;
  if (table > byteLength) throw wrong(4, 4, count, table);
  if (encoding > PageEncoding.ZSTD) throw wrong(5, 12, encoding, PageEncoding.ZSTD);
  const runs: PagesRun[] = [];
  let dataPages = 0;
  for (let at = PAGES_FIXED; at < table; at += RUN_SIZE) {
    const [page, pages, kind] = [view.getUint32(at, true), view.getUint16(at + 4, true), view.getUint16(at + 6, true)];
    if (kind !== RunKind.ZERO && kind !== RunKind.DATA) throw wrong(6, at + 6, kind, RunKind.DATA);
    if (pages === 0) throw wrong(7, at, page, pages);
    if (kind === RunKind.DATA) dataPages += pages;
    runs.push({ page, pages, kind });
  }
  if (dataPages > PAGES_MAX_DATA) throw wrong(8, PAGES_FIXED, dataPages, PAGES_MAX_DATA);
  const plain = encoding === PageEncoding.PLAIN;
  const bytes = dataPages * PAGE_SIZE;
  if (plain ? stored !== bytes : stored > bytes) throw wrong(9, 8, stored, bytes);
  const head = pagesHeadLength(payload);
  if (table + dataPages * HASH_SIZE + stored !== byteLength) {
    throw wrong(10, 0, byteLength, table + dataPages * HASH_SIZE + stored);
  }
  const hashes: bigint[] = [];
  for (let at = table; at < head; at += HASH_SIZE) hashes.push(view.getBigUint64(at, true));
  return { round, encoding: encoding as PageEncoding, runs, hashes, data: payload.subarray(head) };
}

/** The reverse; checks nothing, so that tests can write what must be refused. */
export function encodePages({ round, encoding, runs, hashes, data }: PagesPayload): Uint8Array {
  const table = PAGES_FIXED + runs.length * RUN_SIZE;
  const head = table + hashes.length * HASH_SIZE;
  const payload = new Uint8Array(head + data.byteLength);
  const view = new DataView(payload.buffer);
  [round, runs.length, data.byteLength, encoding].forEach((word, index) => {
    view.setUint32(index * 4, word, true);
  });
  runs.forEach(({ page, pages, kind }, index) => {
    const at = PAGES_FIXED + index * RUN_SIZE;
    view.setUint32(at, page, true);
    view.setUint16(at + 4, pages, true);
    view.setUint16(at + 6, kind, true);
  });
  hashes.forEach((hash, index) => {
    view.setBigUint64(table + index * HASH_SIZE, hash, true);
  });
  payload.set(data, head);
  return payload;
}

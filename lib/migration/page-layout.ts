/** Sizes and numbers of a PAGES payload: docs/migration-stream.md, and native/core/page_stream.h for the same in the addon. */
import { PAGE_SIZE } from '../memory/address';

/** Round, runs, stored bytes, encoding: u32 each. */
export const PAGES_FIXED = 16;
/** First page (u32), pages (u16), kind (u16). */
export const RUN_SIZE = 8;
export const HASH_SIZE = 8;
export const PAGES_MAX_RUNS = 1024;
/** Pages with data in one payload: 1 MiB. */
export const PAGES_MAX_DATA = 256;
export const PAGES_MAX_HEAD = PAGES_FIXED + PAGES_MAX_RUNS * RUN_SIZE + PAGES_MAX_DATA * HASH_SIZE;
export const PAGES_MAX_PAYLOAD = PAGES_MAX_HEAD + PAGES_MAX_DATA * PAGE_SIZE;

export const RunKind = { ZERO: 0, DATA: 1 } as const;
export type RunKind = (typeof RunKind)[keyof typeof RunKind];

export const PageEncoding = { PLAIN: 0, DEFLATE: 1, ZSTD: 2 } as const;
export type PageEncoding = (typeof PageEncoding)[keyof typeof PageEncoding];

/** Bytes of a payload before its data, by its own table; all of it where the table cannot be followed. */
export function pagesHeadLength(payload: Uint8Array): number {
  if (payload.byteLength < PAGES_FIXED) return payload.byteLength;
  const view = new DataView(payload.buffer, payload.byteOffset, payload.byteLength);
  const runs = view.getUint32(4, true);
  let head = PAGES_FIXED + runs * RUN_SIZE;
  if (runs > PAGES_MAX_RUNS || head > payload.byteLength) return payload.byteLength;
  for (let run = PAGES_FIXED, end = head; run < end; run += RUN_SIZE) {
    if (view.getUint16(run + 6, true) === RunKind.DATA) head += view.getUint16(run + 4, true) * HASH_SIZE;
  }
  return Math.min(head, payload.byteLength);
}

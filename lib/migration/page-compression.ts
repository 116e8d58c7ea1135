/** How page data can be stored in a stream. Decoding is bounded: no payload makes more than a plain one could hold. */
import { promisify } from 'node:util';
import * as zlib from 'node:zlib';
import { invalidArgument, ProtocolError, VhostError } from '../errors';
import { PAGE_SIZE } from '../memory/address';
import { PAGES_FIXED, PAGES_MAX_DATA, PageEncoding, pagesHeadLength } from './page-layout';

export type PageCompression = 'none' | 'deflate' | 'zstd';

type Coder = (bytes: Uint8Array, options: object, done: (error: Error | null, result: Buffer) => void) => void;
const { zstdCompress, zstdDecompress } = zlib as { zstdCompress?: Coder; zstdDecompress?: Coder };

const STORED_AT = 8;
const ENCODING_AT = 12;
const MAX_DATA_BYTES = PAGES_MAX_DATA * PAGE_SIZE;
const NEEDS_NODE = 'zstd needs Node 22.15, 23.8 or later; deflate works everywhere';

/** Throws VHOST_ERR_UNSUPPORTED where this Node cannot do it. */
export function checkCompression(compression: PageCompression): void {
  if (!['none', 'deflate', 'zstd'].includes(compression)) {
    throw invalidArgument(`compression ${JSON.stringify(compression)}`, 'none, deflate or zstd');
  }
  if (compression !== 'zstd' || zstdCompress !== undefined) return;
  throw new VhostError('VHOST_ERR_UNSUPPORTED', `no zstd in Node ${process.versions.node}`, { hint: NEEDS_NODE });
}

/** A plain payload, whose data begins at `head`, with its data compressed: the same one when that does not make it smaller. */
export async function compressPayload(payload: Buffer, head: number, compression: PageCompression): Promise<Buffer> {
  const data = payload.subarray(head);
  if (compression === 'none' || data.byteLength === 0) return payload;
  const deflate = compression === 'deflate';
  const stored = deflate
    ? await promisify(zlib.deflateRaw)(data, { level: zlib.constants.Z_BEST_SPEED })
    : await promisify(zstdCompress!)(data, {});
  if (stored.byteLength >= data.byteLength) return payload;
  const smaller = Buffer.concat([payload.subarray(0, head), stored]);
  smaller.writeUInt32LE(stored.byteLength, STORED_AT);
  smaller.writeUInt32LE(deflate ? PageEncoding.DEFLATE : PageEncoding.ZSTD, ENCODING_AT);
  return smaller;
}

/**
 * The data of a compressed payload, null for any other. Throws ProtocolError for what is no such data or decodes to more than a payload
 * may have; `base` is where the payload began.
 */
export async function decompressPayload(payload: Buffer, base: number): Promise<Buffer | null> {
  if (payload.byteLength < PAGES_FIXED) return null;
  const encoding = payload.readUInt32LE(ENCODING_AT);
  if (encoding !== PageEncoding.DEFLATE && encoding !== PageEncoding.ZSTD) return null;
  const head = pagesHeadLength(payload);
  const inflate = encoding === PageEncoding.DEFLATE ? (zlib.inflateRaw as Coder) : zstdDecompress;
  if (inflate === undefined)
    throw new ProtocolError('page data of encoding 2', base + ENCODING_AT, `0 or 1: ${NEEDS_NODE}`);
  try {
    return await promisify(inflate)(payload.subarray(head), { maxOutputLength: MAX_DATA_BYTES });
  } catch (cause) {
    const what = `${payload.byteLength - head} bytes of page data of encoding ${encoding}`;
    throw new ProtocolError(what, base + head, `at most ${MAX_DATA_BYTES} bytes when decoded`, { cause });
  }
}

/** What a recorded stream says, frame by frame in a line each, and in sum. */

import { PAGE_SIZE } from '../memory/address';
import { native } from '../native';
import { FRAME_HEADER_SIZE, FrameType } from './frame';
import { decodeFrames } from './handover/frame-batch';
import { decodeGroup } from './handover/group-record';
import { isObject } from './json';
import { decompressPayload } from './page-compression';
import { decodePages, type PagesPayload } from './page-frame';
import { PageEncoding, RunKind } from './page-layout';
import { type Garbage, type InspectedFrame, streamFrames } from './stream-frames';

const LONGEST_LINE = 400;
const MOST_PAIRS = 65_536;
/** Rounds that are summed up one by one; a stream that has more is no migration's. */
const MOST_ROUNDS = 10_000;
const BINARY: ReadonlySet<number> = new Set([
  FrameType.READY,
  FrameType.GO,
  FrameType.LAYOUT_ACK,
  FrameType.KEEPALIVE,
  FrameType.AUDIT,
]);

export interface InspectedLine {
  offset: number;
  /** Null for bytes that are no frame. */
  name: string | null;
  sequence: number | null;
  length: number;
  checksum: InspectedFrame['checksum'] | null;
  what: string;
  /** Of PAGES, first page and pages of each run. */
  runs: readonly { page: number; pages: number; zero: boolean }[] | null;
  device: unknown;
  errors: string[];
}

export interface StreamSummary {
  bytes: number;
  errors: number;
  /** It ends as a stream does. */
  whole: boolean;
  types: Record<string, { frames: number; bytes: number }>;
  rounds: Record<string, { pages: number; zeroPages: number; bytes: number }>;
}

export class StreamInspector {
  readonly summary: StreamSummary = { bytes: 0, errors: 0, whole: false, types: {}, rounds: {} };

  /** Memory does not grow with the stream. Throws only what `chunks` throws. */
  async *lines(chunks: AsyncIterable<Uint8Array>): AsyncGenerator<InspectedLine> {
    for await (const found of streamFrames(chunks)) {
      const line = 'payload' in found ? await this.#frame(found) : garbage(found);
      this.summary.errors += line.errors.length;
      this.summary.bytes = found.offset + ('payload' in found ? FRAME_HEADER_SIZE + found.length : found.bytes);
      yield line;
    }
  }

  async #frame(frame: InspectedFrame): Promise<InspectedLine> {
    const { offset, type, name, sequence, length, checksum, errors } = frame;
    const total = this.summary.types[name] ?? { frames: 0, bytes: 0 };
    if (total.frames > 0 || Object.keys(this.summary.types).length < 100) this.summary.types[name] = total;
    total.frames++;
    total.bytes += FRAME_HEADER_SIZE + length;
    const line: InspectedLine = {
      offset,
      name,
      sequence,
      length,
      checksum,
      what: '',
      runs: null,
      device: null,
      errors: [...errors],
    };
    this.summary.whole = (ENDS.has(type) || type === FrameType.PAGES_END) && errors.length === 0;
    try {
      if (type === FrameType.PAGES) await this.#pages(frame, line);
      else line.what = describe(frame, line);
    } catch (error) {
      line.errors.push((error as Error).message.slice(0, LONGEST_LINE));
    }
    return line;
  }

  async #pages(frame: InspectedFrame, line: InspectedLine): Promise<void> {
    const at = frame.offset + FRAME_HEADER_SIZE;
    const pages = decodePages(frame.payload, at);
    const { round, runs, encoding } = pages;
    const count = (kind: number): number => runs.reduce((sum, run) => sum + (run.kind === kind ? run.pages : 0), 0);
    const [data, zero] = [count(RunKind.DATA), count(RunKind.ZERO)];
    const name = (Object.entries(PageEncoding).find(([, value]) => value === encoding)?.[0] ?? '').toLowerCase();
    const first = runs.slice(0, 4).map((run) => `0x${run.page.toString(16)}+${run.pages}`);
    line.what = `round ${round}, ${runs.length} runs, ${data} data and ${zero} zero pages, ${name}, from ${first.join(' ')}`;
    line.runs = runs.map((run) => ({ page: run.page, pages: run.pages, zero: run.kind === RunKind.ZERO }));
    if (Object.keys(this.summary.rounds).length < MOST_ROUNDS || round in this.summary.rounds) {
      const sum = this.summary.rounds[round] ?? { pages: 0, zeroPages: 0, bytes: 0 };
      this.summary.rounds[round] = sum;
      sum.pages += data + zero;
      sum.zeroPages += zero;
      sum.bytes += FRAME_HEADER_SIZE + frame.length;
    }
    line.errors.push(...(await wrongHashes(frame.payload, pages, at)));
  }
}

const ENDS: ReadonlySet<number> = new Set([FrameType.END, FrameType.CANCEL, FrameType.ERROR]);

async function wrongHashes(payload: Buffer, { hashes, data }: PagesPayload, at: number): Promise<string[]> {
  const plain = (await decompressPayload(payload, at)) ?? data;
  if (plain.length !== hashes.length * PAGE_SIZE) return [`${plain.length} bytes of pages for ${hashes.length} hashes`];
  if (hashes.length === 0) return [];
  const real = new BigUint64Array(hashes.length);
  native().pageHashesOf(plain, real, 0);
  const wrong = hashes.flatMap((hash, index) => (hash === real[index] ? [] : [index]));
  return wrong.length === 0 ? [] : [`${wrong.length} data pages have another hash, the first is number ${wrong[0]}`];
}

function describe({ type, payload, offset }: InspectedFrame, line: InspectedLine): string {
  const at = offset + FRAME_HEADER_SIZE;
  if (type === FrameType.FRAMES) {
    const pairs = new Map<number, number>();
    const largest = payload.length;
    decodeFrames(
      payload,
      at,
      { pairs: MOST_PAIRS, largest },
      (pair) => void pairs.set(pair, (pairs.get(pair) ?? 0) + 1),
    );
    const each = [...pairs].slice(0, 8).map(([pair, frames]) => `${frames} for pair ${pair}`);
    return each.join(', ');
  }
  if (type === FrameType.GROUP) {
    let entries = 0;
    let where = '';
    decodeGroup(payload, at, (side) => {
      entries++;
      where = side;
    });
    return `${entries} frames ${where}`;
  }
  if (type === FrameType.AUDIT) return `${payload.length / 8} hashes`;
  if (BINARY.has(type)) return '';
  const text = payload.toString('utf8');
  const value: unknown = JSON.parse(text);
  if (isObject(value) && 'device' in value) line.device = value.device;
  return JSON.stringify(value).slice(0, LONGEST_LINE);
}

function garbage({ offset, bytes, errors }: Garbage): InspectedLine {
  return {
    offset,
    name: null,
    sequence: null,
    length: bytes,
    checksum: null,
    what: '',
    runs: null,
    device: null,
    errors,
  };
}

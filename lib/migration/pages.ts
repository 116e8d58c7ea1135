/**
 * Pages on the wire. A PAGES frame is a table of runs and the bytes of those that have any:
 *
 *     u32 round, u32 runs, runs x { u32 first page, u16 pages, u16 kind }, then 4096 bytes for every page of a run of kind DATA
 *
 * A page that was never written is a hole of the source's memfd and not sent at all; a page of zero bytes is a run of kind ZERO.
 */
import { ProtocolError } from '../errors';
import { PAGE_SIZE } from '../memory/address';
import type { GuestMemory, GuestRegion } from '../memory/guest-memory';
import type { PageBitmap } from '../memory/page-bitmap';
import { native } from '../native';
import type { Channel, Frame } from './channel';
import { FRAME_HEADER_SIZE, FrameType } from './frame';

const KIND_ZERO = 0;
const KIND_DATA = 1;
const TABLE_HEADER = 8;
const RUN_SIZE = 8;
/** Pages of one frame: 1 MiB, so that a slow link still moves frame by frame. */
const PAGES_PER_FRAME = 256;
const MAX_RUN = 0xffff;
const STAGING_SIZE = PAGES_PER_FRAME * PAGE_SIZE;

export interface PagesSent {
  pages: number;
  zeroPages: number;
  bytes: number;
}

/** Collects pages into frames. Every page is copied before it is checksummed and sent, since the guest goes on writing. */
export class PageSender {
  readonly #memory: GuestMemory;
  readonly #channel: Channel;
  #staging = Buffer.allocUnsafeSlow(STAGING_SIZE);
  #staged = 0;
  #runs: { page: number; pages: number; kind: number }[] = [];
  #zeroPages = 0;

  constructor(memory: GuestMemory, channel: Channel) {
    this.#memory = memory;
    this.#channel = channel;
  }

  /** Sends every page whose bit is set and clears nothing: the caller owns the bitmap. Pages outside guest memory are skipped. */
  async send(bitmap: PageBitmap, round: number): Promise<PagesSent> {
    const before = this.#channel.bytesSent;
    let pages = 0;
    this.#zeroPages = 0;
    for (const range of bitmap.ranges()) {
      let page = range.page;
      const end = range.page + range.pages;
      while (page < end) {
        const region = this.#regionOf(page);
        if (region === undefined) {
          page++;
          continue;
        }
        const stop = Math.min(end, region.end / PAGE_SIZE);
        for (; page < stop; page++) {
          this.#stage(region, page);
          pages++;
          if (this.#staged === STAGING_SIZE || this.#runs.length >= PAGES_PER_FRAME) await this.#flush(round);
        }
      }
    }
    await this.#flush(round);
    return { pages, zeroPages: this.#zeroPages, bytes: this.#channel.bytesSent - before };
  }

  #regionOf(page: number): GuestRegion | undefined {
    const at = page * PAGE_SIZE;
    return this.#memory.regions.find((region) => at >= region.gpa && at < region.end);
  }

  #stage(region: GuestRegion, page: number): void {
    const at = page * PAGE_SIZE - region.gpa;
    const target = this.#staging.subarray(this.#staged, this.#staged + PAGE_SIZE);
    target.set(region.u8.subarray(at, at + PAGE_SIZE));
    const kind = native().rangeIsZero(target) === 1 ? KIND_ZERO : KIND_DATA;
    if (kind === KIND_DATA) this.#staged += PAGE_SIZE;
    else this.#zeroPages++;
    const last = this.#runs[this.#runs.length - 1];
    if (last !== undefined && last.kind === kind && last.page + last.pages === page && last.pages < MAX_RUN)
      last.pages++;
    else this.#runs.push({ page, pages: 1, kind });
  }

  async #flush(round: number): Promise<void> {
    if (this.#runs.length === 0) return;
    const table = TABLE_HEADER + this.#runs.length * RUN_SIZE;
    const payload = Buffer.allocUnsafeSlow(table + this.#staged);
    payload.writeUInt32LE(round, 0);
    payload.writeUInt32LE(this.#runs.length, 4);
    this.#runs.forEach((run, index) => {
      const at = TABLE_HEADER + index * RUN_SIZE;
      payload.writeUInt32LE(run.page, at);
      payload.writeUInt16LE(run.pages, at + 4);
      payload.writeUInt16LE(run.kind, at + 6);
    });
    payload.set(this.#staging.subarray(0, this.#staged), table);
    this.#runs = [];
    this.#staged = 0;
    await this.#channel.send(FrameType.PAGES, payload);
  }
}

export interface PagesReceived {
  round: number;
  pages: number;
}

/**
 * Puts a PAGES frame into guest memory, after every run of it was found to lie there. `written` holds the pages that ever had data: a
 * zero page that never had is left alone, since touching it would allocate it. `onRun` hears of each run.
 */
export function applyPages(
  memory: GuestMemory,
  frame: Frame,
  written: PageBitmap,
  onRun: (page: number, pages: number) => void,
): PagesReceived {
  const payload = frame.payload;
  const at = frame.offset + FRAME_HEADER_SIZE;
  if (payload.byteLength < TABLE_HEADER)
    throw new ProtocolError(`PAGES of ${payload.byteLength} bytes`, at, 'at least 8');
  const round = payload.readUInt32LE(0);
  const runs = payload.readUInt32LE(4);
  const table = TABLE_HEADER + runs * RUN_SIZE;
  if (table > payload.byteLength) {
    throw new ProtocolError(`PAGES with ${runs} runs in ${payload.byteLength} bytes`, at + 4, `${table} bytes or more`);
  }
  let dataBytes = 0;
  for (let index = 0; index < runs; index++) {
    const run = TABLE_HEADER + index * RUN_SIZE;
    const page = payload.readUInt32LE(run);
    const pages = payload.readUInt16LE(run + 4);
    const kind = payload.readUInt16LE(run + 6);
    if (kind !== KIND_ZERO && kind !== KIND_DATA)
      throw new ProtocolError(`run of kind ${kind}`, at + run + 6, '0 or 1');
    const inside = memory.regions.some(
      (region) => page * PAGE_SIZE >= region.gpa && (page + pages) * PAGE_SIZE <= region.end,
    );
    if (pages === 0 || !inside) {
      throw new ProtocolError(
        `run of ${pages} pages from page 0x${page.toString(16)}`,
        at + run,
        'pages of one memory region',
      );
    }
    if (kind === KIND_DATA) dataBytes += pages * PAGE_SIZE;
  }
  if (table + dataBytes !== payload.byteLength) {
    throw new ProtocolError(`PAGES of ${payload.byteLength} bytes`, at, `${table + dataBytes} bytes by its own table`);
  }
  let data = table;
  let total = 0;
  for (let index = 0; index < runs; index++) {
    const run = TABLE_HEADER + index * RUN_SIZE;
    const page = payload.readUInt32LE(run);
    const pages = payload.readUInt16LE(run + 4);
    if (payload.readUInt16LE(run + 6) === KIND_DATA) {
      memory.view(page * PAGE_SIZE, pages * PAGE_SIZE).set(payload.subarray(data, data + pages * PAGE_SIZE));
      data += pages * PAGE_SIZE;
      written.setRange(page, pages);
    } else {
      for (let at = page; at < page + pages; at++) {
        if (written.has(at)) memory.view(at * PAGE_SIZE, PAGE_SIZE).fill(0);
      }
    }
    total += pages;
    onRun(page, pages);
  }
  return { round, pages: total };
}

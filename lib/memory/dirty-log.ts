/**
 * Who wrote which page. Every writer of guest memory is a DirtySource; a migration round takes and clears the union of all.
 */
import { fstatSync } from 'node:fs';
import { check, closedError, invalidArgument, VhostError } from '../errors';
import { type FdHandle, type MappingHandle, native } from '../native';
import { type HostAddress, hva, PAGE_SIZE } from './address';
import { PageBitmap } from './page-bitmap';

export interface DirtySource {
  readonly name: string;
  /** Moves its pages into `bitmap`, which grows when it has too few bits. Answers how many were not there before. */
  takeInto(bitmap: PageBitmap): number;
}

const PROT_READ = 1;
const PROT_WRITE = 2;
/** Pages a 64-bit word of the log stands for. */
const PAGES_PER_WORD = 64;
/** First address a PageBitmap has no bit for. */
const MAX_END = 2 ** 32 * PAGE_SIZE;

/**
 * The bitmap that the vhost worker writes to: a mapping of its own between guard pages, since the kernel checks neither its size nor that
 * it is there (drivers/vhost/vhost.c, log_access_ok) and sets bits by guest address alone.
 */
export class DirtyLog implements DirtySource {
  readonly name = 'vhost';
  readonly mapping: MappingHandle;
  readonly hva: HostAddress;
  /** Pages it has bits for. */
  readonly pages: number;
  readonly bytes: number;
  #closed = false;

  private constructor(mapping: MappingHandle, bytes: number) {
    this.mapping = mapping;
    this.bytes = bytes;
    this.pages = bytes * 8;
    this.hva = hva(native().mappingAddress(mapping));
  }

  /** A clean one for everything below GPA `endGpa`: the end of the highest region or used ring. */
  static create(endGpa: number): DirtyLog {
    if (!Number.isSafeInteger(endGpa) || endGpa <= 0 || endGpa > MAX_END) {
      throw invalidArgument(`a dirty log up to GPA ${endGpa}`, `1 to ${MAX_END}`);
    }
    const words = Math.floor((endGpa - 1) / (PAGE_SIZE * PAGES_PER_WORD)) + 1;
    const bytes = Math.ceil((words * 8) / PAGE_SIZE) * PAGE_SIZE;
    const mapping = check<MappingHandle>(native().mappingCreate(null, 0, bytes, 0, PROT_READ | PROT_WRITE), 'mmap');
    return new DirtyLog(mapping, bytes);
  }

  /**
   * One that another process reads: `bytes` of a file from `offset` on, which stays the caller's. Throws VHOST_ERR_LOG_SIZE for a part that the
   * file does not have, or that cannot be mapped by itself.
   */
  static share(fd: FdHandle, offset: number, bytes: number): DirtyLog {
    const refuse = (what: string): never => {
      throw new VhostError('VHOST_ERR_LOG_SIZE', `a log of ${bytes} bytes at offset ${offset}: ${what}`);
    };
    if (!Number.isSafeInteger(bytes) || bytes <= 0 || bytes % 8 !== 0) refuse('a multiple of 8 from 8 on');
    if (bytes * 8 * PAGE_SIZE > MAX_END) refuse(`longer than any guest memory, ${MAX_END / PAGE_SIZE / 8}`);
    if (!Number.isSafeInteger(offset) || offset < 0 || offset % PAGE_SIZE !== 0)
      refuse(`an offset in pages of ${PAGE_SIZE}`);
    const stats = fstatSync(check(native().fdNumber(fd), 'fcntl'));
    if (!stats.isFile()) refuse('its descriptor is no file');
    if (stats.size < offset + bytes) refuse(`the file has ${stats.size}`);
    const mapping = check<MappingHandle>(native().mappingCreate(fd, offset, bytes, 0, PROT_READ | PROT_WRITE), 'mmap');
    return new DirtyLog(mapping, bytes);
  }

  get closed(): boolean {
    return this.#closed;
  }

  /** Whether every page below `endGpa` (exclusive) has its bit. */
  covers(endGpa: number): boolean {
    return endGpa <= this.pages * PAGE_SIZE;
  }

  /** Each bit is taken and cleared at once, so one that the kernel sets meanwhile is in this take or in the next. */
  takeInto(bitmap: PageBitmap): number {
    if (this.#closed) throw closedError('DirtyLog');
    bitmap.grow(this.pages);
    return check(native().dirtyLogTake(this.mapping, bitmap.words), 'dirtyLogTake');
  }

  /** The memory stays mapped as long as a vhost device was told of it. Idempotent. */
  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    native().mappingClose(this.mapping);
  }
}

/** What the guest itself wrote, as its processors' log would show it. One thread writes and takes. */
export class GuestWriteLog implements DirtySource {
  readonly name = 'guest';
  readonly #bitmap: PageBitmap;
  #enabled = false;

  /** For guest addresses below `pages` * 4096. */
  constructor(pages: number) {
    this.#bitmap = new PageBitmap(pages);
  }

  /** Off until a migration wants to know. Turned on, it begins empty; turned off, what it has can still be taken. */
  get enabled(): boolean {
    return this.#enabled;
  }

  set enabled(on: boolean) {
    if (on && !this.#enabled) this.#bitmap.reset();
    this.#enabled = on;
  }

  /** For memory that has grown. */
  grow(pages: number): void {
    this.#bitmap.grow(pages);
  }

  /** Remembers that [gpa, gpa + length) was written: call it after the write. Throws when a byte of it has no bit. */
  mark(gpa: number, length: number): void {
    if (!this.#enabled || length === 0) return;
    const bitmap = this.#bitmap;
    const first = Math.floor(gpa / PAGE_SIZE);
    const last = Math.floor((gpa + length - 1) / PAGE_SIZE);
    if (!(first >= 0 && length > 0 && last < bitmap.pages)) throw outside(gpa, length, bitmap.pages);
    const u32 = bitmap.u32;
    if (last - first < PAGES_PER_WORD) {
      for (let page = first; page <= last; page++) u32[page >>> 5]! |= 1 << (page & 31);
    } else {
      bitmap.setRange(first, last - first + 1);
    }
  }

  takeInto(bitmap: PageBitmap): number {
    const fresh = bitmap.or(this.#bitmap);
    this.#bitmap.reset();
    return fresh;
  }
}

function outside(gpa: number, length: number, pages: number): Error {
  return invalidArgument(`write of ${length} bytes at GPA 0x${gpa.toString(16)} outside of ${pages} pages`);
}

/** All writers at once. */
export class DirtyUnion {
  readonly #sources: DirtySource[];

  constructor(sources: readonly DirtySource[]) {
    this.#sources = [...sources];
  }

  add(source: DirtySource): void {
    if (!this.#sources.includes(source)) this.#sources.push(source);
  }

  /** What it has and nobody took is lost with it: take first. */
  remove(source: DirtySource): void {
    const at = this.#sources.indexOf(source);
    if (at >= 0) this.#sources.splice(at, 1);
  }

  /** Newly set pages by the name of who wrote them; a page of two writers counts for the first. */
  takeInto(bitmap: PageBitmap): Map<string, number> {
    const taken = new Map<string, number>();
    for (const source of this.#sources) taken.set(source.name, (taken.get(source.name) ?? 0) + source.takeInto(bitmap));
    return taken;
  }
}

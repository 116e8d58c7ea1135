/**
 * Guest physical memory: regions, each a memfd mapped once and seen through one ArrayBuffer. Regions may come and go while devices run;
 * whoever told a device of the memory listens to changes.
 */
import { readFileSync } from 'node:fs';
import { closeAll } from '../descriptors';
import { check, closedError, invalidArgument, reasonOf, VhostError } from '../errors';
import { type FdHandle, type MappingHandle, native } from '../native';
import { type HostAddress, hva, PAGE_SIZE } from './address';
import {
  type AdoptedRegionSpec,
  checkDescriptors,
  checkOverlap,
  checkRegion,
  checkShared,
  GuestRegion,
  type RegionSpec,
  type SharedRegionSpec,
} from './region';

export type { AdoptedRegionSpec, GuestRegion, RegionSpec, SharedRegionSpec } from './region';

export interface MemoryOptions {
  /**
   * `separate` maps every region a second time and tells devices of that mapping only, so that what they write can be told from what this
   * process writes (see WriteWitness).
   */
  deviceMapping?: 'same' | 'separate';
}

export interface MemoryChange {
  kind: 'add' | 'remove';
  region: GuestRegion;
}

/**
 * Tells a device what `vhostRegions()` and `end` say now. When a listener fails, it and all that were told before it hear of the opposite
 * change, so that must be fit to be told twice. It must not change memory itself, which would wait for the change it is in.
 */
export type MemoryListener = (change: MemoryChange) => Promise<void>;

/** What VHOST_SET_MEM_TABLE is given. */
export interface VhostRegions {
  /** gpa, size, hva of each region, ascending. */
  table: number[];
  mappings: MappingHandle[];
}

interface Piece {
  region: GuestRegion;
  /** Offset in the region. */
  at: number;
  /** Offset in the range. */
  offset: number;
  count: number;
}

export class GuestMemory {
  /** What this process may use, ascending. Replaced, never altered. */
  #regions: readonly GuestRegion[];
  /** What devices are told of: one more while a region is added, until all of them know it. */
  #table: readonly GuestRegion[];
  readonly #separate: boolean;
  readonly #listeners = new Set<MemoryListener>();
  #closed = false;
  /** Changes run one after the other. */
  #last: Promise<unknown> = Promise.resolve();

  private constructor(regions: readonly GuestRegion[], separate: boolean) {
    this.#regions = ascending(regions);
    this.#table = this.#regions;
    this.#separate = separate;
  }

  /** New memory, all zero. Throws VHOST_ERR_MEMORY_TABLE for regions that cannot be. */
  static create(regions: readonly RegionSpec[], options: MemoryOptions = {}): GuestMemory {
    checkRegions(regions);
    return GuestMemory.#make(regions, options, GuestRegion.memfd);
  }

  /**
   * Memory from memfds that somebody else has made, such as another process whose guest goes on here: both see the same bytes. They must be
   * long enough and sealed against shrinking. Takes the descriptors whatever happens: a failure leaves them closed.
   */
  static adopt(regions: readonly AdoptedRegionSpec[], options: MemoryOptions = {}): GuestMemory {
    return GuestMemory.#take(regions, options, checkDescriptors);
  }

  /**
   * Memory that another process goes on using, from files of any kind and parts of files, as a vhost-user front end passes them. Takes the
   * descriptors whatever happens: a failure leaves them closed. Throws VHOST_ERR_MEMORY_TABLE.
   */
  static share(regions: readonly SharedRegionSpec[]): GuestMemory {
    return GuestMemory.#take(regions, {}, (all) => all.forEach(checkShared));
  }

  static #take<Spec extends AdoptedRegionSpec & { offset?: number }>(
    regions: readonly Spec[],
    options: MemoryOptions,
    check: (regions: readonly Spec[]) => void,
  ): GuestMemory {
    try {
      checkRegions(regions);
      check(regions);
    } catch (error) {
      closeAll(regions.map(({ fd }) => fd));
      throw error;
    }
    return GuestMemory.#make(regions, options, ({ fd }) => fd);
  }

  static #make<Spec extends RegionSpec & { offset?: number }>(
    specs: readonly Spec[],
    { deviceMapping = 'same' }: MemoryOptions,
    open: (spec: Spec) => FdHandle,
  ): GuestMemory {
    const separate = deviceMapping === 'separate';
    const fds: FdHandle[] = [];
    const regions: GuestRegion[] = [];
    try {
      for (const spec of specs) fds.push(open(spec));
      specs.forEach((spec, index) => {
        regions.push(GuestRegion.map(spec, fds[index]!, separate, spec.offset));
      });
    } catch (error) {
      for (const region of regions) region.close();
      closeAll(fds);
      throw error;
    }
    return new GuestMemory(regions, separate);
  }

  /** Whether devices write through a mapping of their own. */
  get separateDeviceMapping(): boolean {
    return this.#separate;
  }

  /** Ascending. A new list after every change. */
  get regions(): readonly GuestRegion[] {
    this.#throwIfClosed();
    return this.#regions;
  }

  /** First address behind the highest region that devices are told of. */
  get end(): number {
    this.#throwIfClosed();
    return this.#table[this.#table.length - 1]!.end;
  }

  /** Pages of all regions together. */
  get pages(): number {
    this.#throwIfClosed();
    return this.#regions.reduce((pages, region) => pages + region.size / PAGE_SIZE, 0);
  }

  get closed(): boolean {
    return this.#closed;
  }

  #throwIfClosed(): void {
    if (this.#closed) throw closedError('GuestMemory');
  }

  /** The region that holds all of [gpa, gpa + length). Throws VHOST_ERR_MEMORY_TABLE when there is none. */
  regionOf(gpa: number, length: number): GuestRegion {
    this.#throwIfClosed();
    checkLength(length);
    for (const region of this.#regions) if (region.contains(gpa, length)) return region;
    throw new VhostError(
      'VHOST_ERR_MEMORY_TABLE',
      `[0x${gpa.toString(16)}, 0x${(gpa + length).toString(16)}) is not inside one region of guest memory`,
    );
  }

  /** The bytes themselves, within one region. */
  view(gpa: number, length: number): Uint8Array {
    const region = this.regionOf(gpa, length);
    return region.u8.subarray(gpa - region.gpa, gpa - region.gpa + length);
  }

  /** A copy; may cross from one region into the next. Holes of the memfds stay holes. */
  read(gpa: number, length: number): Uint8Array {
    const pieces = this.#pieces(gpa, length);
    const bytes = new Uint8Array(length);
    for (const { region, at, offset, count } of pieces) {
      const got = check(
        native().fdPread(region.fd, bytes.subarray(offset, offset + count), region.offset + at),
        'pread',
      );
      if (got !== count)
        throw new VhostError('VHOST_ERR_MEMORY_TABLE', `the memfd of ${region.size} bytes was cut short`);
    }
    return bytes;
  }

  /** May cross from one region into the next; writes nothing when a byte of it lies outside. */
  write(gpa: number, bytes: Uint8Array): void {
    for (const { region, at, offset, count } of this.#pieces(gpa, bytes.length)) {
      region.u8.set(bytes.subarray(offset, offset + count), at);
    }
  }

  #pieces(gpa: number, length: number): Piece[] {
    checkLength(length);
    const pieces: Piece[] = [];
    let offset = 0;
    do {
      const region = this.regionOf(gpa + offset, Math.min(length, 1));
      const at = gpa + offset - region.gpa;
      const count = Math.min(length - offset, region.size - at);
      pieces.push({ region, at, offset, count });
      offset += count;
    } while (offset < length);
    return pieces;
  }

  /** Where devices find [gpa, gpa + length), within one region. */
  hvaOf(gpa: number, length: number): HostAddress {
    const region = this.regionOf(gpa, length);
    return hva(region.hva + (gpa - region.gpa));
  }

  /**
   * The table for devices, one entry a region: they are never merged, since guard pages lie between their mappings. With a limit, throws
   * VHOST_ERR_MEMORY_TABLE when there are more (see maxMemRegions).
   */
  vhostRegions({ limit = Number.POSITIVE_INFINITY }: { limit?: number } = {}): VhostRegions {
    this.#throwIfClosed();
    if (this.#table.length > limit) {
      throw new VhostError('VHOST_ERR_MEMORY_TABLE', `${this.#table.length} memory regions, the kernel takes ${limit}`);
    }
    return {
      table: this.#table.flatMap((region) => [region.gpa, region.size, region.hva]),
      mappings: this.#table.map((region) => region.mapping),
    };
  }

  /** Calls back, and waits, whenever a region was added or is about to go. Answers how to stop listening. */
  onChange(listener: MemoryListener): () => void {
    this.#throwIfClosed();
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  /**
   * Maps a new region, tells the listeners, who make it known to their devices, and only then lets this process use it. When a listener
   * fails, those told hear that it goes again, and it is unmapped. New memory, or, with a descriptor, which is taken whatever happens, that
   * of another process.
   */
  addRegion(spec: RegionSpec | SharedRegionSpec): Promise<GuestRegion> {
    return this.#oneAfterTheOther(async () => {
      const region = this.#mapMore(spec);
      const regions = ascending([...this.#regions, region]);
      try {
        await this.#tell(regions, { kind: 'add', region });
      } catch (error) {
        region.close();
        throw error;
      }
      this.#regions = regions;
      return region;
    });
  }

  #mapMore(spec: RegionSpec | SharedRegionSpec): GuestRegion {
    const shared = 'fd' in spec ? spec : null;
    try {
      this.#throwIfClosed();
      checkRegion(spec);
      checkOverlap([...this.#regions, spec]);
      if (shared !== null) checkShared(shared);
    } catch (error) {
      if (shared !== null) native().fdClose(shared.fd);
      throw error;
    }
    return GuestRegion.map(spec, shared?.fd ?? GuestRegion.memfd(spec), this.#separate, shared?.offset);
  }

  /**
   * Lets this process use a region no more, tells the listeners, who take it from their devices, and only then unmaps it. When a listener
   * fails, those told hear that it is back, and it stays.
   */
  removeRegion(gpa: number): Promise<void> {
    return this.#oneAfterTheOther(async () => {
      this.#throwIfClosed();
      const before = this.#regions;
      const region = before.find((other) => other.gpa === gpa);
      if (region === undefined) {
        throw new VhostError('VHOST_ERR_MEMORY_TABLE', `no region begins at GPA 0x${gpa.toString(16)}`);
      }
      if (before.length === 1) throw new VhostError('VHOST_ERR_MEMORY_TABLE', 'the last region cannot be removed');
      this.#regions = before.filter((other) => other !== region);
      try {
        await this.#tell(this.#regions, { kind: 'remove', region });
      } catch (error) {
        this.#regions = before;
        if (this.#closed) region.close();
        throw error;
      }
      region.close();
    });
  }

  /** Puts `table` in force, or the one before when a listener fails. */
  async #tell(table: readonly GuestRegion[], change: MemoryChange): Promise<void> {
    const before = this.#table;
    this.#table = table;
    const told: MemoryListener[] = [];
    try {
      for (const listener of [...this.#listeners]) {
        if (!this.#listeners.has(listener)) continue;
        told.unshift(listener);
        await listener(change);
      }
      this.#throwIfClosed();
    } catch (error) {
      this.#table = before;
      if (!this.#closed) await this.#undo(told, change, error);
      throw error;
    }
  }

  async #undo(told: readonly MemoryListener[], change: MemoryChange, cause: unknown): Promise<void> {
    const opposite: MemoryChange = { kind: change.kind === 'add' ? 'remove' : 'add', region: change.region };
    const failures: unknown[] = [];
    for (const listener of told) {
      try {
        await listener(opposite);
      } catch (error) {
        failures.push(error);
      }
    }
    if (failures.length > 0) {
      const [first, second] = [cause, failures[0]].map(reasonOf);
      throw new VhostError('VHOST_ERR_MEMORY_TABLE', `${first}; and undoing the change failed too: ${second}`, {
        cause,
      });
    }
  }

  #oneAfterTheOther<T>(run: () => Promise<T>): Promise<T> {
    const result = this.#last.then(run);
    this.#last = result.catch(() => undefined);
    return result;
  }

  /**
   * Views are detached, later calls throw VHOST_ERR_CLOSED; what a device still refers to stays mapped until it is closed. A region whose
   * listeners are at work is closed after them. Idempotent.
   */
  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    for (const region of this.#regions) region.close();
    this.#listeners.clear();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.close();
  }
}

function ascending(regions: readonly GuestRegion[]): GuestRegion[] {
  return [...regions].sort((a, b) => a.gpa - b.gpa);
}

function checkLength(length: number): void {
  if (!Number.isSafeInteger(length) || length < 0) throw invalidArgument(`length ${length}`);
}

function checkRegions(specs: readonly RegionSpec[]): void {
  if (specs.length === 0) throw invalidArgument('guest memory without a region');
  for (const spec of specs) checkRegion(spec);
  checkOverlap(specs);
}

const MAX_MEM_REGIONS = '/sys/module/vhost/parameters/max_mem_regions';
/** drivers/vhost/vhost.c */
const DEFAULT_MAX_MEM_REGIONS = 64;

/** Regions that VHOST_SET_MEM_TABLE takes on this host. */
export function maxMemRegions(): number {
  try {
    return Number.parseInt(readFileSync(MAX_MEM_REGIONS, 'utf8'), 10) || DEFAULT_MAX_MEM_REGIONS;
  } catch {
    return DEFAULT_MAX_MEM_REGIONS;
  }
}

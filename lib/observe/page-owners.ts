/**
 * What pages of guest memory are to the device's queues: rings, or buffers that the device writes. Read from descriptors as they lie in
 * guest memory, without disturbing anyone: whatever lies there, it ends soon and throws nothing.
 */

import { VIRTIO_RING_F_EVENT_IDX } from '../constants/virtio-net';
import {
  VIRTQUEUE_MAX_SIZE,
  VRING_DESC_F_INDIRECT,
  VRING_DESC_F_WRITE,
  VRING_DESC_SIZE,
} from '../constants/virtio-ring';
import { VRING_PACKED_EVENT_SIZE } from '../constants/virtio-ring-packed';
import { PAGE_SIZE } from '../memory/address';
import type { GuestMemory } from '../memory/guest-memory';
import { PageBitmap } from '../memory/page-bitmap';
import { hasBit } from '../net/features';
import { availRingBytes, descTableBytes, usedRingBytes } from '../virtqueue/layout';
import { descRingBytes } from '../virtqueue/packed-layout';
import type { QueueState } from '../virtqueue/queue-state';
import type { QueueRole } from '../virtqueue/ring-inspection';
import { descriptorAt, type RawDescriptor } from '../virtqueue/ring-inspector-chain';
import { RingReader } from '../virtqueue/ring-inspector-reader';

/** Entries of indirect tables that one look reads, and pages of buffers that it notes: it ends soon on any bytes. */
const TABLE_ENTRIES = 65536;
const BUFFER_PAGES = 1 << 20;

/**
 * - `usedRing`: where the device writes for each chain; of a packed virtqueue the descriptor ring and the device event structure
 * - `driverRing`: what the device only reads: descriptor table, available ring, indirect tables; of a packed virtqueue the driver event
 *   structure and indirect tables
 * - `buffers`: what the driver lets the device write
 */
export type QueuePart = 'usedRing' | 'driverRing' | 'buffers';
export const QUEUE_PARTS: readonly QueuePart[] = ['usedRing', 'driverRing', 'buffers'];

export interface PageOwner {
  /** The control queue's comes behind those of the data queues. */
  readonly queue: number;
  readonly kind: QueueRole;
  readonly part: QueuePart;
}

/** VirtioNetDevice fits. */
export interface OwningDevice {
  readonly memory: GuestMemory;
  readonly features: bigint;
  /** Receive 2n, transmit 2n + 1. */
  readonly queues: readonly Readonly<QueueState>[];
  readonly controlQueue: Readonly<QueueState>;
}

interface OwnedQueue {
  readonly queue: number;
  readonly kind: QueueRole;
  readonly state: Readonly<QueueState>;
}

/** Queues that the driver has enabled. */
function enabledQueues({ queues, controlQueue }: OwningDevice): OwnedQueue[] {
  const data = queues.map((state, queue): OwnedQueue => ({ queue, kind: roleOf(queue), state }));
  const control: OwnedQueue = { queue: queues.length, kind: 'control', state: controlQueue };
  return [...data, control].filter(({ state }) => state.ready && state.size >= 1 && state.size <= VIRTQUEUE_MAX_SIZE);
}

const roleOf = (queue: number): QueueRole => (queue % 2 === 0 ? 'receive' : 'transmit');

interface Range {
  readonly part: QueuePart;
  readonly gpa: number;
  readonly length: number;
}

/** The parts of a queue that have a place of their own, those the device writes first. */
function ringRanges(
  { size, descTable, availRing, usedRing, packed }: Readonly<QueueState>,
  eventIdx: boolean,
): Range[] {
  if (packed !== undefined) {
    return [
      { part: 'usedRing', gpa: descTable, length: descRingBytes(size) },
      { part: 'usedRing', gpa: usedRing, length: VRING_PACKED_EVENT_SIZE },
      { part: 'driverRing', gpa: availRing, length: VRING_PACKED_EVENT_SIZE },
    ];
  }
  return [
    { part: 'usedRing', gpa: usedRing, length: usedRingBytes(size, eventIdx) },
    { part: 'driverRing', gpa: availRing, length: availRingBytes(size, eventIdx) },
    { part: 'driverRing', gpa: descTable, length: descTableBytes(size) },
  ];
}

/**
 * Pages of all rings that are enabled, the control queue's too: while there is traffic they are dirty whenever one looks, so that it pays to
 * send them last. As long as guest memory.
 */
export function hotPages(device: OwningDevice): PageBitmap {
  const pages = device.memory.end / PAGE_SIZE;
  const hot = new PageBitmap(pages);
  const eventIdx = hasBit(device.features, VIRTIO_RING_F_EVENT_IDX);
  for (const { state } of enabledQueues(device)) {
    for (const { gpa, length } of ringRanges(state, eventIdx)) {
      const first = Math.floor(gpa / PAGE_SIZE);
      const end = Math.min(pages, Math.ceil((gpa + length) / PAGE_SIZE));
      if (first < end) hot.setRange(first, end - first);
    }
  }
  return hot;
}

/** Owners of pages, from several looks at a device whose driver goes on posting buffers. The first owner that was found counts. */
export class PageOwners {
  readonly #owners: PageOwner[] = [];
  /** By page (GPA / 4096). */
  readonly #ownerOf = new Map<number, PageOwner>();
  readonly #shared = new Set<number>();
  #cut = false;
  #entriesLeft = 0;
  #pagesLeft = 0;

  ownerOf(page: number): PageOwner | null {
    return this.#ownerOf.get(page) ?? null;
  }

  /** Whether something else of a queue, or of another queue, was found in the page as well. */
  isShared(page: number): boolean {
    return this.#shared.has(page);
  }

  /** A look ended before everything was read: there were more buffers than it reads. */
  get cut(): boolean {
    return this.#cut;
  }

  /** Adds what the device's queues own now. Rings come before any buffer. */
  look(device: OwningDevice): void {
    const { memory, features } = device;
    const queues = enabledQueues(device);
    const eventIdx = hasBit(features, VIRTIO_RING_F_EVENT_IDX);
    this.#entriesLeft = TABLE_ENTRIES;
    this.#pagesLeft = BUFFER_PAGES;
    for (const { state, ...of } of queues) {
      for (const { part, gpa, length } of ringRanges(state, eventIdx)) {
        this.#own(this.#owner(of, part), gpa, length, memory.end);
      }
    }
    const reader = new RingReader(memory);
    for (const queue of queues) this.#lookAtDescriptors(queue, reader, memory.end);
  }

  #owner({ queue, kind }: Pick<PageOwner, 'queue' | 'kind'>, part: QueuePart): PageOwner {
    const known = this.#owners.find((owner) => owner.queue === queue && owner.part === part);
    if (known !== undefined) return known;
    const owner = { queue, kind, part };
    this.#owners.push(owner);
    return owner;
  }

  /**
   * Every descriptor of the table counts, not only what is available: one that was used still says where the device wrote, until the driver
   * writes it anew.
   */
  #lookAtDescriptors({ state, ...of }: OwnedQueue, reader: RingReader, end: number): void {
    const table = reader.copy(state.descTable, descTableBytes(state.size));
    if (table === null) return;
    const packed = state.packed !== undefined;
    const buffers = this.#owner(of, 'buffers');
    const tables = this.#owner(of, 'driverRing');
    for (let index = 0; index < state.size; index++) {
      const raw = descriptorAt(table, index);
      const flags = flagsOf(raw, packed);
      if ((flags & VRING_DESC_F_INDIRECT) === 0) this.#buffer(buffers, raw, flags, end);
      else this.#table(tables, buffers, raw, packed, reader, end);
    }
  }

  #table(
    tables: PageOwner,
    buffers: PageOwner,
    raw: RawDescriptor,
    packed: boolean,
    reader: RingReader,
    end: number,
  ): void {
    const entries = Math.floor(raw.length / VRING_DESC_SIZE);
    const gpa = Number(raw.gpa);
    if (entries === 0 || gpa >= end) return;
    if (entries > this.#entriesLeft) {
      this.#cut = true;
      return;
    }
    this.#entriesLeft -= entries;
    const table = reader.copy(gpa, entries * VRING_DESC_SIZE);
    if (table === null) return;
    this.#own(tables, gpa, raw.length, end);
    for (let index = 0; index < entries; index++) {
      const entry = descriptorAt(table, index);
      const flags = flagsOf(entry, packed);
      if ((flags & VRING_DESC_F_INDIRECT) === 0) this.#buffer(buffers, entry, flags, end);
    }
  }

  #buffer(owner: PageOwner, { gpa, length }: RawDescriptor, flags: number, end: number): void {
    if ((flags & VRING_DESC_F_WRITE) === 0 || length === 0 || gpa >= BigInt(end)) return;
    this.#own(owner, Number(gpa), length, end);
  }

  #own(owner: PageOwner, gpa: number, length: number, end: number): void {
    const first = Math.floor(gpa / PAGE_SIZE);
    let pages = Math.ceil((Math.min(end, gpa + length) - first * PAGE_SIZE) / PAGE_SIZE);
    if (owner.part === 'buffers' && pages > this.#pagesLeft) {
      this.#cut = true;
      pages = this.#pagesLeft;
    }
    if (owner.part === 'buffers') this.#pagesLeft -= Math.max(0, pages);
    for (let page = first; page < first + pages; page++) {
      const before = this.#ownerOf.get(page);
      if (before === undefined) this.#ownerOf.set(page, owner);
      else if (before !== owner) this.#shared.add(page);
    }
  }
}

/** Of a packed virtqueue the id comes before the flags. */
const flagsOf = ({ third, fourth }: RawDescriptor, packed: boolean): number => (packed ? fourth : third);

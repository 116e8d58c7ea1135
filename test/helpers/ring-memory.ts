/** Guest memory for ring tests without a memfd: regions of plain ArrayBuffers, and a log that knows every byte that was not marked. */
import { VhostError } from '../../lib/errors';
import type { RegionView, RingMemory, WriteLog } from '../../lib/virtqueue/ring-memory';

export interface TestRegion extends RegionView {
  readonly u8: Uint8Array<ArrayBufferLike>;
}

export class TestMemory implements RingMemory {
  readonly regions: TestRegion[];

  constructor(specs: readonly { gpa: number; size: number; shared?: ArrayBufferLike }[]) {
    this.regions = specs.map(({ gpa, size, shared }) => ({ gpa, u8: new Uint8Array(shared ?? new ArrayBuffer(size)) }));
  }

  regionOf(gpa: number, length: number): TestRegion {
    for (const region of this.regions) {
      if (gpa >= region.gpa && gpa + length <= region.gpa + region.u8.length) return region;
    }
    throw new VhostError('VHOST_ERR_MEMORY_TABLE', `[0x${gpa.toString(16)}, +${length}) is outside`);
  }

  bytes(gpa: number, length: number): Uint8Array {
    const region = this.regionOf(gpa, length);
    return region.u8.subarray(gpa - region.gpa, gpa - region.gpa + length);
  }

  view(gpa: number, length: number): DataView {
    const bytes = this.bytes(gpa, length);
    return new DataView(bytes.buffer, bytes.byteOffset, length);
  }

  /** A copy of everything, as a migration makes it. */
  clone(): TestMemory {
    const copy = new TestMemory(this.regions.map(({ gpa, u8 }) => ({ gpa, size: u8.length })));
    for (const [index, region] of this.regions.entries()) copy.regions[index]!.u8.set(region.u8);
    return copy;
  }
}

/** Remembers marked bytes one by one, so that a byte that changed without a mark can be named. */
const PAGE = 4096;

export class ByteLog implements WriteLog {
  enabled = true;
  readonly #memory: TestMemory;
  readonly #marked: Uint8Array[];
  readonly #before: TestMemory;
  readonly #fresh: Uint8Array[] = [];

  constructor(memory: TestMemory) {
    this.#memory = memory;
    this.#marked = memory.regions.map(({ u8 }) => new Uint8Array(u8.length));
    this.#before = memory.clone();
  }

  mark(gpa: number, length: number): void {
    const region = this.#memory.regionOf(gpa, length);
    const at = gpa - region.gpa;
    const marked = this.#marked[this.#memory.regions.indexOf(region)]!.subarray(at, at + length);
    marked.fill(1);
    this.#fresh.push(marked);
  }

  /** GPAs of bytes that changed since the last call and were not marked; begins anew. */
  takeMissed(): number[] {
    const missed: number[] = [];
    for (const [index, { gpa, u8 }] of this.#memory.regions.entries()) {
      const before = this.#before.regions[index]!.u8;
      const marked = this.#marked[index]!;
      for (let page = 0; page < u8.length; page += PAGE) {
        const now = Buffer.from(u8.buffer, page, Math.min(PAGE, u8.length - page));
        if (!now.equals(before.subarray(page, page + now.length))) {
          for (let at = page; at < page + now.length; at++) {
            if (u8[at] !== before[at] && marked[at] === 0) missed.push(gpa + at);
          }
          before.set(now, page);
        }
      }
    }
    for (const marked of this.#fresh) marked.fill(0);
    this.#fresh.length = 0;
    return missed;
  }

  /** Forgets what changed meanwhile: somebody else wrote it. */
  forget(): void {
    this.takeMissed();
  }
}

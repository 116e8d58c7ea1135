/** A bare vhost-net device for tests of single ioctls: rings and tap there, nothing told to the kernel but what a test says. */
import { EventFd } from '../../lib/host/event-fd';
import { Netns } from '../../lib/host/netns';
import { Tap } from '../../lib/host/tap';
import type { RawVringAddr } from '../../lib/host/vhost-ioctls';
import { VhostNet } from '../../lib/host/vhost-net';
import { GuestMemory } from '../../lib/memory/guest-memory';
import type { MappingHandle } from '../../lib/native';
import { VERSION_1 } from './vhost-lab';
import { RawRing } from './vhost-ring';

const RAM = 0x100000;
const RAM_SIZE = 0x100000;

/** How much was told to the kernel before a test begins. */
export type Stage = 'open' | 'owned' | 'table' | 'rings' | 'attached';
const STAGES: readonly Stage[] = ['open', 'owned', 'table', 'rings', 'attached'];

/** What all devices of a test file share. */
export class VhostBench {
  readonly netns: Netns;
  readonly tap: Tap;
  readonly memory: GuestMemory;
  readonly rings: readonly RawRing[];

  private constructor(netns: Netns, tap: Tap) {
    this.netns = netns;
    this.tap = tap;
    this.memory = GuestMemory.create([{ gpa: RAM, size: RAM_SIZE }]);
    const rx = new RawRing(this.memory, RAM, 256);
    this.rings = [rx, new RawRing(this.memory, rx.end, 256)];
  }

  static async create(): Promise<VhostBench> {
    const netns = await Netns.create(Netns.uniqueName('bench'));
    try {
      const tap = await Tap.open({ netns: netns.path });
      await tap.setVnetHdrSize(12);
      return new VhostBench(netns, tap);
    } catch (error) {
      await netns.delete();
      throw error;
    }
  }

  /** The memory table as the kernel is told of it. */
  get table(): { table: number[]; mappings: MappingHandle[] } {
    return this.memory.vhostRegions();
  }

  /** Right addresses of a ring, some of them replaced. */
  addresses(index: number, overrides: Partial<RawVringAddr> = {}): RawVringAddr {
    const ring = this.rings[index]!;
    return {
      flags: 0,
      desc: this.memory.hvaOf(ring.desc, 16),
      used: this.memory.hvaOf(ring.used, 16),
      avail: this.memory.hvaOf(ring.avail, 16),
      logGuestAddr: ring.used,
      ...overrides,
    };
  }

  async device(stage: Stage): Promise<BenchDevice> {
    const vhost = await VhostNet.open();
    const reached = STAGES.indexOf(stage);
    if (reached >= 1) await vhost.setOwner();
    if (reached >= 2) {
      await vhost.setFeatures(VERSION_1);
      await vhost.setMemTable(this.memory);
    }
    if (reached >= 3) {
      for (const index of [0, 1]) {
        await vhost.setVringNum(index, 256);
        await vhost.unchecked.setVringAddr(index, this.addresses(index));
      }
    }
    if (reached >= 4) for (const index of [0, 1]) await vhost.setBackend(index, this.tap);
    return new BenchDevice(vhost);
  }

  async close(): Promise<void> {
    await this.tap.close();
    this.memory.close();
    await this.netns.delete();
  }
}

export class BenchDevice {
  readonly vhost: VhostNet;
  readonly event = EventFd.create();

  constructor(vhost: VhostNet) {
    this.vhost = vhost;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.vhost.close();
    this.event.close();
  }
}

/**
 * A virtio-net device on a real /dev/vhost-net, with all of its surroundings in a network namespace of its own: the device's tap and the
 * peer's tap are ports of one bridge, the peer's frames are read and written by the test.
 */

import type { BackendDevice, QueueNotifiers, RingFault } from '../../lib/backend/backend';
import { VhostKernelBackend, type VhostKernelOptions } from '../../lib/backend/vhost-kernel';
import { IFF_NO_PI, IFF_TAP } from '../../lib/constants/if-tun';
import { EventFd } from '../../lib/host/event-fd';
import { Netns } from '../../lib/host/netns';
import { Tap } from '../../lib/host/tap';
import { GuestMemory } from '../../lib/memory/guest-memory';
import type { FaultPlan } from '../../lib/trace/fault-plan';
import type { QueueState } from '../../lib/virtqueue/queue-state';
import { LabGuest } from './vhost-guest';
import { LabPeer } from './vhost-peer';
import { RawRing } from './vhost-ring';

export const VERSION_1 = 1n << 32n;
export const EVENT_IDX = 1n << 29n;
export const MRG_RXBUF = 1n << 15n;
export const HEADER = 12;

/** First byte of guest memory, the rings, and of the buffers. */
export const RAM = 0x100000;
export const RAM_SIZE = 0x800000;
export const BUFFERS = RAM + 0x200000;

export interface LabOptions {
  ringSize?: number;
  features?: bigint;
  deviceMapping?: 'same' | 'separate';
  backend?: Partial<VhostKernelOptions>;
  /** Faults of the device's tap. */
  tapFaults?: FaultPlan;
  /** Index at which both rings start. */
  start?: number;
  usedOffset?: number;
}

export class VhostLab implements BackendDevice {
  readonly netns: Netns;
  readonly tap: Tap;
  readonly peer: LabPeer;
  readonly memory: GuestMemory;
  readonly rx: RawRing;
  readonly tx: RawRing;
  readonly guest: LabGuest;
  readonly features: bigint;
  readonly notifiers: readonly QueueNotifiers[];
  readonly backend: VhostKernelBackend;
  readonly faults: RingFault[] = [];
  queues: QueueState[];

  private constructor(netns: Netns, tap: Tap, peer: LabPeer, memory: GuestMemory, options: LabOptions) {
    const { ringSize = 256, features = VERSION_1, start = 0, usedOffset = 0 } = options;
    this.netns = netns;
    this.tap = tap;
    this.peer = peer;
    this.memory = memory;
    this.features = features;
    this.rx = new RawRing(memory, RAM, ringSize, { start, usedOffset });
    this.tx = new RawRing(memory, this.rx.end, ringSize, { start, usedOffset });
    this.notifiers = [0, 1].map(() => ({ kick: EventFd.create(), call: EventFd.create() }));
    this.guest = new LabGuest(memory, this.rx, this.tx, this.notifiers, BUFFERS);
    this.queues = [this.rx.state(), this.tx.state()];
    this.backend = new VhostKernelBackend({ taps: [tap], ...options.backend });
    this.backend.on('ringError', (fault) => this.faults.push(fault));
  }

  static async create(options: LabOptions = {}): Promise<VhostLab> {
    const netns = await Netns.create(Netns.uniqueName('lab'));
    try {
      const tap = await Tap.open({ netns: netns.path, name: 'dev0', faults: options.tapFaults });
      await tap.setVnetHdrSize(HEADER);
      const peerTap = await Tap.open({ netns: netns.path, name: 'peer0', flags: IFF_TAP | IFF_NO_PI });
      await netns.addBridge('br0', ['dev0', 'peer0']);
      const memory = GuestMemory.create(
        [{ gpa: RAM, size: RAM_SIZE }],
        options.deviceMapping === undefined ? {} : { deviceMapping: options.deviceMapping },
      );
      return new VhostLab(netns, tap, new LabPeer(peerTap), memory, options);
    } catch (error) {
      await netns.delete();
      throw error;
    }
  }

  async start(): Promise<void> {
    await this.backend.start(this);
  }

  async stop(): Promise<void> {
    this.queues = await this.backend.stop();
  }

  kick(queue: number): void {
    this.notifiers[queue]!.kick.signal();
  }

  /** Closes everything, also after a failed test. */
  async close(): Promise<void> {
    await this.backend.close();
    for (const { kick, call } of this.notifiers) {
      kick.close();
      call.close();
    }
    await this.tap.close();
    await this.peer.tap.close();
    this.memory.close();
    await this.netns.delete();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }
}

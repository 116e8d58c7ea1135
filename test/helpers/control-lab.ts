/**
 * What commands of the control virtqueue do to traffic: a device in a rig, a driver that keeps what it is given, and a tap beside them on the
 * bridge whose frames are all accounted for. The model of what the commands add up to is this file's own, not the device's.
 */

import { IFF_NO_PI, IFF_TAP } from '../../lib/constants/if-tun';
import { VIRTIO_F_RING_PACKED, VIRTIO_NET_F_CTRL_VLAN } from '../../lib/constants/virtio-net';
import { VIRTIO_NET_OK } from '../../lib/constants/virtio-net-ctrl';
import { Tap } from '../../lib/host/tap';
import type { ControlCommand, RxMode } from '../../lib/net/control-command';
import { bit, hasBit } from '../../lib/net/features';
import { acceptsFrame, initialReceiveFilter, type ReceiveFilter } from '../../lib/net/receive-filter';
import { type Named, named } from './control-frames';
import { ControlGuest, type ControlGuestOptions } from './control-guest';
import { DeviceRig, type DeviceRigOptions, EVERYTHING, GUEST_MAC, type PathKind, pathKinds } from './device-rig';
import { TapCounters } from './tap-counters';
import { sleep, until } from './vhost-wait';

export interface ControlPath {
  name: string;
  kind: PathKind;
  wanted: bigint;
}

const SPLIT = EVERYTHING & ~bit(VIRTIO_F_RING_PACKED);

/** Every data path that can run here, on split rings. */
export const splitPaths = (): ControlPath[] => pathKinds().map((kind) => ({ name: kind, kind, wanted: SPLIT }));

/** Those, and packed rings on the data path that serves them. */
export const controlPaths = (): ControlPath[] => [
  ...splitPaths(),
  { name: 'emulated, packed rings', kind: 'emulated', wanted: EVERYTHING },
];

const MODE_FIELD: Record<RxMode, keyof ReceiveFilter> = {
  promisc: 'promiscuous',
  allmulti: 'allMulticast',
  alluni: 'allUnicast',
  nomulti: 'noMulticast',
  nouni: 'noUnicast',
  nobcast: 'noBroadcast',
};

/** The filter that a command makes of another. */
export function filterAfter(filter: ReceiveFilter, command: ControlCommand): ReceiveFilter {
  switch (command.kind) {
    case 'rx-mode':
      return { ...filter, [MODE_FIELD[command.mode]]: command.on };
    case 'mac-table-set': {
      const { unicast, multicast, unicastOverflow, multicastOverflow } = command;
      return { ...filter, unicast, multicast, unicastOverflow, multicastOverflow };
    }
    case 'mac-addr-set':
      return { ...filter, mac: command.mac };
    case 'vlan-add':
    case 'vlan-del': {
      const vlans = Uint8Array.from(filter.vlans ?? []);
      const mask = 1 << (command.vid & 7);
      if (command.kind === 'vlan-add') vlans[command.vid >> 3]! |= mask;
      else vlans[command.vid >> 3]! &= ~mask;
      return { ...filter, vlans };
    }
    default:
      return filter;
  }
}

/** As the filter sees a frame that came over a bridge: its outer tag taken out. */
function acceptsOverBridge(filter: ReceiveFilter, frame: Uint8Array): boolean {
  const type = (frame[12]! << 8) | frame[13]!;
  if (type !== 0x8100 && type !== 0x88a8) return acceptsFrame(filter, frame, null);
  const rest = Uint8Array.of(...frame.subarray(0, 12), ...frame.subarray(16));
  return acceptsFrame(filter, rest, (frame[14]! << 8) | frame[15]!, type);
}

const STRIDE = 2048;
const HEARD = 64;
const hex = (frame: Uint8Array): string => Buffer.from(frame).toString('hex');

export class ControlLab {
  readonly rig: DeviceRig;
  readonly path: ControlPath;
  /** On the bridge, without virtio-net headers. */
  readonly wire: Tap;
  guest: ControlGuest;
  readonly counters: TapCounters;
  /** What the commands since the last reset add up to. */
  filter: ReceiveFilter;
  /** Of the tap, when it was last looked at. */
  #dropped = 0;

  static async create(path: ControlPath, options: Omit<DeviceRigOptions, 'kind'> = {}): Promise<ControlLab> {
    const rig = await DeviceRig.create({ ...options, kind: path.kind });
    const wire = await Tap.open({ netns: rig.netns.path, name: 'wire', flags: IFF_TAP | IFF_NO_PI });
    await rig.netns.attach('br0', 'wire');
    return new ControlLab(path, rig, wire, await TapCounters.open(rig.netns, 'dev0'), await boot(rig, path));
  }

  private constructor(path: ControlPath, rig: DeviceRig, wire: Tap, counters: TapCounters, guest: ControlGuest) {
    this.path = path;
    this.rig = rig;
    this.wire = wire;
    this.counters = counters;
    this.guest = guest;
    this.filter = fresh(guest);
    this.#dropped = counters.read().dropped;
  }

  /** The driver resets the device and begins anew. */
  async restart(options: Partial<ControlGuestOptions> = {}): Promise<void> {
    this.guest = await boot(this.rig, this.path, options);
    this.filter = fresh(this.guest);
  }

  /** Commands that must be answered VIRTIO_NET_OK. */
  async say(...commands: ControlCommand[]): Promise<void> {
    for (const command of commands) {
      const ack = await this.guest.command(command);
      if (ack !== VIRTIO_NET_OK) throw new Error(`${command.kind} is answered ${ack}`);
      this.filter = filterAfter(this.filter, command);
    }
  }

  /** Frames from the network, at once. */
  write(frames: readonly Named[]): void {
    const arena = new Uint8Array(frames.length * STRIDE);
    for (const [index, { frame }] of frames.entries()) arena.set(frame, index * STRIDE);
    const lengths = Int32Array.from(frames, ({ frame }) => frame.length);
    const written = this.wire.writeFrames(arena, STRIDE, frames.length, lengths);
    if (written !== frames.length) throw new Error(`${written} of ${frames.length} frames were written`);
  }

  /** Names of what came to the rings since the last call, in order; of frames as they were sent. */
  taken(sent: readonly Named[]): string[] {
    const names = new Map(sent.map(({ name, frame }) => [hex(frame), name]));
    return this.guest.take().map(({ frame }) => names.get(hex(frame)) ?? `not sent: ${hex(frame)}`);
  }

  /** Names of those of the frames that reach the rings, in order; each of the others must be counted as dropped. */
  async deliver(frames: readonly Named[]): Promise<string[]> {
    this.write(frames);
    const arrived: string[] = [];
    const before = this.#dropped;
    let accounted = 0;
    await until('every frame has arrived or is counted', () => {
      this.#dropped = this.counters.read().dropped;
      arrived.push(...this.taken(frames));
      accounted = arrived.length + this.#dropped - before;
      return accounted >= frames.length;
    });
    if (accounted !== frames.length)
      throw new Error(`${accounted} frames are accounted for, ${frames.length} were sent`);
    return arrived;
  }

  /** Waits until the bridge forwards to the device again, which it notices some time after the link came back. */
  async plugged(): Promise<void> {
    const probe = named('probe', GUEST_MAC);
    await until('a frame arrives', () => {
      this.write([probe]);
      return this.taken([probe]).length > 0;
    });
    await this.quiet();
  }

  /** Takes what is on its way, and forgets what was dropped so far. */
  async quiet(): Promise<void> {
    await sleep(20);
    this.guest.take();
    this.#dropped = this.counters.read().dropped;
  }

  /** Names of the frames that the commands so far let through. */
  wanted(frames: readonly Named[]): string[] {
    return frames.filter(({ frame }) => acceptsOverBridge(this.filter, frame)).map(({ name }) => name);
  }

  /** Frames that came to the wire since the last call. */
  heard(): Uint8Array[] {
    const arena = new Uint8Array(HEARD * STRIDE);
    const lengths = new Int32Array(HEARD);
    const count = this.wire.readFrames(arena, STRIDE, HEARD, lengths);
    return Array.from({ length: count }, (_, index) => arena.slice(index * STRIDE, index * STRIDE + lengths[index]!));
  }

  async close(): Promise<void> {
    await this.counters.close();
    await this.wire.close();
    await this.rig.close();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }
}

async function boot(
  rig: DeviceRig,
  { wanted }: ControlPath,
  options: Partial<ControlGuestOptions> = {},
): Promise<ControlGuest> {
  const guest = await ControlGuest.start(rig.mmio, rig.memory, { wanted, ...options });
  await rig.device.settled();
  return guest;
}

function fresh({ features }: ControlGuest): ReceiveFilter {
  return initialReceiveFilter(GUEST_MAC, hasBit(features, VIRTIO_NET_F_CTRL_VLAN));
}

/** Sends the frames, and compares what arrives with what the commands so far let through. */
export async function expectFiltered(lab: ControlLab, frames: readonly Named[]): Promise<void> {
  expect(await lab.deliver(frames)).toEqual(lab.wanted(frames));
}

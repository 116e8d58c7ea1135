/** What `run` and `receive` own: taps, and the built-in guest with a device on them. */
import type { Backend } from '../backend/backend';
import { EmulatedBackend } from '../backend/emulated';
import { prepareTap } from '../backend/tap-features';
import { VhostKernelBackend } from '../backend/vhost-kernel';
import {
  VIRTIO_F_VERSION_1,
  VIRTIO_NET_F_MRG_RXBUF,
  VIRTIO_RING_F_EVENT_IDX,
  VIRTIO_RING_F_INDIRECT_DESC,
} from '../constants/virtio-net';
import { VirtioNetDevice } from '../device/virtio-net-device';
import { invalidArgument } from '../errors';
import { Guest, type GuestOptions } from '../guest/guest';
import { GuestRunner } from '../guest/guest-runner';
import { Tap } from '../host/tap';
import { PAGE_SIZE } from '../memory/address';
import { GuestWriteLog } from '../memory/dirty-log';
import { GuestMemory } from '../memory/guest-memory';
import type { DestinationHost } from '../migration/destination';
import type { Json } from '../migration/json';
import { bits } from '../net/features';
import { sumReports } from '../observe/ledger-set';

const FEATURES = bits(VIRTIO_F_VERSION_1, VIRTIO_NET_F_MRG_RXBUF, VIRTIO_RING_F_EVENT_IDX, VIRTIO_RING_F_INDIRECT_DESC);
const BOOT_GPA = 0x10_0000;
/** Frames that wait in the tap's queue while nobody takes them: a second at 16,000 a second. Set before anything flows. */
const TX_QUEUE_LENGTH = 16_384;

export const BACKENDS = ['vhost-kernel', 'emulated'] as const;
export type BackendName = (typeof BACKENDS)[number];

export interface TapSettings {
  name: string;
  netns: string | null;
  pairs: number;
}

export interface GuestSettings extends Pick<GuestOptions, 'mac' | 'rate'> {
  peerMac: string;
  pairs: number;
  frameSize: number;
  /** Bytes. */
  memory: number;
}

/** A guest with everything under it but the taps. */
export interface Machine {
  memory: GuestMemory;
  device: VirtioNetDevice;
  guest: GuestRunner;
}

/** One a queue pair, ready for the guest's features. */
export async function openTaps({ name, netns, pairs }: TapSettings): Promise<Tap[]> {
  const taps = pairs > 1 ? await Tap.openQueues(pairs, { name, netns }) : [await Tap.open({ name, netns })];
  try {
    await taps[0]!.setTxQueueLen(TX_QUEUE_LENGTH);
    for (const tap of taps) await prepareTap(tap, FEATURES);
    return taps;
  } catch (error) {
    await closeTaps(taps);
    throw error;
  }
}

export async function closeTaps(taps: readonly Tap[]): Promise<void> {
  for (const tap of taps) await tap.close();
}

export async function openBackend(name: BackendName, taps: readonly Tap[]): Promise<Backend> {
  return name === 'emulated' ? new EmulatedBackend({ taps: [...taps] }) : VhostKernelBackend.open({ taps: [...taps] });
}

/** A new guest that sends frames and accounts for those that come, running. */
export async function bootMachine(
  backend: BackendName,
  taps: readonly Tap[],
  { memory: size, ...guestOptions }: GuestSettings,
): Promise<Machine> {
  const memory = GuestMemory.create([{ gpa: 0, size }]);
  try {
    const log = new GuestWriteLog(memory.end / PAGE_SIZE);
    const program = Guest.boot(
      memory,
      { ...guestOptions, gpa: BOOT_GPA, program: 'traffic', features: FEATURES, ledgerCapacity: 1 << 20 },
      { log },
    );
    const { queues, mac } = program;
    const path = await openBackend(backend, taps);
    const device = new VirtioNetDevice({ memory, backend: path, features: FEATURES, queues, mac });
    const guest = new GuestRunner(program, device, log);
    await device.start();
    guest.resume();
    return { memory, device, guest };
  } catch (error) {
    memory.close();
    throw error;
  }
}

/** What a destination does for a guest that `bootMachine` booted. `taps` are its own; null where only those that are passed will do. */
export function machineHost(backend: BackendName, taps: readonly Tap[] | null): DestinationHost<GuestRunner> {
  return {
    createMemory: (setup) => GuestMemory.create(setup.regions),
    createBackend: async (_, passed) => {
      const own = passed ?? taps;
      if (own === null)
        throw invalidArgument('there is no tap for the guest here', 'give --tap, or migrate with --local');
      return openBackend(backend, own);
    },
    createDevice: async (state, memory, path) => VirtioNetDevice.restore(state, { memory, backend: path }),
    createGuest: async (saved, memory, device) => {
      const log = new GuestWriteLog(memory.end / PAGE_SIZE);
      return new GuestRunner(Guest.resume(memory, Number(saved.gpa), { log }), device, log);
    },
  };
}

export async function endMachine({ memory, device, guest }: Machine): Promise<void> {
  await guest.pause();
  await device.close();
  memory.close();
}

/** The guest's own account of its frames. */
export function describeGuest({ guest: { guest, failure } }: Machine): Json {
  const { received, duplicated, reordered, corrupted } = sumReports(guest.ledgers.map((ledger) => ledger.report(0)));
  return {
    program: guest.program,
    pairs: guest.pairs,
    sent: guest.sent,
    received,
    duplicated,
    reordered,
    corrupted,
    failure: failure === null ? null : String(failure),
  };
}

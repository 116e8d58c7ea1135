/** What a process that runs the built-in guest owns: taps, and the guest with a device on them. */
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
import { bits } from '../net/features';

/** What its guests negotiate. */
export const FEATURES = bits(
  VIRTIO_F_VERSION_1,
  VIRTIO_NET_F_MRG_RXBUF,
  VIRTIO_RING_F_EVENT_IDX,
  VIRTIO_RING_F_INDIRECT_DESC,
);
const BOOT_GPA = 0x10_0000;
/** Frames that wait in the tap's queue while nobody takes them: a second at 16,000 a second. Set before anything flows. */
const TX_QUEUE_LENGTH = 16_384;

export const BACKENDS = ['vhost-kernel', 'emulated'] as const;
export type BackendName = (typeof BACKENDS)[number];

export interface TapPlace {
  name: string;
  netns: string | null;
  pairs: number;
}

/** What the machine decides by itself is left out. */
export type MachineGuest = Omit<GuestOptions, 'gpa' | 'features'>;

/** A guest with everything under it but the taps. */
export interface Machine {
  memory: GuestMemory;
  device: VirtioNetDevice;
  guest: GuestRunner;
}

/** One a queue pair, ready for the guest's features. */
export async function openTaps({ name, netns, pairs }: TapPlace): Promise<Tap[]> {
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
  // The first is last: the others' filter program lies with it.
  for (const tap of [...taps].reverse()) await tap.close();
}

export async function openBackend(name: BackendName, taps: readonly Tap[]): Promise<Backend> {
  return name === 'emulated' ? new EmulatedBackend({ taps: [...taps] }) : VhostKernelBackend.open({ taps: [...taps] });
}

/** A new guest, running. The memory is closed when it fails. */
export async function bootMachine(memory: GuestMemory, backend: Backend, options: MachineGuest): Promise<Machine> {
  try {
    const log = new GuestWriteLog(memory.end / PAGE_SIZE);
    const program = Guest.boot(memory, { ...options, gpa: BOOT_GPA, features: FEATURES }, { log });
    const { queues, mac } = program;
    const device = new VirtioNetDevice({ memory, backend, features: FEATURES, queues, mac });
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

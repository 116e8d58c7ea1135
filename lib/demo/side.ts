/** One of the demo's two processes: does what it is told and says what happened. The same program is source and destination. */

import { prepareTap } from '../backend/tap-features';
import { VhostKernelBackend } from '../backend/vhost-kernel';
import {
  VIRTIO_F_VERSION_1,
  VIRTIO_NET_F_MRG_RXBUF,
  VIRTIO_RING_F_EVENT_IDX,
  VIRTIO_RING_F_INDIRECT_DESC,
} from '../constants/virtio-net';
import { VirtioNetDevice } from '../device/virtio-net-device';
import { reasonOf } from '../errors';
import { Guest } from '../guest/guest';
import { GuestRunner } from '../guest/guest-runner';
import { Tap } from '../host/tap';
import { PAGE_SIZE } from '../memory/address';
import { GuestWriteLog } from '../memory/dirty-log';
import { GuestMemory } from '../memory/guest-memory';
import type { DestinationHost } from '../migration/destination';
import { MigrationListener } from '../migration/listener';
import type { MigrationEvent } from '../migration/options';
import { MigrationSource } from '../migration/source';
import { native } from '../native';
import { bits } from '../net/features';
import { type Obedience, obey, tell } from './orders';
import { type DemoPlan, GUEST_TO_NETWORK_FLOW, LEDGER_CAPACITY, NETWORK_TO_GUEST_FLOW, type Orders } from './plan';

const FEATURES = bits(VIRTIO_F_VERSION_1, VIRTIO_NET_F_MRG_RXBUF, VIRTIO_RING_F_EVENT_IDX, VIRTIO_RING_F_INDIRECT_DESC);
const BOOT_GPA = 0x10_0000;
/** Frames that wait in the tap's queue while nobody takes them: a second at 16,000 a second. Set before anything flows. */
const TX_QUEUE_LENGTH = 16_384;

interface Machine {
  memory: GuestMemory;
  device: VirtioNetDevice;
  runner: GuestRunner;
}

class Side {
  readonly #name: string;
  #plan!: DemoPlan;
  #tap!: Tap;
  #machine: Machine | null = null;
  #listener: MigrationListener<GuestRunner> | null = null;

  constructor(name: string) {
    this.#name = name;
  }

  readonly orders: Obedience<Orders> = {
    open: async (plan) => {
      this.#plan = plan;
      this.#tap = await Tap.open({ name: this.#name, netns: plan.netns });
      await this.#tap.setTxQueueLen(TX_QUEUE_LENGTH);
      await prepareTap(this.#tap, FEATURES);
      return { tap: this.#tap.name };
    },
    boot: async () => {
      const { memory: size, ringSize, guestMac: mac, stationMac: peerMac, rate, frameSize } = this.#plan;
      const memory = GuestMemory.create([{ gpa: 0, size }]);
      const log = new GuestWriteLog(memory.end / PAGE_SIZE);
      const guest = Guest.boot(
        memory,
        {
          gpa: BOOT_GPA,
          program: 'traffic',
          features: FEATURES,
          mac,
          peerMac,
          rate,
          frameSize,
          flow: GUEST_TO_NETWORK_FLOW,
          receiveFlow: NETWORK_TO_GUEST_FLOW,
          rxSize: ringSize,
          txSize: ringSize,
          ledgerCapacity: LEDGER_CAPACITY,
        },
        { log },
      );
      const backend = await VhostKernelBackend.open({ taps: [this.#tap] });
      const device = new VirtioNetDevice({ memory, backend, features: FEATURES, queues: guest.queues, mac });
      const runner = new GuestRunner(guest, device, log);
      await device.start();
      runner.resume();
      this.#machine = { memory, device, runner };
      const offered = await backend.vhosts[0]!.getFeatures();
      return { vhostFeatures: `0x${offered.toString(16)}` };
    },
    listen: async () => {
      this.#listener = await MigrationListener.listen('tcp:127.0.0.1:0', this.#host, {
        onEvent: (event) => this.#onEvent(event),
        onFailure: (error) => tell({ is: 'event', text: reasonOf(error) }),
      });
      return { address: this.#listener.address };
    },
    received: async () => {
      const { memory, device, guest, pages, startMs } = await this.#listener!.arrived;
      this.#machine = { memory, device, runner: guest };
      return { pages, startMs };
    },
    migrate: async ({ address }) => {
      const { device, runner } = this.#machine!;
      const source = new MigrationSource(
        { device, guest: runner },
        { downtimeLimitMs: this.#plan.downtimeLimitMs, onEvent: (event) => this.#onEvent(event) },
      );
      return { result: await source.migrate(address) };
    },
    hush: async () => {
      const { guest } = this.#machine!.runner;
      guest.setRate(0);
      return { sent: guest.sent };
    },
    report: async ({ sent }) => {
      const { ledger } = this.#machine!.runner.guest;
      return { frames: ledger.report(sent), gaps: ledger.gaps() };
    },
    end: async () => {
      const rings = this.#machine?.device.backend.stoppedRings ?? [];
      await this.#machine?.runner.pause();
      await this.#machine?.device.close();
      this.#machine?.memory.close();
      await this.#tap?.close();
      await this.#listener?.close();
      return { rings };
    },
  };

  readonly #host: DestinationHost<GuestRunner> = {
    createMemory: (setup) => GuestMemory.create(setup.regions),
    createBackend: () => this.#backend(),
    createDevice: async (state, memory, backend) => VirtioNetDevice.restore(state, { memory, backend }),
    createGuest: async (saved, memory, device) => {
      const log = new GuestWriteLog(memory.end / PAGE_SIZE);
      return new GuestRunner(Guest.resume(memory, Number(saved.gpa), { log }), device, log);
    },
  };

  #opened: Promise<VhostKernelBackend> | null = null;

  /** The destination's data path, opened before the source stops. */
  #backend(): Promise<VhostKernelBackend> {
    this.#opened ??= VhostKernelBackend.open({ taps: [this.#tap] });
    return this.#opened;
  }

  #onEvent(event: MigrationEvent): void {
    const at = native().monotonicMicros();
    if (event.kind === 'phase') {
      if (this.#name === 'source' && event.phase === 'switchover') tell({ is: 'moment', moment: 'stopped', at });
      if (this.#name === 'destination' && event.phase === 'running') tell({ is: 'moment', moment: 'started', at });
      tell({ is: 'event', text: event.phase });
    } else if (event.kind === 'round') {
      const { round, pages, bytes, ms, dirtyAfter } = event.round;
      tell({
        is: 'event',
        text: `round ${round}: ${pages} pages, ${bytes} bytes in ${ms.toFixed(1)} ms, then ${dirtyAfter} dirty`,
      });
    }
  }
}

obey(new Side(process.argv[2] ?? 'side').orders);

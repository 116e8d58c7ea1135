/** One of the demo's two processes: does what it is told and says what happened. The same program is source and destination. */
import '../compile-eagerly';

import { VhostKernelBackend } from '../backend/vhost-kernel';
import { reasonOf } from '../errors';
import type { GuestRunner } from '../guest/guest-runner';
import type { Tap } from '../host/tap';
import { GuestMemory } from '../memory/guest-memory';
import { MigrationListener } from '../migration/listener';
import type { MigrationEvent } from '../migration/options';
import { MigrationSource } from '../migration/source';
import { native } from '../native';
import { bootMachine, closeTaps, endMachine, type Machine, machineHost, openTaps } from './machine';
import { type Obedience, obey, tell } from './orders';
import { type DemoPlan, GUEST_TO_NETWORK_FLOW, LEDGER_CAPACITY, NETWORK_TO_GUEST_FLOW, type Orders } from './plan';

class Side {
  readonly #name: string;
  #plan!: DemoPlan;
  #taps: readonly Tap[] = [];
  #machine: Machine | null = null;
  #listener: MigrationListener<GuestRunner> | null = null;

  constructor(name: string) {
    this.#name = name;
  }

  readonly orders: Obedience<Orders> = {
    open: async (plan) => {
      this.#plan = plan;
      this.#taps = await openTaps({ name: this.#name, netns: plan.netns, pairs: 1 });
      return { tap: this.#taps[0]!.name };
    },
    boot: async () => {
      const { memory: size, ringSize, guestMac: mac, stationMac: peerMac, rate, frameSize } = this.#plan;
      const backend = await VhostKernelBackend.open({ taps: this.#taps });
      this.#machine = await bootMachine(GuestMemory.create([{ gpa: 0, size }]), backend, {
        program: 'traffic',
        mac,
        peerMac,
        rate,
        frameSize,
        flow: GUEST_TO_NETWORK_FLOW,
        receiveFlow: NETWORK_TO_GUEST_FLOW,
        rxSize: ringSize,
        txSize: ringSize,
        ledgerCapacity: LEDGER_CAPACITY,
      });
      const offered = await backend.vhosts[0]!.getFeatures();
      return { vhostFeatures: `0x${offered.toString(16)}` };
    },
    listen: async () => {
      this.#listener = await MigrationListener.listen('tcp:127.0.0.1:0', machineHost('vhost-kernel', this.#taps), {
        onEvent: (event) => this.#onEvent(event),
        onFailure: (error) => tell({ is: 'event', text: reasonOf(error) }),
      });
      return { address: this.#listener.address };
    },
    received: async () => {
      const { memory, device, guest, pages, startMs } = await this.#listener!.arrived;
      this.#machine = { memory, device, guest };
      return { pages, startMs };
    },
    migrate: async ({ address }) => {
      const { device, guest } = this.#machine!;
      const source = new MigrationSource(
        { device, guest },
        { downtimeLimitMs: this.#plan.downtimeLimitMs, onEvent: (event) => this.#onEvent(event) },
      );
      return { result: await source.migrate(address) };
    },
    hush: async () => {
      const { guest } = this.#machine!.guest;
      guest.setRate(0);
      return { sent: guest.sent };
    },
    report: async ({ sent }) => {
      const { ledger } = this.#machine!.guest.guest;
      return { frames: ledger.report(sent), gaps: ledger.gaps() };
    },
    end: async () => {
      const rings = this.#machine?.device.backend.stoppedRings ?? [];
      if (this.#machine !== null) await endMachine(this.#machine);
      await closeTaps(this.#taps);
      await this.#listener?.close();
      return { rings };
    },
  };

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

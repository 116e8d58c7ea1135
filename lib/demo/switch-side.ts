/** The process of the switch demo that has the device: a driver finds it, and its data path is changed under traffic. */
import { setTimeout as sleep } from 'node:timers/promises';
import type { Backend } from '../backend/backend';
import { EmulatedBackend } from '../backend/emulated';
import { VhostKernelBackend } from '../backend/vhost-kernel';
import { VIRTIO_F_RING_PACKED } from '../constants/virtio-net';
import { VirtioMmio } from '../device/virtio-mmio';
import { VirtioNetDevice } from '../device/virtio-net-device';
import { VhostError } from '../errors';
import { GuestRunner } from '../guest/guest-runner';
import { NetDriver } from '../guest/net-driver';
import { Tap } from '../host/tap';
import { PAGE_SIZE } from '../memory/address';
import { GuestWriteLog } from '../memory/dirty-log';
import { GuestMemory } from '../memory/guest-memory';
import { bit } from '../net/features';
import { type Obedience, obey } from './orders';
import { GUEST_MAC, GUEST_TO_NETWORK_FLOW, LEDGER_CAPACITY, STATION_MAC } from './plan';
import { firstFlowToGuest, type SwitchOrders, type SwitchPlan } from './switch-plan';

const BOOT_GPA = 0x10_0000;
/** Bridges a gap of some 100 ms at the rates of a demo; set before there is traffic, since a change of length loses frames. */
const TX_QUEUE_LENGTH = 10_000;
/** All that is offered, but for packed virtqueues, which no vhost-net serves. */
const WANTED = ((1n << 128n) - 1n) & ~bit(VIRTIO_F_RING_PACKED);

let plan: SwitchPlan;
let taps: Tap[] = [];
let paths: Backend[] = [];
let memory: GuestMemory;
let device: VirtioNetDevice;
let mmio: VirtioMmio;
let runner: GuestRunner;

const orders: Obedience<SwitchOrders> = {
  open: async (given) => {
    plan = given;
    const open = { name: 'device', netns: plan.netns };
    taps = plan.pairs === 1 ? [await Tap.open(open)] : await Tap.openQueues(plan.pairs, open);
    await taps[0]!.setTxQueueLen(TX_QUEUE_LENGTH);
    return { tap: taps[0]!.name };
  },
  boot: async () => {
    const { pairs, rate, frameSize } = plan;
    memory = GuestMemory.create([{ gpa: 0, size: plan.memory }]);
    const kernel = await VhostKernelBackend.open({ taps, prepareTaps: true });
    const vhostFeatures = await kernel.vhosts[0]!.getFeatures();
    const emulated = new EmulatedBackend({ taps, prepareTaps: true });
    paths = [emulated, kernel];
    // Both have to carry what is offered, whichever is first.
    const both = (await kernel.probe()) & (await emulated.probe());
    device = await VirtioNetDevice.offer({ memory, backend: emulated, mac: GUEST_MAC, pairs, without: ~both });
    mmio = new VirtioMmio(device, { watchCalls: false });
    const log = new GuestWriteLog(memory.end / PAGE_SIZE);
    const driver = await NetDriver.start(mmio, memory, {
      wanted: WANTED,
      log,
      gpa: BOOT_GPA,
      program: 'traffic',
      peerMac: STATION_MAC,
      pairs,
      activePairs: 1,
      rate,
      frameSize,
      flow: GUEST_TO_NETWORK_FLOW,
      receiveFlow: firstFlowToGuest(pairs),
      ledgerCapacity: Math.ceil(LEDGER_CAPACITY / pairs),
    });
    await device.settled();
    runner = new GuestRunner(driver.guest, device, log);
    runner.resume();
    if (pairs > 1 && !(await driver.usePairs(pairs)))
      throw new VhostError('VHOST_ERR_STATE', `the device refused ${pairs} queue pairs`);
    while (!driver.guest.settled) await sleep(1);
    return { features: `0x${device.features.toString(16)}`, vhostFeatures: `0x${vhostFeatures.toString(16)}` };
  },
  switch: async () => {
    const next = paths.find((path) => path !== device.backend)!;
    return device.switchBackend(next);
  },
  hush: async () => {
    const { guest } = runner;
    guest.setRate(0);
    return { sent: guest.ledgers.map((_, flow) => guest.sentOf(flow)) };
  },
  report: async ({ sent }) => ({ frames: runner.guest.ledgers.map((ledger, flow) => ledger.report(sent[flow]!)) }),
  end: async () => {
    await runner?.pause();
    mmio?.close();
    await device?.close();
    for (const path of paths) await path.close();
    memory?.close();
    // The first is last: the others' filter program lies with it.
    for (const tap of taps.reverse()) await tap.close();
    return null;
  },
};

obey(orders);

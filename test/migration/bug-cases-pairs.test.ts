/** Bugs that others had with several queue pairs: docs/bug-cases.md. Emulated data path. */
import { duplexPair } from 'node:stream';
import { setTimeout as sleep } from 'node:timers/promises';
import { EmulatedBackend } from '../../lib/backend/emulated';
import { VIRTIO_F_RING_PACKED } from '../../lib/constants/virtio-net';
import { VIRTIO_NET_OK } from '../../lib/constants/virtio-net-ctrl';
import { VirtioNetDevice } from '../../lib/device/virtio-net-device';
import type { GuestRunner } from '../../lib/guest/guest-runner';
import { Tap } from '../../lib/host/tap';
import { GuestMemory } from '../../lib/memory/guest-memory';
import { MigrationDestination } from '../../lib/migration/destination';
import { MigrationSource } from '../../lib/migration/source';
import type { ControlCommand } from '../../lib/net/control-command';
import { bit } from '../../lib/net/features';
import { moveDevice } from '../helpers/device-move';
import { DeviceRig, EVERYTHING, GUEST_MAC } from '../helpers/device-rig';

const SPLIT = EVERYTHING & ~bit(VIRTIO_F_RING_PACKED);
const nothingWrong = { lost: 0, duplicated: 0, reordered: 0, corrupted: 0 };

test('M52: pairs put to use in the middle of pre-copy: nothing they write is missing', async () => {
  await using rig = await DeviceRig.create({ pairs: 4, rate: 2000 });
  await rig.boot(SPLIT);
  await rig.flows(100);
  let used: Promise<boolean> | null = null;
  let doneIn = '';
  let phase = '';
  const { result, device, close } = await moveDevice(rig, 4, {
    maxBandwidth: 8 << 20,
    onEvent: (event) => {
      if (event.kind === 'phase') phase = event.phase;
      if (event.kind !== 'progress' || used !== null) return;
      used = rig.driver.usePairs(4);
      void used.then(() => {
        doneIn = phase;
      });
    },
  });
  expect([await used, doneIn]).toEqual([true, 'precopy']);
  expect(device.activePairs).toBe(4);
  expect(result.audit).toMatchObject({ differing: 0 });
  expect(result.vrings).toHaveLength(8);
  await rig.flows(100);
  const { toNetwork, toGuest } = await rig.settle();
  for (const way of [toNetwork, toGuest]) expect(way).toMatchObject({ lost: 0, duplicated: 0, corrupted: 0 });
  await close();
});

test('M53: every command of the control queue while four pairs run and a migration goes on', async () => {
  await using rig = await DeviceRig.create({ pairs: 4, rate: 2000 });
  await rig.boot(SPLIT);
  expect(await rig.driver.usePairs(4)).toBe(true);
  await rig.flows(100);
  const offloads = BigInt(rig.device.outline().control.guestOffloads);
  const commands: ControlCommand[] = [
    { kind: 'rx-mode', mode: 'promisc', on: true },
    { kind: 'rx-mode', mode: 'allmulti', on: true },
    { kind: 'rx-mode', mode: 'alluni', on: true },
    {
      kind: 'mac-table-set',
      unicast: ['02:00:00:00:00:33'],
      multicast: ['01:00:5e:00:00:01'],
      unicastOverflow: false,
      multicastOverflow: false,
    },
    { kind: 'mac-addr-set', mac: GUEST_MAC },
    { kind: 'vlan-add', vid: 7 },
    { kind: 'vlan-del', vid: 7 },
    { kind: 'mq-vq-pairs-set', pairs: 4 },
    { kind: 'guest-offloads-set', offloads },
  ];
  let over = false;
  const acks = new Map<string, Set<number>>();
  const talk = async (): Promise<void> => {
    while (!over) {
      for (const command of commands) {
        const ack = await rig.driver.command(command);
        acks.set(command.kind, (acks.get(command.kind) ?? new Set()).add(ack));
      }
      await sleep(1);
    }
  };
  let talking: Promise<void> | null = null;
  // A driver that waits for an answer is not paused in the middle of it here: it belongs to the test, not to the guest.
  const pause = rig.runner.pause.bind(rig.runner);
  rig.runner.pause = async () => {
    over = true;
    await talking;
    await pause();
  };
  const { result, close } = await moveDevice(rig, 4, {
    maxBandwidth: 16 << 20,
    onEvent: (event) => {
      if (event.kind === 'phase' && event.phase === 'precopy') talking = talk();
    },
  });
  expect([...acks.keys()].sort()).toEqual([...new Set(commands.map(({ kind }) => kind))].sort());
  for (const [kind, answers] of acks) expect([kind, ...answers]).toEqual([kind, VIRTIO_NET_OK]);
  expect(result.audit).toMatchObject({ differing: 0 });
  await rig.flows(100);
  const { toNetwork, toGuest } = await rig.settle();
  for (const way of [toNetwork, toGuest]) expect(way).toMatchObject(nothingWrong);
  await close();
});

test('M56: pairs up and down 200 times: the interface stays the one it was', async () => {
  await using rig = await DeviceRig.create({ pairs: 2, rate: 400 });
  await rig.boot(SPLIT);
  await rig.flows(20);
  const index = async () => /^(\d+): dev0/m.exec(await rig.netns.ip('link', 'show', 'dev', 'dev0'))?.[1];
  const before = await index();
  expect(before).toBeDefined();
  for (let turn = 0; turn < 200; turn++) {
    expect(await rig.driver.usePairs(turn % 2 === 0 ? 2 : 1)).toBe(true);
    if (turn % 20 === 0) expect(await index()).toBe(before);
  }
  expect(await index()).toBe(before);
  await rig.flows(20);
  expect([rig.violations, rig.broken]).toEqual([[], []]);
});

test('M58: one tap of a single queue for a guest with two pairs ends it before the first page', async () => {
  await using rig = await DeviceRig.create({ pairs: 2, rate: 400 });
  await rig.boot(SPLIT);
  await rig.flows(20);
  await using tap = await Tap.open({ name: 'single', netns: rig.netns.path });
  const [near, far] = duplexPair();
  let made = 0;
  const destination = new MigrationDestination<GuestRunner>({
    createMemory: ({ regions }) => {
      made++;
      return GuestMemory.create(regions);
    },
    createBackend: async () => new EmulatedBackend({ taps: [tap], prepareTaps: true }),
    createDevice: async (state, memory, backend) => VirtioNetDevice.restore(state, { memory, backend }),
    createGuest: () => Promise.reject(new Error('no guest')),
  });
  const rounds: unknown[] = [];
  const source = new MigrationSource(
    { device: rig.device, guest: rig.runner },
    { onEvent: (event) => event.kind === 'round' && rounds.push(event) },
  );
  const ends = await Promise.allSettled([source.migrate(near), destination.receive(far)]);
  for (const end of ends) expect(end).toMatchObject({ status: 'rejected', reason: { code: 'VHOST_ERR_INCOMPATIBLE' } });
  expect((ends[0] as PromiseRejectedResult).reason.message).toContain('queue pairs: 2 here, 1 there');
  expect((ends[0] as PromiseRejectedResult).reason.message).toContain('multiqueue tap: yes here, no there');
  expect([made, rounds]).toEqual([0, []]);
  tap.claim('the next user')();
  await rig.flows(20);
});

/** A guest with four queue pairs on a multiqueue tap, by the emulated data path, and a station: needs root and /dev/net/tun. */
import { EmulatedBackend } from '../../../lib/backend/emulated';
import {
  VIRTIO_F_VERSION_1,
  VIRTIO_NET_F_MRG_RXBUF,
  VIRTIO_RING_F_EVENT_IDX,
  VIRTIO_RING_F_INDIRECT_DESC,
} from '../../../lib/constants/virtio-net';
import { VirtioNetDevice } from '../../../lib/device/virtio-net-device';
import { Guest } from '../../../lib/guest/guest';
import { GuestRunner } from '../../../lib/guest/guest-runner';
import { EventFd } from '../../../lib/host/event-fd';
import { Netns } from '../../../lib/host/netns';
import { Tap } from '../../../lib/host/tap';
import { PAGE_SIZE } from '../../../lib/memory/address';
import { GuestWriteLog } from '../../../lib/memory/dirty-log';
import { GuestMemory } from '../../../lib/memory/guest-memory';
import { bits } from '../../../lib/net/features';
import { sumReports } from '../../../lib/observe/ledger-set';
import { Station } from '../../../lib/observe/station';
import { until } from '../../helpers/vhost-wait';

const PAIRS = 4;
const features = bits(VIRTIO_F_VERSION_1, VIRTIO_NET_F_MRG_RXBUF, VIRTIO_RING_F_EVENT_IDX, VIRTIO_RING_F_INDIRECT_DESC);
const mac = '02:00:00:00:00:02';
const peerMac = '02:00:00:00:00:01';
const NOTHING_WRONG = { lost: 0, duplicated: 0, reordered: 0, corrupted: 0 };
const [FLOW, BACK, CAPACITY] = [10, 20, 1 << 16];

let memory: GuestMemory;
let guest: Guest;
let log: GuestWriteLog;

beforeEach(() => {
  memory = GuestMemory.create([{ gpa: 0, size: 16 << 20 }]);
  log = new GuestWriteLog(memory.end / PAGE_SIZE);
  const parts = { gpa: 0, program: 'traffic', features, mac, peerMac, pairs: PAIRS } as const;
  guest = Guest.boot(
    memory,
    { ...parts, rate: 8000, flow: FLOW, receiveFlow: BACK, ledgerCapacity: CAPACITY },
    { log },
  );
});

afterEach(() => memory.close());

test('every flow comes back on its pair; a change of the active pairs loses and reorders nothing', async () => {
  await using netns = await Netns.create();
  await netns.addBridge('br0');
  const taps = await Tap.openQueues(PAIRS, { netns: netns.path, name: 'many' });
  const rates = { rate: 8000, frameSize: 128, capacity: CAPACITY };
  const parts = { netns: netns.path, name: 'station', mac: peerMac, peerMac: mac, sends: BACK, receives: FLOW };
  await using station = await Station.open({ ...parts, ...rates, flows: PAIRS });
  for (const name of ['many', 'station']) await netns.attach('br0', name);
  const backend = new EmulatedBackend({ taps, prepareTaps: true });
  await using device = new VirtioNetDevice({ memory, backend, features, queues: guest.queues, mac });
  const runner = new GuestRunner(guest, device, log);
  await device.start();
  runner.resume();
  const count = (ledgers: typeof station.ledgers): number => ledgers.reduce((sum, { received }) => sum + received, 0);
  /** Both ways, `frames` more. */
  const traffic = async (frames: number): Promise<void> => {
    const [there, here] = [count(station.ledgers), count(guest.ledgers)];
    await until('traffic', () => {
      if (runner.failure !== null) throw runner.failure;
      return count(station.ledgers) >= there + frames && count(guest.ledgers) >= here + frames;
    });
  };

  // The tap learns from the guest's frames where a flow belongs.
  await until('a frame of each flow', () => station.ledgers.every(({ received }) => received > 0));
  station.start();
  await traffic(1000);
  const received = guest.ledgers.map((ledger) => ledger.received);
  expect(Array.from({ length: PAIRS }, (_, pair) => guest.countersOf(pair).received)).toEqual(received);

  for (const active of [2, 3, 1, PAIRS]) {
    guest.activePairs = active;
    await until('flows on their pairs', () => guest.settled);
    const before = Array.from({ length: PAIRS }, (_, pair) => guest.countersOf(pair).sent);
    await traffic(500);
    const sent = before.map((frames, pair) => guest.countersOf(pair).sent - frames);
    expect(sent.map((frames) => frames > 0)).toEqual(sent.map((_, pair) => pair < active));
  }

  station.hush();
  guest.setRate(0);
  await until('the guest has received all', () => count(guest.ledgers) === station.sent);
  await until('the station has received all', () => count(station.ledgers) === guest.sent);
  const toNetwork = station.ledgers.map((ledger, index) => ledger.report(guest.sentOf(index)));
  expect(sumReports(toNetwork)).toEqual({ sent: guest.sent, received: guest.sent, ...NOTHING_WRONG });
  // The kernel moves a flow to another queue at once: what it had put into the old one may come later.
  const toGuest = guest.ledgers.map((ledger, index) => ledger.report(station.sentOf(index)));
  expect(sumReports(toGuest)).toMatchObject({ lost: 0, duplicated: 0, corrupted: 0 });
  await runner.pause();
  await device.stop();
  expect(guest.queues).toEqual(device.queues);
  for (const tap of taps) await tap.close();
});

test('a runner leaves the doorbells behind those of the pairs alone, and wants one for every queue', async () => {
  const notifiers = Array.from({ length: 2 * PAIRS + 1 }, () => ({ kick: EventFd.create(), call: EventFd.create() }));
  expect(() => new GuestRunner(guest, { notifiers: notifiers.slice(0, 2 * PAIRS - 1) }, log)).toThrow('7 queues');
  guest.setRate(0);
  const runner = new GuestRunner(guest, { notifiers }, log);
  runner.resume();
  let calls = 0;
  const watch = notifiers[2 * PAIRS]!.call.onSignal(() => calls++);
  let polls = 0;
  const poll = guest.poll.bind(guest);
  guest.poll = (now) => {
    polls++;
    return poll(now);
  };
  notifiers[2 * PAIRS]!.call.signal();
  await until('the call', () => calls === 1);
  expect(polls).toBe(0);
  notifiers[2 * PAIRS - 1]!.call.signal();
  await until('a poll', () => polls > 0);
  guest.onKick(2 * PAIRS - 1);
  expect(notifiers.map(({ kick }) => kick.drain())).toEqual(notifiers.map((_, queue) => (queue === 7 ? 1 : 0)));
  watch.close();
  await runner.pause();
  for (const { kick, call } of notifiers) {
    kick.close();
    call.close();
  }
});

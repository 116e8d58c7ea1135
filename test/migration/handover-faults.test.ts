/** What a hand-over does is needed: each part of it left out is found in the books of who receives, or told by the accounts. */
import { setTimeout as sleep } from 'node:timers/promises';
import * as announcing from '../../lib/migration/announce';
import { DestinationIntake } from '../../lib/migration/handover/destination-intake';
import { FrameBatch } from '../../lib/migration/handover/frame-batch';
import * as queueing from '../../lib/migration/handover/frame-queue';
import { GuestAddresses } from '../../lib/migration/handover/frame-sort';
import * as graces from '../../lib/migration/handover/grace';
import * as joins from '../../lib/migration/handover/join';
import { pathKinds } from '../helpers/device-rig';
import {
  faultsOf,
  GUEST,
  HandoverLab,
  type LabOptions,
  proofOf,
  STATION,
  STATION_FLOWS,
  type Verdict,
} from '../helpers/handover-lab';
import { SkewedNetwork } from '../helpers/skewed-network';

/** The VM is slow. */
const VIRTUAL = pathKinds().length > 1;
const MIX = VIRTUAL ? { station: 700, guest: 350 } : { station: 2800, guest: 1400 };

afterEach(() => {
  jest.restoreAllMocks();
});

interface Outcome {
  faults: Record<string, unknown>;
  verdict: Verdict;
  unproven: readonly string[];
}

/** For a destination to build its device: meanwhile frames come to the source. */
const BUILD_MS = 10;

/** There and back under the usual traffic, with whatever was planted. `slow`: the destination takes BUILD_MS longer. */
async function there(options: LabOptions & { silent?: boolean; slow?: boolean } = {}): Promise<Outcome> {
  await using lab = await HandoverLab.create(options);
  await lab.boot();
  await lab.traffic(options.silent ? { ...MIX, guest: 0 } : MIX);
  const unproven: string[] = [];
  for (const to of [1, 0]) {
    await lab.flows(60);
    const { createDevice } = lab.host(to);
    const build: typeof createDevice = async (...parts) => {
      if (options.slow) await sleep(BUILD_MS);
      return createDevice(...parts);
    };
    const { result } = await lab.migrate(to, { host: { createDevice: build } });
    unproven.push(...proofOf(result.handover).unproven);
  }
  await lab.flows(60);
  const verdict = await lab.settle();
  return { faults: faultsOf(verdict), verdict, unproven };
}

const sum = ({ flows }: Verdict, what: 'lost' | 'duplicated' | 'reordered'): number =>
  Object.values(flows).reduce((total, flow) => total + flow[what], 0);

test('nothing planted: nothing found', async () => {
  expect(await there()).toMatchObject({ faults: {}, unproven: [] });
});

test('the join drops nothing: frames come twice', async () => {
  jest.spyOn(joins, 'join').mockReturnValue({ matched: 0, ambiguous: false, disagrees: false, isMatched: () => false });
  const { verdict } = await there();
  expect(sum(verdict, 'duplicated')).toBeGreaterThan(0);
  expect(verdict.identical).toBeGreaterThan(0);
});

test('the join drops everything: frames are lost', async () => {
  jest.spyOn(joins, 'join').mockImplementation((_before, _after, kept) => ({
    matched: kept.length,
    ambiguous: false,
    disagrees: false,
    isMatched: () => true,
  }));
  const { verdict } = await there();
  expect(sum(verdict, 'lost')).toBeGreaterThan(0);
});

test("the guest's own broadcasts are not dropped: they come back to it", async () => {
  const sort = GuestAddresses.prototype.sort;
  jest.spyOn(GuestAddresses.prototype, 'sort').mockImplementation(function (this: GuestAddresses, bytes, at) {
    const found = sort.call(this, bytes, at);
    return found === 'own' ? 'group' : found;
  });
  const { verdict } = await there();
  expect(verdict.own).toBeGreaterThan(0);
});

test("what the source sends is given after what the destination's tap had: out of order", async () => {
  const late: (() => void)[] = [];
  const receive = DestinationIntake.prototype.receive;
  const finish = DestinationIntake.prototype.finish;
  jest.spyOn(DestinationIntake.prototype, 'receive').mockImplementation(function (
    this: DestinationIntake,
    pair,
    frame,
    offset,
  ) {
    const copy = Uint8Array.from(frame);
    late.push(() => receive.call(this, pair, copy, offset));
  });
  jest.spyOn(DestinationIntake.prototype, 'finish').mockImplementation(async function (
    this: DestinationIntake,
    complete,
  ) {
    const finished = finish.call(this, complete);
    for (const give of late.splice(0)) give();
    return finished;
  });
  const { verdict } = await there({ slow: true });
  expect(sum(verdict, 'reordered')).toBeGreaterThan(0);
});

test('the tap is given to the next data path while frames still wait: they are lost', async () => {
  jest.spyOn(queueing, 'emptied').mockResolvedValue(true);
  jest.spyOn(DestinationIntake.prototype, 'waiting', 'get').mockReturnValue(0);
  await using lab = await HandoverLab.create({ ringSize: 16 });
  await lab.boot();
  await lab.traffic(MIX);
  await lab.flows(60);
  lab.record.deaf = true;
  setTimeout(() => {
    lab.record.deaf = false;
  }, 200);
  await lab.migrate(1);
  await sleep(250);
  await lab.flows(60);
  expect(sum(await lab.settle(), 'lost')).toBeGreaterThan(0);
});

test('one frame is lost on its way to the destination: lost, and told', async () => {
  const add = FrameBatch.prototype.add;
  let dropped = 0;
  jest.spyOn(FrameBatch.prototype, 'add').mockImplementation(function (this: FrameBatch, pair, frame) {
    if (dropped++ > 0) add.call(this, pair, frame);
  });
  const { verdict, unproven } = await there({ slow: true });
  expect(dropped).toBeGreaterThan(0);
  expect(sum(verdict, 'lost') - verdict.identical).toBe(1);
  expect(unproven).toEqual([expect.stringMatching(/the source sent \d+ frames and \d+ arrived/)]);
});

test('the destination begins its rings at 0: the guest is given what it has had, or nothing', async () => {
  // Nobody takes what waits, and it is not waited for.
  jest.spyOn(queueing, 'emptied').mockResolvedValue(false);
  await using lab = await HandoverLab.create();
  await lab.boot();
  await lab.traffic(MIX);
  await lab.flows(400);
  const host = lab.host(1);
  const createDevice: typeof host.createDevice = (state, memory, backend) => {
    for (const queue of (state as { queues: { nextAvail: number }[] }).queues) queue.nextAvail = 0;
    return host.createDevice(state, memory, backend);
  };
  await lab.migrate(1, { host: { createDevice } });
  await sleep(200);
  const verdict = await lab.settle();
  expect(lab.guest.failure !== null || sum(verdict, 'lost') + sum(verdict, 'duplicated') > 0).toBe(true);
});

test('a silent guest of which the network was not told: frames reach both taps, and the guest twice', async () => {
  const { announce } = announcing;
  jest.spyOn(announcing, 'announce').mockImplementation((tap, announcements) => {
    if (announcements.nonce != null) announce(tap, announcements);
  });
  const { verdict } = await there({ silent: true });
  expect(verdict.flows['unicast 1 to guest']!.duplicated).toBeGreaterThan(0);
});

describe('grace periods, on a network that is slower to one place than to the other', () => {
  /** Milliseconds: longer than anything that is done in between. */
  const SKEW = VIRTUAL ? 400 : 60;

  async function skewed(first: number, second: number, grace: graces.Grace): Promise<Outcome> {
    jest.spyOn(graces, 'gracePeriods').mockReturnValue(grace);
    await using lab = await HandoverLab.create({ bridges: true });
    const flows = STATION_FLOWS.filter(({ kind }) => kind !== 'identical');
    const network = await SkewedNetwork.open(lab.netns, [GUEST], STATION, flows);
    try {
      network.delays(first, second);
      await lab.boot();
      lab.record.speak(MIX.guest / 3);
      await sleep(100);
      network.start(MIX.station * 0.7);
      await sleep(SKEW + 40);
      const { result } = await lab.migrate(1);
      await sleep(100);
      lab.record.speak(0);
      network.hush();
      await network.settled();
      const verdict = lab.verdict(network);
      return { faults: faultsOf(verdict), verdict, unproven: proofOf(result.handover).unproven };
    } finally {
      await network.close();
    }
  }

  /** Longer than any frame takes. */
  const long: graces.Grace = async () => {
    await sleep(SKEW + 20);
    return true;
  };
  const none: graces.Grace = async () => true;
  /** The nth is left out. */
  const without = (nth: number): graces.Grace => {
    let count = 0;
    return () => (++count === nth ? none() : long());
  };

  test.each([
    ['the source', 60, 0],
    ['the destination', 0, 60],
    ['neither', 0, 0],
  ])('slower to %s, all in place: exact', async (_name, first, second) => {
    expect(await skewed(first, second, long)).toMatchObject({ faults: {}, unproven: [] });
  });

  test('the first left out: frames that reached the destination late come twice', async () => {
    const { verdict } = await skewed(0, SKEW, without(1));
    expect(sum(verdict, 'duplicated')).toBeGreaterThan(0);
  });

  test('the second left out: frames that the destination threw away are lost', async () => {
    const { verdict } = await skewed(SKEW, 0, without(2));
    expect(sum(verdict, 'lost')).toBeGreaterThan(0);
  });

  test('the third left out: frames that the source got late are lost', async () => {
    const { verdict } = await skewed(SKEW, 0, without(3));
    expect(verdict.flows['unicast 1 to guest']!.lost).toBeGreaterThan(0);
  });
});

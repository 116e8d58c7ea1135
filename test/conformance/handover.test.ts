/** A guest moves under every kind of traffic: each frame is given once and in order, and the accounts of both sides say so. */
import type { Duplex } from 'node:stream';
import {
  VIRTIO_NET_F_CTRL_RX,
  VIRTIO_NET_F_CTRL_VLAN,
  VIRTIO_NET_F_CTRL_VQ,
  VIRTIO_NET_F_GUEST_CSUM,
  VIRTIO_NET_F_GUEST_TSO4,
} from '../../lib/constants/virtio-net';
import { Tap } from '../../lib/host/tap';
import { bits } from '../../lib/net/features';
import { type PathKind, pathKinds } from '../helpers/device-rig';
import { BROADCAST } from '../helpers/flow-plan';
import {
  faultsOf,
  GUEST,
  GUEST_FLOWS,
  GUEST_TOO,
  HandoverLab,
  type LabOptions,
  MERGED,
  PLAIN,
  proofOf,
  STATION,
  STATION_FLOWS,
  STATION_TOO,
} from '../helpers/handover-lab';
import { TSO_HEADER, tsoFrame } from '../helpers/tcp-frame';
import { sleep, until } from '../helpers/vhost-wait';

const KINDS = pathKinds();
const VIRTUAL = KINDS.length > 1;
/** Frames a second: the VM has no more to give. */
const RATE = VIRTUAL ? 700 : 2800;
const MIX = { station: RATE, guest: RATE / 2 };

/** Between which data paths. */
const PATHS: [string, PathKind[]][] = [['emulated', ['emulated', 'emulated']]];
if (VIRTUAL) {
  PATHS.push(['vhost-kernel', ['vhost-kernel', 'vhost-kernel']], ['both', ['emulated', 'vhost-kernel']]);
}
/** For what is the same on each. */
const ONE: PathKind[] = PATHS[Math.min(1, PATHS.length - 1)]![1];

const proven = { unproven: [], source: { cutBy: 'marker' } };

/** Between the sides, until it is cut at both ends. */
class Wire {
  #ends: Duplex[] = [];

  readonly through = (near: Duplex, far: Duplex): [Duplex, Duplex] => {
    this.#ends = [near, far];
    return [near, far];
  };

  cut(): void {
    for (const end of this.#ends) end.destroy();
  }
}

async function open(options: LabOptions = {}): Promise<HandoverLab> {
  return HandoverLab.create({ kinds: ONE, ...options });
}

describe.each(PATHS)('over %s', (_name, kinds) => {
  test('there and back and there and back', async () => {
    await using lab = await open({ kinds });
    await lab.boot();
    await lab.traffic(MIX);
    for (const to of [1, 0, 1, 0]) {
      await lab.flows(100);
      const { result, received } = await lab.migrate(to);
      expect(proofOf(result.handover)).toMatchObject(proven);
      expect(received.degraded).toBeNull();
      expect(lab.device.backend.kind).toBe(kinds[to]);
      expect(result.audit).toMatchObject({ differing: 0 });
    }
    await lab.flows(100);
    expect(faultsOf(await lab.settle())).toEqual({});
  });

  test('without a pause in between', async () => {
    await using lab = await open({ kinds });
    await lab.boot();
    await lab.traffic(MIX);
    for (let count = 0; count < 8; count++) {
      const { result } = await lab.migrate((lab.at + 1) % 2);
      expect(proofOf(result.handover)).toMatchObject(proven);
    }
    await lab.flows(100);
    expect(faultsOf(await lab.settle())).toEqual({});
  });
});

test.each<[string, LabOptions]>([
  ['legacy header', { features: 0n }],
  ['no merged buffers', { features: PLAIN }],
  ['several buffers a frame', { features: MERGED, ringSize: 128, rxBuffer: 64 }],
])('%s', async (_name, options) => {
  await using lab = await open(options);
  await lab.boot();
  await lab.traffic(MIX);
  for (const to of [1, 0]) {
    await lab.flows(60);
    expect(proofOf((await lab.migrate(to)).result.handover)).toMatchObject(proven);
  }
  await lab.flows(60);
  expect(faultsOf(await lab.settle())).toEqual({});
});

test.each([16, 32])('rings of %d entries whose guest is slow: frames wait on both sides', async (ringSize) => {
  await using lab = await open({ ringSize });
  await lab.boot();
  await lab.traffic(MIX);
  await lab.flows(60);
  for (const to of [1, 0]) {
    lab.record.deaf = true;
    setTimeout(() => {
      lab.record.deaf = false;
    }, 150);
    expect(proofOf((await lab.migrate(to)).result.handover)).toMatchObject(proven);
    await lab.flows(60);
  }
  expect(faultsOf(await lab.settle())).toEqual({});
});

test('a large frame for which the guest has no room yet is not left behind on any data path', async () => {
  const features = MERGED | bits(VIRTIO_NET_F_GUEST_CSUM, VIRTIO_NET_F_GUEST_TSO4);
  await using lab = await open({ features, ringSize: 16, txQueueLength: null });
  await using sender = await Tap.open({ name: 'large', netns: lab.netns.path });
  await sender.setVnetHdrSize(TSO_HEADER);
  await lab.netns.attach('br0', sender.name);
  await lab.boot();
  await lab.traffic(MIX);
  await lab.flows(60);
  lab.station.hush();
  lab.stationToo.hush();
  // Buffers hold 32 KiB: one frame, and no other beside it.
  const frame = tsoFrame(GUEST, 20_000, 1448);
  const send = (): number => sender.writeFrames(frame, frame.length, 1, Int32Array.of(frame.length));
  let sent = 0;
  for (const to of [1, 0]) {
    const before = lab.record.book.foreign;
    lab.guest.beforePause = async () => {
      lab.record.deaf = true;
      await sleep(5);
      for (let count = 0; count < 2; count++) sent += send();
      await sleep(20);
    };
    setTimeout(() => {
      lab.record.deaf = false;
    }, 1000);
    expect(proofOf((await lab.migrate(to)).result.handover)).toMatchObject(proven);
    expect(lab.record.deaf).toBe(false);
    await until('both frames', () => lab.record.book.foreign >= before + 2);
  }
  await sleep(50);
  expect(lab.record.book.foreign).toBe(sent);
});

test('the guest stands still for long: more comes than the queue of a tap holds', async () => {
  await using lab = await open({ txQueueLength: null });
  await lab.boot();
  await lab.traffic({ station: RATE / 2, guest: RATE / 4 });
  await lab.flows(60);
  const host = lab.host(1);
  const { result } = await lab.migrate(1, {
    host: {
      createDevice: async (...given) => {
        for (let burst = 0; burst < 13; burst++, await sleep(10)) lab.station.burst(100);
        return host.createDevice(...given);
      },
    },
  });
  expect(result.downtimeMs).toBeGreaterThan(130);
  expect(proofOf(result.handover)).toMatchObject({ unproven: [], source: { dropped: 0 } });
  expect(result.handover!.source!.sent).toBeGreaterThan(1000);
  await lab.flows(60);
  expect(faultsOf(await lab.settle())).toEqual({});
});

test('the queue of the next tap was full long before: no loss, and none is told', async () => {
  await using lab = await open({ txQueueLength: null });
  await lab.boot();
  await lab.traffic(MIX);
  const broadcasts = lab.station.sources.length;
  for (let burst = 0; burst < 20; burst++, await sleep(10)) lab.station.burst(14 * broadcasts);
  expect((await lab.places[1]!.tap.stats()).tx.dropped).toBeGreaterThan(0);
  for (const to of [1, 0]) {
    for (let burst = 0; burst < 20; burst++, await sleep(10)) lab.station.burst(14 * broadcasts);
    expect(proofOf((await lab.migrate(to)).result.handover)).toMatchObject(proven);
  }
  await lab.flows(60);
  expect(faultsOf(await lab.settle())).toEqual({});
});

test('the announcement does not come back: the cut is where time was up, and that is said', async () => {
  await using lab = await open({ stationFlows: STATION_FLOWS.filter(({ kind }) => kind !== 'identical') });
  for (const { tap } of lab.places)
    await lab.netns.ip('link', 'set', 'dev', tap.name, 'type', 'bridge_slave', 'isolated', 'on');
  await lab.boot();
  await lab.traffic(MIX);
  for (const to of [1, 0]) {
    await lab.flows(60);
    const { handover } = (await lab.migrate(to)).result;
    expect(handover).toMatchObject({ source: { cutBy: 'timeout', markers: 0 } });
    expect(handover!.unproven).toEqual([expect.stringMatching(/announcement did not come back/)]);
  }
  await lab.flows(60);
  expect(faultsOf(await lab.settle())).toEqual({});
});

test('a guest that sends nothing: the network is told where it is before its frames could reach both taps', async () => {
  await using lab = await open();
  await lab.boot();
  await lab.traffic({ station: RATE, guest: 0 });
  for (const to of [1, 0, 1]) {
    await lab.flows(60);
    expect(proofOf((await lab.migrate(to)).result.handover)).toMatchObject(proven);
  }
  await lab.flows(60);
  expect(faultsOf(await lab.settle())).toEqual({});
});

test('a second address, of which the device is not told: it is learned from what the guest sends', async () => {
  await using lab = await open({
    macs: [GUEST, GUEST_TOO],
    stationFlows: [...STATION_FLOWS, { flow: 8, kind: 'unicast', source: STATION, destination: GUEST_TOO }],
    guestFlows: [
      ...GUEST_FLOWS,
      { flow: 24, kind: 'unicast', source: GUEST_TOO, destination: STATION },
      { flow: 25, kind: 'broadcast', source: GUEST_TOO, destination: BROADCAST },
    ],
  });
  await lab.boot();
  await lab.traffic(MIX);
  for (const to of [1, 0, 1, 0]) {
    await lab.flows(100);
    expect(proofOf((await lab.migrate(to)).result.handover)).toMatchObject(proven);
  }
  await lab.flows(100);
  expect(faultsOf(await lab.settle())).toEqual({});
});

test('a second address that is never heard: what is for it goes where it was, and that is told', async () => {
  await using lab = await open({
    stationFlows: [...STATION_FLOWS, { flow: 8, kind: 'unicast', source: STATION_TOO, destination: GUEST_TOO }],
  });
  await lab.netns.exec('bridge', ['fdb', 'add', GUEST_TOO, 'dev', lab.places[0]!.tap.name, 'master', 'static']);
  await lab.boot();
  await lab.traffic(MIX);
  await lab.flows(60);
  const { handover } = (await lab.migrate(1)).result;
  expect(handover!.unproven).toContainEqual(expect.stringMatching(/and not the destination's: lost/));
  await lab.flows(60);
  const { 'unicast 8 to guest': silent, ...rest } = faultsOf(await lab.settle());
  expect(silent).toMatchObject({ duplicated: 0, reordered: 0 });
  expect(rest).toEqual({});
});

describe('a receive filter', () => {
  const features = MERGED | bits(VIRTIO_NET_F_CTRL_VQ, VIRTIO_NET_F_CTRL_RX, VIRTIO_NET_F_CTRL_VLAN);
  /** Address table, multicast and one of two VLANs. */
  const passing = STATION_FLOWS.filter(({ kind, vlan }) => kind !== 'unknown' && vlan !== 20);

  test('what passes is given once', async () => {
    await using lab = await open({ features, stationFlows: passing });
    await lab.boot(({ control }) => Object.assign(control, { promiscuous: false, allMulticast: true, vlans: [10] }));
    await lab.traffic(MIX);
    for (const to of [1, 0, 1]) {
      await lab.flows(60);
      expect(proofOf((await lab.migrate(to)).result.handover)).toMatchObject(proven);
    }
    await lab.flows(60);
    expect(faultsOf(await lab.settle())).toEqual({});
  });

  test('what does not pass reaches the guest neither before nor after', async () => {
    await using lab = await open({ features });
    await lab.boot(({ control }) => Object.assign(control, { promiscuous: false, allMulticast: true, vlans: [10] }));
    await lab.traffic(MIX);
    for (const to of [1, 0]) {
      await lab.flows(60);
      // The kernel counts what the filter refuses like what finds a queue full.
      expect(proofOf((await lab.migrate(to)).result.handover)).toMatchObject(proven);
    }
    await lab.flows(60);
    const { 'vlan 5 to guest': vlan, 'unknown 6 to guest': unknown, ...rest } = faultsOf(await lab.settle());
    const [, , , , ofVlan, ofUnknown] = lab.station.sources;
    expect(vlan).toMatchObject({ lost: ofVlan!.sent });
    expect(unknown).toMatchObject({ lost: ofUnknown!.sent });
    expect(rest).toEqual({});
  });
});

describe('before GO the guest goes on at the source, with all that came meanwhile', () => {
  test.each(['relay', 'switchover', 'ready'] as const)('cancelled in phase %s', async (phase) => {
    await using lab = await open();
    await lab.boot();
    await lab.traffic(MIX);
    await lab.flows(60);
    for (let count = 0; count < 3; count++) {
      const controller = new AbortController();
      const source = {
        signal: controller.signal,
        onEvent: (event: { kind: string; phase?: string }) => {
          if (event.kind === 'phase' && event.phase === phase) controller.abort(new Error('not now'));
        },
      };
      await expect(lab.migrate(1, { source })).rejects.toMatchObject({ code: 'VHOST_ERR_ABORTED' });
      expect(lab.device.running).toBe(true);
      expect(lab.device.backend.kind).toBe(ONE[0]);
      await lab.flows(60);
    }
    expect(proofOf((await lab.migrate(1)).result.handover)).toMatchObject(proven);
    await lab.flows(60);
    expect(faultsOf(await lab.settle())).toEqual({});
  });

  test('the destination fails when the guest has stood for a while', async () => {
    await using lab = await open();
    await lab.boot();
    await lab.traffic(MIX);
    await lab.flows(60);
    const createGuest = async (): Promise<never> => {
      await sleep(80);
      throw new Error('out of luck');
    };
    await expect(lab.migrate(1, { host: { createGuest } })).rejects.toThrow(/out of luck/);
    await lab.flows(60);
    expect(proofOf((await lab.migrate(1)).result.handover)).toMatchObject(proven);
    await lab.flows(60);
    expect(faultsOf(await lab.settle())).toEqual({});
  });
});

test('uncertain: started at the source by order, the guest is given all that was collected', async () => {
  await using lab = await open();
  await lab.boot();
  await lab.traffic(MIX);
  await lab.flows(60);
  const wire = new Wire();
  const moving = lab.migrate(1, {
    between: wire.through,
    source: {
      onEvent: (event) => {
        if (event.kind === 'phase' && event.phase === 'commit') wire.cut();
      },
    },
  });
  await expect(moving).rejects.toMatchObject({ code: 'VHOST_ERR_UNCERTAIN' });
  expect(lab.device.running).toBe(false);
  await sleep(50);
  lab.guest.stopDirtyLog();
  await lab.device.stopDirtyLog();
  await lab.device.start();
  lab.guest.resume();
  await lab.flows(60);
  expect(proofOf((await lab.migrate(1)).result.handover)).toMatchObject(proven);
  await lab.flows(60);
  expect(faultsOf(await lab.settle())).toEqual({});
});

test('the source is lost when the guest runs at the destination: it goes on, nothing comes twice, and what is not known is told', async () => {
  await using lab = await open();
  await lab.boot();
  await lab.traffic(MIX);
  await lab.flows(60);
  const wire = new Wire();
  const { result, received } = await lab.migrate(1, {
    between: wire.through,
    source: {
      onEvent: (event) => {
        if (event.kind === 'phase' && event.phase === 'running') wire.cut();
      },
    },
  });
  expect(result.handover).toMatchObject({ destination: null });
  expect(received.handover).toMatchObject({ source: null, destination: { complete: false } });
  expect(received.handover!.unproven).toContainEqual(expect.stringMatching(/source was lost/));
  await lab.flows(60);
  const { flows, own, foreign } = await lab.settle();
  expect({ own, foreign }).toEqual({ own: 0, foreign: 0 });
  for (const flow of Object.values(flows)) expect(flow).toMatchObject({ duplicated: 0, reordered: 0, corrupted: 0 });
});

test('without a link nothing comes, before and after; with one again everything does', async () => {
  await using lab = await open();
  await lab.boot();
  await lab.traffic(MIX);
  await lab.flows(60);
  await lab.device.setLink(false);
  await sleep(30);
  const before = lab.record.book.total;
  await lab.migrate(1);
  expect(lab.device.linkUp).toBe(false);
  await sleep(50);
  expect(lab.record.book.total).toBe(before);
  await lab.device.setLink(true);
  await lab.flows(60);
  const { flows, own, foreign } = await lab.settle();
  expect({ own, foreign }).toEqual({ own: 0, foreign: 0 });
  for (const flow of Object.values(flows)) expect(flow).toMatchObject({ duplicated: 0, reordered: 0, corrupted: 0 });
});

test('a driver that has not come as far as DRIVER_OK: nothing to hand over', async () => {
  await using lab = await open();
  await lab.boot((state) => {
    state.status = 0;
    state.features = '0x0';
    state.driverFeatures = '0x0';
    for (const queue of state.queues) queue.ready = false;
  });
  expect(lab.device.running).toBe(false);
  const { result, received } = await lab.migrate(1);
  expect(result.handover).toBeNull();
  expect(received.handover).toBeNull();
  expect(lab.device.driverOk).toBe(false);
  // The network was not told of it.
  await sleep(100);
  expect(lab.station.book.announcements).toBe(0);
});

test('the network is told where the guest is: by the source once, then by the destination', async () => {
  await using lab = await open();
  await lab.boot();
  await lab.traffic(MIX);
  await lab.flows(30);
  await lab.migrate(1, { destination: { announceRounds: 2, announceInitial: 5, announceStep: 5 } });
  // The source's; that with the nonce and two rounds, each of them on VLAN 10 too.
  await until('announcements', () => lab.station.book.announcements >= 7);
  await sleep(50);
  // The source's too, if it had heard of VLAN 10 by then.
  expect(lab.station.book.announcements).toBeLessThanOrEqual(8);
});

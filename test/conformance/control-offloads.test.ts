/** GUEST_OFFLOADS: what the tap is told, and what large TCP segments become on their way to the guest, on every data path. */
import { constants } from 'node:os';
import * as tun from '../../lib/constants/if-tun';
import * as net from '../../lib/constants/virtio-net';
import { VIRTIO_NET_ERR, VIRTIO_NET_OK } from '../../lib/constants/virtio-net-ctrl';
import { Tap } from '../../lib/host/tap';
import { GUEST_OFFLOADS } from '../../lib/net/feature-rules';
import { bit, bits, hasBit } from '../../lib/net/features';
import { FaultPlan } from '../../lib/trace/fault-plan';
import type { Received } from '../helpers/control-guest';
import { ControlLab, splitPaths } from '../helpers/control-lab';
import { GUEST_MAC } from '../helpers/device-rig';
import { dataOf, TCP_HEADERS, TSO_HEADER, tcpChecksumRight, tsoFrame } from '../helpers/tcp-frame';
import { until } from '../helpers/vhost-wait';

const CSUM = bits(net.VIRTIO_NET_F_GUEST_CSUM);
const TSO4 = bits(net.VIRTIO_NET_F_GUEST_TSO4);
const TSO6 = bits(net.VIRTIO_NET_F_GUEST_TSO6);
const ECN = bits(net.VIRTIO_NET_F_GUEST_ECN);
const DATA = 3000;
const SEGMENT = 1000;

/** Without the offloads of tunnels, whose headers are longer. */
const PATHS = splitPaths().map((path) => ({ ...path, wanted: BigInt.asUintN(64, path.wanted) }));

describe.each(PATHS)('$name', (path) => {
  const tapFaults = new FaultPlan();
  let lab: ControlLab;
  /** On the bridge, with virtio-net headers. */
  let sender: Tap;
  beforeAll(async () => {
    lab = await ControlLab.create(path, { tapFaults });
    sender = await Tap.open({ netns: lab.rig.netns.path, name: 'sender' });
    await sender.setVnetHdrSize(TSO_HEADER);
    await lab.rig.netns.attach('br0', 'sender');
  });
  afterAll(async () => {
    await sender.close();
    await lab.close();
  });
  beforeEach(() => lab.restart());

  const set = (offloads: bigint): Promise<number> => lab.guest.command({ kind: 'guest-offloads-set', offloads });

  /** TUN_F_ bits that the tap was told, one for each TUNSETOFFLOAD since the last look. */
  function told(): unknown[] {
    const { trace } = lab.rig;
    const offloads = trace.records.flatMap((record) =>
      record.kind === 'ioctl' && record.name === 'TUNSETOFFLOAD' && record.result === 0 ? [record.args.offload] : [],
    );
    trace.clear();
    return offloads;
  }

  /** What reaches the guest of one segment of DATA bytes. */
  async function segments(): Promise<Received[]> {
    const packet = tsoFrame(GUEST_MAC, DATA, SEGMENT);
    expect(sender.writeFrames(packet, packet.length, 1, Int32Array.of(packet.length))).toBe(1);
    const got: Received[] = [];
    const bytes = (): number => got.reduce((sum, { frame }) => sum + frame.length - TCP_HEADERS, 0);
    await until('all data arrives', () => {
      got.push(...lab.guest.take());
      return bytes() >= DATA;
    });
    const data = dataOf(got.map(({ frame }) => frame));
    expect(Buffer.compare(data, packet.subarray(TSO_HEADER + TCP_HEADERS))).toBe(0);
    return got;
  }

  /** One frame with its size of segments, or segments; with checksums to be completed, or complete. */
  async function expectSegments(whole: boolean, unchecked: boolean): Promise<void> {
    const got = await segments();
    const sizes = got.map(({ frame }) => frame.length - TCP_HEADERS);
    expect(sizes).toEqual(whole ? [DATA] : [SEGMENT, SEGMENT, SEGMENT]);
    for (const { header, frame } of got) {
      const gso = whole ? { gsoType: net.VIRTIO_NET_HDR_GSO_TCPV4, gsoSize: SEGMENT } : { gsoType: 0 };
      expect(header).toMatchObject(gso);
      expect((header.flags & net.VIRTIO_NET_HDR_F_NEEDS_CSUM) !== 0).toBe(unchecked);
      expect(tcpChecksumRight(frame)).toBe(!unchecked);
    }
  }

  test('the tap is told each set once, bit for bit', async () => {
    expect(hasBit(lab.guest.features, net.VIRTIO_NET_F_GUEST_TSO6)).toBe(true);
    expect(lab.guest.features & (CSUM | TSO4 | TSO6 | ECN)).toBe(CSUM | TSO4 | TSO6 | ECN);
    told();
    const { TUN_F_CSUM, TUN_F_TSO4, TUN_F_TSO6, TUN_F_TSO_ECN } = tun;
    for (const [offloads, expected] of [
      [0n, [0]],
      [0n, []],
      [CSUM, [TUN_F_CSUM]],
      [CSUM | TSO4, [TUN_F_CSUM | TUN_F_TSO4]],
      [CSUM | TSO6, [TUN_F_CSUM | TUN_F_TSO6]],
      [CSUM | TSO6 | ECN, [TUN_F_CSUM | TUN_F_TSO6 | TUN_F_TSO_ECN]],
      [CSUM | TSO4 | TSO6 | ECN, [TUN_F_CSUM | TUN_F_TSO4 | TUN_F_TSO6 | TUN_F_TSO_ECN]],
      [CSUM | TSO4 | TSO6 | ECN, []],
    ] as const) {
      expect(await set(offloads)).toBe(VIRTIO_NET_OK);
      expect(told()).toEqual(expected);
    }
  });

  test('segments arrive whole or cut, unchecked or checked, from the ack on', async () => {
    await expectSegments(true, true);
    for (let round = 0; round < 3; round++) {
      expect(await set(0n)).toBe(VIRTIO_NET_OK);
      await expectSegments(false, false);
      expect(await set(CSUM)).toBe(VIRTIO_NET_OK);
      await expectSegments(false, true);
      expect(await set(CSUM | TSO4)).toBe(VIRTIO_NET_OK);
      await expectSegments(true, true);
      expect(await set(CSUM | TSO6)).toBe(VIRTIO_NET_OK);
      await expectSegments(false, true);
    }
  });

  test('they stay over a stop and a switch, and a reset turns all that were acked on again', async () => {
    expect(await set(0n)).toBe(VIRTIO_NET_OK);
    await lab.rig.device.stop();
    await lab.rig.device.start();
    await expectSegments(false, false);
    await lab.rig.device.switchBackend(lab.rig.backend(path.kind));
    await expectSegments(false, false);
    await lab.restart();
    await expectSegments(true, true);
    await lab.restart({ wanted: path.wanted & ~(GUEST_OFFLOADS & ~CSUM) });
    await expectSegments(false, true);
  });

  test('what was not acked, or misses what it needs, is refused and nothing is told', async () => {
    await lab.restart({ wanted: path.wanted & ~(TSO6 | bit(net.VIRTIO_NET_F_GUEST_UFO)) });
    told();
    for (const offloads of [
      CSUM | TSO6,
      CSUM | bit(net.VIRTIO_NET_F_GUEST_UFO),
      TSO4,
      CSUM | ECN,
      CSUM | bit(net.VIRTIO_NET_F_CSUM),
      CSUM | bit(63),
      (1n << 64n) - 1n,
    ]) {
      expect(await set(offloads)).toBe(VIRTIO_NET_ERR);
      expect(told()).toEqual([]);
    }
    await expectSegments(true, true);
    await lab.restart({ wanted: path.wanted & ~bit(net.VIRTIO_NET_F_CTRL_GUEST_OFFLOADS) });
    expect(await set(CSUM)).toBe(VIRTIO_NET_ERR);
    await expectSegments(true, true);
  });

  test('a tap that does not take them leaves them as they were', async () => {
    expect(await set(CSUM)).toBe(VIRTIO_NET_OK);
    tapFaults.fail('TUNSETOFFLOAD', { errno: constants.errno.EPERM });
    expect(await set(0n)).toBe(VIRTIO_NET_ERR);
    await expectSegments(false, true);
    expect(await set(CSUM | TSO4)).toBe(VIRTIO_NET_OK);
    await expectSegments(true, true);
  });

  test('a tap that is not told is found out', async () => {
    tapFaults.clear().skip('TUNSETOFFLOAD');
    expect(await set(0n)).toBe(VIRTIO_NET_OK);
    await expect(expectSegments(false, false)).rejects.toThrow();
  });
});

/** What the device changes in the configuration space by itself, as the driver notices it: announcements, link, speed, MTU. */
import { VIRTIO_MMIO_INT_CONFIG, VIRTIO_MMIO_INT_VRING } from '../../lib/constants/virtio-mmio';
import { VIRTIO_NET_F_GUEST_ANNOUNCE } from '../../lib/constants/virtio-net';
import { VIRTIO_NET_ERR, VIRTIO_NET_OK } from '../../lib/constants/virtio-net-ctrl';
import { DUPLEX_FULL, DUPLEX_UNKNOWN, type NetConfig, SPEED_UNKNOWN } from '../../lib/net/config-space';
import { bit } from '../../lib/net/features';
import { BROADCAST, named } from '../helpers/control-frames';
import { ControlLab, splitPaths } from '../helpers/control-lab';
import { GUEST_MAC } from '../helpers/device-rig';
import { until } from '../helpers/vhost-wait';

const AT_FIRST: NetConfig = {
  mac: GUEST_MAC,
  linkUp: true,
  announce: false,
  maxPairs: 1,
  mtu: 1500,
  speed: SPEED_UNKNOWN,
  duplex: DUPLEX_UNKNOWN,
};

describe.each(splitPaths())('$name', (path) => {
  let lab: ControlLab;
  /** The interrupt line as the driver's controller sees it. */
  let line: boolean;
  beforeAll(async () => {
    const interrupt = {
      set: (high: boolean): void => {
        line = high;
      },
    };
    line = false;
    lab = await ControlLab.create(path, { mmio: { interrupt, watchCalls: true } });
  });
  afterAll(() => lab.close());
  beforeEach(() => lab.restart());

  /** What one change does: exactly one new generation, a configuration interrupt that holds the line until it is taken, and this config. */
  async function expectChange(change: () => unknown, config: Partial<NetConfig>): Promise<void> {
    const { mmio } = lab.guest;
    // A device may call once for a ring that it has just begun with, whatever its driver asks for.
    mmio.takeInterrupts();
    expect(line).toBe(false);
    const before = lab.rig.device.configGeneration;
    await change();
    expect(line).toBe(true);
    expect(mmio.takeInterrupts() & VIRTIO_MMIO_INT_CONFIG).toBe(VIRTIO_MMIO_INT_CONFIG);
    expect(line).toBe(false);
    expect(lab.rig.device.configGeneration).toBe(before + 1);
    expect(mmio.config()).toEqual({ ...AT_FIRST, ...config });
  }

  test('an announcement is asked for until the driver has made it', async () => {
    const { device } = lab.rig;
    await lab.restart({ calls: true });
    expect(lab.guest.mmio.config()).toEqual(AT_FIRST);
    expect(await lab.guest.command({ kind: 'announce-ack' })).toBe(VIRTIO_NET_ERR);
    // The first ack calls, as the driver's queue asks for it.
    await until('the call of the control queue', () => lab.guest.mmio.takeInterrupts() === VIRTIO_MMIO_INT_VRING);
    await expectChange(() => expect(device.announce()).toBe(true), { announce: true });
    expect(await lab.guest.command({ kind: 'announce-ack' })).toBe(VIRTIO_NET_OK);
    expect(lab.guest.mmio.config()).toEqual(AT_FIRST);
    expect(await lab.guest.command({ kind: 'announce-ack' })).toBe(VIRTIO_NET_ERR);
    expect(device.announce()).toBe(true);
    expect(device.announce()).toBe(true);
    expect(await lab.guest.command({ kind: 'announce-ack' })).toBe(VIRTIO_NET_OK);
    expect(await lab.guest.command({ kind: 'announce-ack' })).toBe(VIRTIO_NET_ERR);
  });

  test('a driver that cannot announce is not asked, and a reset ends what was asked', async () => {
    expect(lab.rig.device.announce()).toBe(true);
    await lab.restart({ wanted: path.wanted & ~bit(VIRTIO_NET_F_GUEST_ANNOUNCE) });
    expect(lab.guest.mmio.config()).toEqual(AT_FIRST);
    lab.guest.mmio.takeInterrupts();
    const before = lab.rig.device.configGeneration;
    expect(lab.rig.device.announce()).toBe(false);
    expect(lab.guest.mmio.config()).toEqual(AT_FIRST);
    expect([line, lab.rig.device.configGeneration]).toEqual([false, before]);
    expect(await lab.guest.command({ kind: 'announce-ack' })).toBe(VIRTIO_NET_ERR);
  });

  test('speed, duplex and MTU', async () => {
    const { device } = lab.rig;
    await expectChange(() => device.setSpeed(10_000, DUPLEX_FULL), { speed: 10_000, duplex: DUPLEX_FULL });
    await expectChange(() => device.setSpeed(0), { speed: 0, duplex: DUPLEX_FULL });
    await expectChange(() => device.setMtu(9000), { speed: 0, duplex: DUPLEX_FULL, mtu: 9000 });
    for (const wrong of [() => device.setSpeed(-1), () => device.setSpeed(1, 2), () => device.setMtu(67)]) {
      expect(wrong).toThrow(expect.objectContaining({ code: 'VHOST_ERR_INVALID_ARGUMENT' }));
    }
    // A reset is not what changes the device's own values back.
    await lab.restart();
    expect(lab.guest.mmio.config()).toEqual({ ...AT_FIRST, speed: 0, duplex: DUPLEX_FULL, mtu: 9000 });
    await expectChange(() => device.setMtu(1500), { speed: 0, duplex: DUPLEX_FULL });
    await expectChange(() => device.setSpeed(SPEED_UNKNOWN, DUPLEX_UNKNOWN), {});
  });

  test('no frame reaches the guest without a link, and all do with one', async () => {
    const { device } = lab.rig;
    const frames = () => [named('own', GUEST_MAC), named('broadcast', BROADCAST)];
    await lab.say({ kind: 'rx-mode', mode: 'promisc', on: false });
    for (let round = 0; round < 3; round++) {
      expect(await lab.deliver(frames())).toEqual(['own', 'broadcast']);
      await expectChange(() => device.setLink(false), { linkUp: false });
      const unseen = frames();
      lab.write(unseen);
      // What the driver says meanwhile does not plug the cable in again.
      await lab.say({ kind: 'rx-mode', mode: 'allmulti', on: round % 2 === 0 });
      lab.write(unseen);
      await device.setLink(false);
      expect(lab.taken(unseen)).toEqual([]);
      await expectChange(() => device.setLink(true), {});
      expect(lab.taken(unseen)).toEqual([]);
      await lab.plugged();
    }
  });

  test('a cable that was pulled before a stop and plugged in while the device stood', async () => {
    const { device, netns } = lab.rig;
    // Of the interface at once; the bridge hears of it later.
    const carrier = async () => (await netns.ip('link', 'show', 'dev', 'dev0')).includes('LOWER_UP');
    for (const backend of [device.backend, lab.rig.backend(path.kind)]) {
      await device.setLink(false);
      await device.stop();
      await device.setLink(true);
      expect(await carrier()).toBe(false);
      if (backend !== device.backend) await device.switchBackend(backend);
      await device.start();
      expect(await carrier()).toBe(true);
      await lab.plugged();
    }
  });
});

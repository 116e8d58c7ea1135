/** What the driver asked for outlives the data path: over a switch to another, over a stop, and saved and restored as another device. */
import { VIRTIO_F_RING_PACKED } from '../../lib/constants/virtio-net';
import type { DeviceState } from '../../lib/device/device-state';
import { VirtioMmio } from '../../lib/device/virtio-mmio';
import { VirtioNetDevice } from '../../lib/device/virtio-net-device';
import { hasBit } from '../../lib/net/features';
import { ACCEPT_ALL } from '../../lib/net/receive-filter-program';
import { everyKind, LET_THROUGH, type Named, NEW_MAC, named, narrow, OTHER } from '../helpers/control-frames';
import { ControlLab, controlPaths, expectFiltered } from '../helpers/control-lab';
import { pathKinds } from '../helpers/device-rig';
import { sleep, until } from '../helpers/vhost-wait';

/** Frames for the guest, numbered by name, and as many for others, every millisecond until it is ended. */
class Stream {
  readonly sent: Named[] = [];
  readonly got: string[] = [];
  readonly #lab: ControlLab;
  readonly #timer: NodeJS.Timeout;

  constructor(lab: ControlLab) {
    this.#lab = lab;
    this.#timer = setInterval(() => this.#send(), 1);
  }

  #send(): void {
    const number = this.sent.length / 2;
    const frames = [named(`${number}`, NEW_MAC), named(`foreign ${number}`, OTHER)];
    this.sent.push(...frames);
    this.#lab.write(frames);
    this.collect();
  }

  collect(): void {
    this.got.push(...this.#lab.taken(this.sent));
  }

  /** After `more` more frames. */
  async end(more: number): Promise<void> {
    const enough = this.sent.length + 2 * more;
    await until('frames are sent', () => this.sent.length >= enough);
    clearInterval(this.#timer);
  }
}

/** The saved device on the same tap, which meanwhile forgets what it was told, as one of another host. */
async function restored(lab: ControlLab, tamper: (saved: DeviceState) => void): Promise<VirtioNetDevice> {
  const { device, memory, taps, trace } = lab.rig;
  await device.stop();
  const saved = JSON.parse(JSON.stringify(device.save())) as DeviceState;
  tamper(saved);
  await taps[0]!.attachFilter(ACCEPT_ALL);
  const { properties } = device;
  return VirtioNetDevice.restore(saved, { memory, backend: lab.rig.backend(lab.path.kind), trace, properties });
}

/** Names of all frames that the restored device delivers while the network never stops sending. */
async function deliveredByRestored(lab: ControlLab, device: VirtioNetDevice): Promise<string[]> {
  const stream = new Stream(lab);
  await until('frames wait in the tap', () => stream.sent.length > 20);
  await device.prepare();
  await sleep(10);
  await device.start();
  await stream.end(20);
  const last = stream.sent.at(-2)!.name;
  await until('the last frame', () => {
    stream.collect();
    return stream.got.includes(last);
  });
  await lab.quiet();
  return stream.got;
}

describe.each(controlPaths())('$name', (path) => {
  let lab: ControlLab;
  beforeAll(async () => {
    lab = await ControlLab.create(path);
  });
  afterAll(() => lab.close());
  beforeEach(async () => {
    await lab.restart();
    await narrow(lab);
  });

  const packed = hasBit(path.wanted, VIRTIO_F_RING_PACKED);
  const others = pathKinds().filter((kind) => !packed || kind === 'emulated');
  test.each(others)('a switch under traffic to %s and back, and commands in between', async (to) => {
    const stream = new Stream(lab);
    await until('frames flow', () => stream.got.length > 20);
    const { device } = lab.rig;
    const before = device.backend;
    for (const next of [lab.rig.backend(to), before]) {
      await device.switchBackend(next);
      expect(device.backend).toBe(next);
      await lab.say({ kind: 'rx-mode', mode: 'allmulti', on: next !== before });
    }
    await stream.end(50);
    await until('the last frame', () => {
      stream.collect();
      return stream.got.length >= stream.sent.length / 2;
    });
    expect(stream.got).toEqual(Array.from({ length: stream.sent.length / 2 }, (_, number) => `${number}`));
    await lab.quiet();
    expect(await lab.deliver(everyKind())).toEqual(LET_THROUGH);
    await device.switchBackend(lab.rig.backend(to));
    expect(await lab.deliver(everyKind())).toEqual(LET_THROUGH);
    await lab.say({ kind: 'rx-mode', mode: 'allmulti', on: true });
    await expectFiltered(lab, everyKind());
    await device.switchBackend(before);
  });

  test('a stop and a start change nothing', async () => {
    const { device } = lab.rig;
    expect(await lab.deliver(everyKind())).toEqual(LET_THROUGH);
    for (let round = 0; round < 3; round++) {
      await device.stop();
      const meanwhile = everyKind();
      lab.write(meanwhile);
      await device.start();
      const got: string[] = [];
      await until('what the tap kept', () => got.push(...lab.taken(meanwhile)) >= LET_THROUGH.length);
      expect(got).toEqual(LET_THROUGH);
      await lab.quiet();
      expect(await lab.deliver(everyKind())).toEqual(LET_THROUGH);
    }
    // The control queue goes on where it stood.
    await lab.say({ kind: 'rx-mode', mode: 'nobcast', on: false });
    await expectFiltered(lab, everyKind());
  });

  test('a command that comes while the device stands is answered when it goes on', async () => {
    const { device } = lab.rig;
    await device.stop();
    const said = lab.say({ kind: 'rx-mode', mode: 'nobcast', on: false });
    await sleep(20);
    expect(lab.guest.answered).toBe(0);
    await device.start();
    await said;
    expect(await lab.deliver(everyKind())).toEqual(['listed', 'new', 'listed group', 'broadcast', 'new, VLAN 5']);
  });

  test('a device that was saved and restored filters before its first frame', async () => {
    lab.rig.device.announce();
    await using device = await restored(lab, () => undefined);
    const mmio = new VirtioMmio(device, { watchCalls: false });
    lab.guest.moveTo(mmio);
    const names = await deliveredByRestored(lab, device);
    const first = Number(names[0]);
    expect(names).toEqual(names.map((_, index) => `${first + index}`));
    expect(lab.guest.mmio.config()).toMatchObject({ mac: NEW_MAC, announce: true });
    expect(await lab.deliver(everyKind())).toEqual(LET_THROUGH);
    await lab.say({ kind: 'announce-ack' }, { kind: 'vlan-add', vid: 6 }, { kind: 'vlan-del', vid: 5 });
    await expectFiltered(lab, everyKind());
    mmio.close();
  });

  test('a device that is restored with another filter is found out', async () => {
    await using device = await restored(lab, ({ control }) => {
      control.promiscuous = true;
    });
    const names = await deliveredByRestored(lab, device);
    expect(names.filter((name) => name.startsWith('foreign')).length).toBeGreaterThan(10);
  });
});

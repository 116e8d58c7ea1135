/** Receive modes, the MAC table and the device's address, as traffic, on every data path. */
import { VIRTIO_NET_ERR, VIRTIO_NET_OK } from '../../lib/constants/virtio-net-ctrl';
import { RX_MODES } from '../../lib/net/control-command';
import { FaultPlan } from '../../lib/trace/fault-plan';
import { macs, macTable } from '../helpers/control-commands';
import { BROADCAST, everyKind, GROUP, LISTED, type Named, named, namesOf, OTHER } from '../helpers/control-frames';
import { ControlLab, controlPaths, expectFiltered, filterAfter } from '../helpers/control-lab';
import { GUEST_MAC } from '../helpers/device-rig';

/** All settings of the six modes, one command after the other: 64 filters, each of which differs from the last by one mode. */
async function expectEveryMode(lab: ControlLab): Promise<void> {
  await lab.say(macTable([LISTED], [GROUP]));
  for (let step = 0; step < 64; step++) {
    // What changes in a Gray code is the bit that was set last of those of the step's number.
    const bit = step === 0 ? 0 : Math.log2(step & -step);
    const on = step !== 0 && ((step ^ (step >> 1)) & (1 << bit)) !== 0;
    await lab.say({ kind: 'rx-mode', mode: RX_MODES[bit]!, on });
    await expectFiltered(lab, everyKind());
  }
}

describe.each(controlPaths())('$name', (path) => {
  let lab: ControlLab;
  beforeAll(async () => {
    lab = await ControlLab.create(path);
  });
  afterAll(() => lab.close());
  beforeEach(() => lab.restart());

  test('a driver that has said nothing yet is given everything', async () => {
    expect(await lab.deliver(everyKind())).toEqual(namesOf(everyKind()));
  });

  test('every setting of the receive modes', async () => {
    await expectEveryMode(lab);
    expect(Object.values(lab.filter).filter((value) => value === true)).toHaveLength(1);
  });

  test('MAC tables of 1, 64 and none', async () => {
    await lab.say({ kind: 'rx-mode', mode: 'promisc', on: false });
    const unicast = macs(66);
    const multicast = macs(66, 1);
    const all = (): Named[] => [
      ...everyKind(),
      ...unicast.map((mac) => named(mac, mac)),
      ...multicast.map((mac) => named(mac, mac)),
    ];
    for (const table of [
      macTable([LISTED], []),
      macTable([], [GROUP]),
      macTable(unicast.slice(0, 64), []),
      macTable([], multicast.slice(0, 64)),
      macTable(unicast.slice(0, 32), multicast.slice(0, 32)),
      macTable(unicast.slice(0, 1), multicast.slice(0, 63)),
      macTable([], []),
    ]) {
      await lab.say(table);
      await expectFiltered(lab, all());
    }
    expect(lab.wanted(everyKind())).toEqual(['first', 'broadcast']);
  });

  test('a list of more than the table holds lets everything of its kind through, and a shorter one after it does not', async () => {
    await lab.say({ kind: 'rx-mode', mode: 'promisc', on: false });
    const cases = [
      { sent: macTable(macs(65), [GROUP]), means: macTable([], [GROUP], true, false) },
      { sent: macTable([LISTED], macs(65, 1)), means: macTable([LISTED], [], false, true) },
      { sent: macTable(macs(64), [GROUP]), means: macTable(macs(64), [], false, true) },
      { sent: macTable(macs(65), macs(65, 1)), means: macTable([], [], true, true) },
      { sent: macTable([], []), means: macTable([], []) },
    ];
    for (const { sent, means } of cases) {
      expect(await lab.guest.command(sent)).toBe(VIRTIO_NET_OK);
      lab.filter = filterAfter(lab.filter, means);
      await expectFiltered(lab, everyKind());
    }
    expect(lab.wanted(everyKind())).toEqual(['first', 'broadcast']);
  });

  test('another address of the device', async () => {
    await lab.say({ kind: 'rx-mode', mode: 'promisc', on: false });
    const both = (): Named[] => [named('before', GUEST_MAC), named('after', OTHER)];
    // The network knows the address, so that its frames come here and nowhere else.
    const hello = named('hello', BROADCAST);
    hello.frame.set([2, 0, 0, 0, 0, 2], 6);
    await lab.guest.send(hello.frame);
    expect(await lab.deliver(both())).toEqual(['before']);
    for (const [mac, arrives] of [
      [OTHER, 'after'],
      [GUEST_MAC, 'before'],
    ] as const) {
      await lab.say({ kind: 'mac-addr-set', mac });
      expect(lab.guest.mmio.config().mac).toBe(mac);
      expect(lab.rig.device.mac).toBe(mac);
      expect(await lab.deliver(both())).toEqual([arrives]);
    }
    // A group's address, and nobody's.
    for (const mac of [GROUP, '00:00:00:00:00:00']) {
      expect(await lab.guest.command({ kind: 'mac-addr-set', mac })).toBe(VIRTIO_NET_ERR);
      expect(lab.guest.mmio.config().mac).toBe(GUEST_MAC);
      expect(await lab.deliver(both())).toEqual(['before']);
    }
  });

  test('a reset of the device lets everything through again', async () => {
    await lab.say({ kind: 'rx-mode', mode: 'promisc', on: false }, { kind: 'mac-addr-set', mac: OTHER });
    await lab.say({ kind: 'rx-mode', mode: 'nouni', on: true });
    expect(await lab.deliver(everyKind())).toEqual(['broadcast']);
    await lab.restart();
    expect(lab.guest.mmio.config().mac).toBe(GUEST_MAC);
    expect(await lab.deliver(everyKind())).toEqual(namesOf(everyKind()));
    await lab.say({ kind: 'rx-mode', mode: 'promisc', on: false });
    expect(await lab.deliver(everyKind())).toEqual(['first', 'broadcast']);
  });
});

test('a filter program that is never attached is found out', async () => {
  const tapFaults = new FaultPlan().skip('TUNATTACHFILTER', { times: Number.POSITIVE_INFINITY });
  await using lab = await ControlLab.create(controlPaths()[0]!, { tapFaults });
  await expect(expectEveryMode(lab)).rejects.toThrow('other');
  expect(tapFaults.struck).toContain('TUNATTACHFILTER');
});

/** The VLAN table as traffic: tags travel in metadata over the bridge and reach the guest in the frame, on every data path. */
import { VIRTIO_NET_F_CTRL_VLAN } from '../../lib/constants/virtio-net';
import { VIRTIO_NET_ERR } from '../../lib/constants/virtio-net-ctrl';
import { bit, hasBit } from '../../lib/net/features';
import { BROADCAST, type Named, named, namesOf, OTHER, tagged } from '../helpers/control-frames';
import { ControlLab, controlPaths, expectFiltered } from '../helpers/control-lab';
import { GUEST_MAC } from '../helpers/device-rig';

const VIDS = [0, 1, 5, 6, 31, 32, 1000, 4094, 4095];

/** Tags of every priority; one of another kind, which is not filtered; and none. */
const frames = (): Named[] => [
  named('untagged', GUEST_MAC),
  named('untagged broadcast', BROADCAST),
  ...VIDS.map((vid) => named(`VLAN ${vid}`, GUEST_MAC, tagged(vid, 0x8100, vid % 8))),
  named('broadcast in VLAN 5', BROADCAST, tagged(5)),
  named('802.1ad', GUEST_MAC, tagged(5, 0x88a8)),
  named('other', OTHER, tagged(5)),
];
const ALWAYS = ['untagged', 'untagged broadcast', '802.1ad'];

describe.each(controlPaths())('$name', (path) => {
  let lab: ControlLab;
  beforeAll(async () => {
    lab = await ControlLab.create(path);
  });
  afterAll(() => lab.close());
  beforeEach(() => lab.restart());

  test('only identifiers that were added pass, inline and as they were sent; without a tag everything does', async () => {
    await lab.say({ kind: 'rx-mode', mode: 'promisc', on: false });
    expect(await lab.deliver(frames())).toEqual(ALWAYS);
    for (const vid of VIDS) {
      await lab.say({ kind: 'vlan-add', vid });
      await expectFiltered(lab, frames());
    }
    for (const vid of [5, 4095, 0, 1000, 1]) {
      await lab.say({ kind: 'vlan-del', vid });
      await expectFiltered(lab, frames());
    }
    const left = await lab.deliver(frames());
    expect(left.filter((name) => name.startsWith('VLAN'))).toEqual(['VLAN 6', 'VLAN 31', 'VLAN 32', 'VLAN 4094']);
  });

  test('adding twice is adding once, deleting what is not there is nothing, and there is no VLAN 4096', async () => {
    await lab.say({ kind: 'rx-mode', mode: 'promisc', on: false }, { kind: 'vlan-del', vid: 7 });
    await lab.say({ kind: 'vlan-add', vid: 5 }, { kind: 'vlan-add', vid: 5 }, { kind: 'vlan-del', vid: 5 });
    expect(await lab.guest.command({ kind: 'vlan-add', vid: 4096 })).toBe(VIRTIO_NET_ERR);
    expect(await lab.guest.command({ kind: 'vlan-add', vid: 4096 + 5 })).toBe(VIRTIO_NET_ERR);
    expect(await lab.deliver(frames())).toEqual(ALWAYS);
  });

  test('one identifier of every word of the table, and not its neighbour', async () => {
    await lab.say({ kind: 'rx-mode', mode: 'promisc', on: false });
    const vids = Array.from({ length: 128 }, (_, word) => 32 * word + (word % 32));
    for (const vid of vids) await lab.say({ kind: 'vlan-add', vid });
    const around = vids.flatMap((vid) => [vid, vid ^ 1]);
    const sent = around.map((vid) => named(`${vid}`, GUEST_MAC, tagged(vid)));
    expect(lab.wanted(sent)).toEqual(vids.map(String));
    await expectFiltered(lab, sent);
  });

  test('a promiscuous guest is given every tag, and the table holds as soon as it no longer is', async () => {
    await lab.say({ kind: 'vlan-add', vid: 6 });
    expect(await lab.deliver(frames())).toEqual(namesOf(frames()));
    await lab.say({ kind: 'rx-mode', mode: 'promisc', on: false });
    const [first, second, ...rest] = ALWAYS;
    expect(await lab.deliver(frames())).toEqual([first, second, 'VLAN 6', ...rest]);
  });

  test('a reset of the device empties the table', async () => {
    await lab.say({ kind: 'vlan-add', vid: 6 }, { kind: 'rx-mode', mode: 'promisc', on: false });
    await lab.restart();
    await lab.say({ kind: 'rx-mode', mode: 'promisc', on: false });
    expect(await lab.deliver(frames())).toEqual(ALWAYS);
  });

  test('a driver that does not filter VLANs is given them all', async () => {
    await lab.restart({ wanted: path.wanted & ~bit(VIRTIO_NET_F_CTRL_VLAN) });
    expect(hasBit(lab.guest.features, VIRTIO_NET_F_CTRL_VLAN)).toBe(false);
    expect(await lab.guest.command({ kind: 'vlan-add', vid: 5 })).toBe(VIRTIO_NET_ERR);
    await lab.say({ kind: 'rx-mode', mode: 'promisc', on: false });
    const names = namesOf(frames());
    expect(await lab.deliver(frames())).toEqual(names.filter((name) => name !== 'other'));
  });
});

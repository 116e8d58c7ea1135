/** A tap that refuses what a command needs: the command is answered VIRTIO_NET_ERR, the filter before is in force, the next one works. */
import { constants } from 'node:os';
import { VIRTIO_NET_ERR } from '../../lib/constants/virtio-net-ctrl';
import type { ControlCommand } from '../../lib/net/control-command';
import { type FailOptions, FaultPlan } from '../../lib/trace/fault-plan';
import { macTable } from '../helpers/control-commands';
import { everyKind, GROUP, namesOf, narrow, OTHER } from '../helpers/control-frames';
import { ControlLab, expectFiltered, splitPaths } from '../helpers/control-lab';
import { GUEST_MAC } from '../helpers/device-rig';

const { ENOMEM } = constants.errno;
const COMMANDS: readonly ControlCommand[] = [
  { kind: 'rx-mode', mode: 'promisc', on: true },
  { kind: 'rx-mode', mode: 'nouni', on: true },
  macTable([OTHER], []),
  { kind: 'mac-addr-set', mac: GUEST_MAC },
  { kind: 'vlan-add', vid: 6 },
  { kind: 'vlan-del', vid: 5 },
];

/** What the tap does: refuses once; refuses what puts the old filter back too; takes the program and says that it did not. */
const REFUSALS: readonly [string, FailOptions][] = [
  ['refused', { errno: ENOMEM }],
  ['refused twice', { errno: ENOMEM, times: 2 }],
  ['taken, and reported as refused', { errno: ENOMEM, after: true }],
];

describe.each(splitPaths())('$name', (path) => {
  const tapFaults = new FaultPlan();
  let lab: ControlLab;
  beforeAll(async () => {
    lab = await ControlLab.create(path, { tapFaults });
  });
  afterAll(() => lab.close());
  beforeEach(() => lab.restart());
  afterEach(() => {
    tapFaults.clear();
  });

  async function expectRefused(command: ControlCommand, how: FailOptions): Promise<void> {
    const { trace } = lab.rig;
    const struck = tapFaults.struck.length;
    const config = lab.guest.mmio.config();
    trace.clear();
    tapFaults.fail('TUNATTACHFILTER', how);
    expect([command, await lab.guest.command(command)]).toEqual([command, VIRTIO_NET_ERR]);
    expect(tapFaults.struck.length).toBe(struck + (how.times ?? 1));
    tapFaults.clear();
    expect(trace.records.filter(({ kind }) => kind === 'fault')).toMatchObject([{ object: 'control queue' }]);
    expect(lab.guest.mmio.config()).toEqual(config);
    await expectFiltered(lab, everyKind());
  }

  test.each(REFUSALS)('a program that is %s', async (_, how) => {
    // The first program of all: before it there is none to be put back.
    await expectRefused({ kind: 'rx-mode', mode: 'promisc', on: false }, how);
    await narrow(lab);
    for (const command of COMMANDS) {
      await expectRefused(command, how);
      await lab.say({ kind: 'rx-mode', mode: 'allmulti', on: true });
      await expectFiltered(lab, everyKind());
      await lab.say({ kind: 'rx-mode', mode: 'allmulti', on: false });
    }
    await lab.say(...COMMANDS);
    await expectFiltered(lab, everyKind());
  });

  test('a program that was taken twice and reported as refused twice: the next command puts everything right', async () => {
    await narrow(lab);
    tapFaults.fail('TUNATTACHFILTER', { errno: ENOMEM, after: true, times: 2 });
    expect(await lab.guest.command(macTable([OTHER], []))).toBe(VIRTIO_NET_ERR);
    await expectFiltered(lab, everyKind());
    await lab.say({ kind: 'rx-mode', mode: 'alluni', on: true });
    await expectFiltered(lab, everyKind());
  });

  test('a cable that cannot be pulled is not pulled', async () => {
    await lab.say(macTable([], [GROUP]), { kind: 'rx-mode', mode: 'promisc', on: false });
    for (const name of ['TUNATTACHFILTER', 'TUNSETCARRIER']) {
      tapFaults.clear().fail(name, { errno: ENOMEM });
      await expect(lab.rig.device.setLink(false)).rejects.toMatchObject({ code: 'ENOMEM' });
      expect(lab.rig.device.linkUp).toBe(true);
      expect(lab.guest.mmio.config().linkUp).toBe(true);
      await expectFiltered(lab, everyKind());
    }
    await lab.say({ kind: 'rx-mode', mode: 'promisc', on: true });
    expect(await lab.deliver(everyKind())).toEqual(namesOf(everyKind()));
  });
});

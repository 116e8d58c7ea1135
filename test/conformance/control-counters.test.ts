/** One story of commands and frames on every data path: what reached the rings and what the tap counted are equal, frame for frame. */
import fc from 'fast-check';
import { type ControlCommand, RX_MODES } from '../../lib/net/control-command';
import { macTable } from '../helpers/control-commands';
import { everyKind, GROUP, LISTED, NEW_MAC, OTHER, OTHER_GROUP } from '../helpers/control-frames';
import { ControlLab, type ControlPath, controlPaths } from '../helpers/control-lab';
import { GUEST_MAC } from '../helpers/device-rig';

const ROUNDS = 40;

const command: fc.Arbitrary<ControlCommand> = fc.oneof(
  fc.record({ kind: fc.constant('rx-mode' as const), mode: fc.constantFrom(...RX_MODES), on: fc.boolean() }),
  fc
    .tuple(fc.subarray([OTHER, LISTED]), fc.subarray([GROUP, OTHER_GROUP]))
    .map(([unicast, multicast]) => macTable(unicast, multicast)),
  fc.record({ kind: fc.constant('mac-addr-set' as const), mac: fc.constantFrom(GUEST_MAC, NEW_MAC) }),
  fc.record({ kind: fc.constantFrom('vlan-add' as const, 'vlan-del' as const), vid: fc.constantFrom(5, 6) }),
);
const STORY: readonly ControlCommand[] = [
  { kind: 'rx-mode', mode: 'promisc', on: false },
  ...fc.sample(command, { seed: 7, numRuns: ROUNDS }),
];

interface Account {
  arrived: string[][];
  tap: { packets: number; bytes: number; dropped: number };
}

async function live(path: ControlPath): Promise<Account> {
  await using lab = await ControlLab.create(path);
  const before = lab.counters.read();
  const arrived: string[][] = [];
  for (const one of STORY) {
    await lab.say(one);
    const frames = everyKind();
    const got = await lab.deliver(frames);
    expect(got).toEqual(lab.wanted(frames));
    arrived.push(got);
  }
  const after = lab.counters.read();
  const tap = {
    packets: after.packets - before.packets,
    bytes: after.bytes - before.bytes,
    dropped: after.dropped - before.dropped,
  };
  return { arrived, tap };
}

test('the same frames reach the rings, and the same counts are on the tap, whatever carries them', async () => {
  const accounts: Account[] = [];
  for (const path of controlPaths()) accounts.push(await live(path));
  expect(accounts.length).toBeGreaterThan(1);
  for (const account of accounts) expect(account).toEqual(accounts[0]);
  const { arrived, tap } = accounts[0]!;
  const frames = arrived.flat().length;
  expect(tap).toMatchObject({ packets: frames, dropped: STORY.length * everyKind().length - frames });
  expect(Math.min(frames, tap.dropped)).toBeGreaterThan(100);
});

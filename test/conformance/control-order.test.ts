/** A command is answered when it has its effect and not before: what the network sends after the ack already meets the new filter. */
import type { ControlCommand } from '../../lib/net/control-command';
import { macTable } from '../helpers/control-commands';
import { BROADCAST, GROUP, named, OTHER, tagged } from '../helpers/control-frames';
import { ControlLab, controlPaths } from '../helpers/control-lab';
import { GUEST_MAC } from '../helpers/device-rig';

const ROUNDS = 200;
const PATIENCE_MS = 20_000;

interface Door {
  open: ControlCommand;
  shut: ControlCommand;
  /** Passes while it is open. */
  frame: [destination: string, afterAddresses?: readonly number[]];
}

/** Every kind of command that lets frames in or keeps them out. */
const DOORS: readonly Door[] = [
  {
    open: { kind: 'rx-mode', mode: 'promisc', on: true },
    shut: { kind: 'rx-mode', mode: 'promisc', on: false },
    frame: [OTHER],
  },
  { open: macTable([OTHER], []), shut: macTable([], []), frame: [OTHER] },
  { open: macTable([], [GROUP]), shut: macTable([], []), frame: [GROUP] },
  { open: { kind: 'vlan-add', vid: 5 }, shut: { kind: 'vlan-del', vid: 5 }, frame: [GUEST_MAC, tagged(5)] },
  { open: { kind: 'mac-addr-set', mac: OTHER }, shut: { kind: 'mac-addr-set', mac: GUEST_MAC }, frame: [OTHER] },
  {
    open: { kind: 'rx-mode', mode: 'allmulti', on: true },
    shut: { kind: 'rx-mode', mode: 'allmulti', on: false },
    frame: [GROUP],
  },
  {
    open: { kind: 'rx-mode', mode: 'nobcast', on: false },
    shut: { kind: 'rx-mode', mode: 'nobcast', on: true },
    frame: [BROADCAST],
  },
];

/** A frame follows each ack at once, and an own one ends the round: what passed a filter stays in the order it was sent in. */
async function expectEffectBeforeAck(lab: ControlLab, rounds: number): Promise<void> {
  await lab.say({ kind: 'rx-mode', mode: 'promisc', on: false }, { kind: 'rx-mode', mode: 'nobcast', on: true });
  for (let round = 0; round < rounds; round++) {
    const { open, shut, frame } = DOORS[round % DOORS.length]!;
    const what = `${open.kind} of round ${round}`;
    const inside = named(`after ${what}`, ...frame);
    const outside = named(`after the end of ${what}`, ...frame);
    const last = named('last', GUEST_MAC);
    const sent = [inside, outside, last];
    await lab.say(open);
    lab.write([inside]);
    await lab.say(shut);
    lab.write([outside, last]);
    const got: string[] = [];
    const deadline = performance.now() + PATIENCE_MS;
    while (!got.includes('last')) {
      if (performance.now() > deadline) throw new Error(`round ${round} has no end: ${got}`);
      await new Promise((resolve) => setImmediate(resolve));
      got.push(...lab.taken(sent));
    }
    expect(got).toEqual([inside.name, 'last']);
  }
}

describe.each(controlPaths())('$name', (path) => {
  let lab: ControlLab;
  beforeAll(async () => {
    lab = await ControlLab.create(path);
  });
  afterAll(() => lab.close());
  beforeEach(() => lab.restart());

  test(`${ROUNDS} rounds of letting in and keeping out`, () => expectEffectBeforeAck(lab, ROUNDS));

  test('an ack that comes before the effect is found out', async () => {
    const { backend } = lab.rig.device;
    const original = backend.settingsChanged;
    let late = 0;
    const spy = jest.spyOn(backend, 'settingsChanged').mockImplementation(async () => {
      late++;
    });
    await expect(expectEffectBeforeAck(lab, 1)).rejects.toThrow('after the end of rx-mode of round 0');
    expect(late).toBe(4);
    spy.mockRestore();
    expect(backend.settingsChanged).toBe(original);
    await backend.settingsChanged();
    await lab.quiet();
    expect(await lab.deliver([named('foreign', OTHER), named('own', GUEST_MAC)])).toEqual(['own']);
  });
});

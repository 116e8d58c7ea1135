/** Frames of every kind that a receive filter tells apart, by name; and commands that let some of them through. */
import { macTable } from './control-commands';
import type { ControlLab } from './control-lab';
import { GUEST_MAC } from './device-rig';
import { frameTo } from './receive-filters';

/** A frame by the name it has in what tests compare. */
export interface Named {
  readonly name: string;
  readonly frame: Uint8Array;
}

/** After both addresses: of the default EtherType, behind a tag of 802.1Q, behind one of 802.1ad. */
const UNTAGGED = [0x88, 0xb5];
export const tagged = (vid: number, tpid = 0x8100, priority = 0): number[] => [
  tpid >> 8,
  tpid & 0xff,
  (priority << 5) | (vid >> 8),
  vid & 0xff,
  0x88,
  0xb5,
];
/** No address of a test, so that the bridge learns nothing from it. */
const SOURCE = [0x06, 0, 0, 0, 0, 0x77];
const STAMP_AT = 24;
let stamps = 0;

/** No two frames are alike: a stamp in the payload tells them apart. */
export function named(name: string, destination: string, afterAddresses: readonly number[] = UNTAGGED): Named {
  const frame = frameTo(destination, ...afterAddresses);
  frame.set(SOURCE, 6);
  new DataView(frame.buffer).setUint32(STAMP_AT, ++stamps);
  return { name, frame };
}

/** Unicast addresses: of nobody here, in the MAC table, and what the device is told to have. */
export const OTHER = '02:00:00:00:00:99';
export const LISTED = '0a:00:00:00:00:01';
export const NEW_MAC = '02:00:00:00:00:42';
/** Multicast addresses, in the MAC table and not. */
export const GROUP = '33:33:00:00:00:01';
export const OTHER_GROUP = '01:00:5e:00:00:01';
export const BROADCAST = 'ff:ff:ff:ff:ff:ff';

export const everyKind = (): Named[] => [
  named('first', GUEST_MAC),
  named('other', OTHER),
  named('listed', LISTED),
  named('new', NEW_MAC),
  named('group', OTHER_GROUP),
  named('listed group', GROUP),
  named('broadcast', BROADCAST),
  named('first, VLAN 5', GUEST_MAC, tagged(5)),
  named('new, VLAN 5', NEW_MAC, tagged(5)),
  named('new, VLAN 6', NEW_MAC, tagged(6)),
];
export const namesOf = (frames: readonly Named[]): string[] => frames.map(({ name }) => name);

/** A command of every kind that changes the filter. */
export async function narrow(lab: ControlLab): Promise<void> {
  await lab.say(
    { kind: 'rx-mode', mode: 'promisc', on: false },
    { kind: 'rx-mode', mode: 'nobcast', on: true },
    macTable([LISTED], [GROUP]),
    { kind: 'mac-addr-set', mac: NEW_MAC },
    { kind: 'vlan-add', vid: 5 },
  );
}
/** What is left of `everyKind` then. */
export const LET_THROUGH = ['listed', 'new', 'listed group', 'new, VLAN 5'];

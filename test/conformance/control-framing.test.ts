/** One command of every class in every framing there is (virtio 1.4 section 2.7.4.1), over rings of every format and indirect tables. */

import { isDeepStrictEqual } from 'node:util';
import * as net from '../../lib/constants/virtio-net';
import { VIRTIO_NET_OK } from '../../lib/constants/virtio-net-ctrl';
import { type ControlCommand, encodeControlCommand } from '../../lib/net/control-command';
import { GUEST_OFFLOADS } from '../../lib/net/feature-rules';
import { bits } from '../../lib/net/features';
import type { ControlRecord } from '../../lib/trace/trace';
import { everyKind, NEW_MAC, namesOf } from '../helpers/control-frames';
import { UNWRITTEN } from '../helpers/control-guest';
import { ControlLab, controlPaths, expectFiltered } from '../helpers/control-lab';
import { GUEST_MAC } from '../helpers/device-rig';

/** Every way to cut `bytes` into descriptors: 2 to the power of the places where a cut may be. */
function framings(bytes: number): number[][] {
  return Array.from({ length: 2 ** (bytes - 1) }, (_, cuts) => {
    const lengths = [1];
    for (let at = 0; at < bytes - 1; at++) {
      if ((cuts & (1 << at)) !== 0) lengths.push(1);
      else lengths.push(lengths.pop()! + 1);
    }
    return lengths;
  });
}

test('there are as many framings as there should be, each of all bytes', () => {
  expect(framings(3)).toEqual([[3], [1, 2], [2, 1], [1, 1, 1]]);
  const ten = framings(10);
  expect(new Set(ten.map(String)).size).toBe(512);
  expect(ten.every((lengths) => lengths.reduce((a, b) => a + b) === 10)).toBe(true);
});

/** What the device may write: the ack alone, more than it, and that cut. */
const WRITABLE = [[1], [8], [1, 1, 2], [3, 5]];
/** Of the same command 4 chains in a row: all but the first have nothing to change, which is quick. */
const TURN_SHIFT = 2;
const SOME_OFFLOADS = bits(net.VIRTIO_NET_F_GUEST_CSUM);

/** Whether the device understood the command that was sent. */
function same(record: ControlRecord, { kind, ...args }: ControlCommand): boolean {
  return record.command === kind && record.ack === VIRTIO_NET_OK && isDeepStrictEqual(record.args, args);
}

interface Class {
  name: string;
  /** Two commands, each of which undoes the other. */
  turns: readonly [ControlCommand, ControlCommand];
  /** Before each command. */
  before?: (lab: ControlLab) => void;
}
const CLASSES: readonly Class[] = [
  {
    name: 'RX',
    turns: [
      { kind: 'rx-mode', mode: 'promisc', on: false },
      { kind: 'rx-mode', mode: 'promisc', on: true },
    ],
  },
  {
    name: 'MAC',
    turns: [
      { kind: 'mac-addr-set', mac: NEW_MAC },
      { kind: 'mac-addr-set', mac: GUEST_MAC },
    ],
  },
  {
    name: 'VLAN',
    turns: [
      { kind: 'vlan-add', vid: 0x5a5 },
      { kind: 'vlan-del', vid: 0x5a5 },
    ],
  },
  {
    name: 'ANNOUNCE',
    turns: [{ kind: 'announce-ack' }, { kind: 'announce-ack' }],
    before: (lab) => expect(lab.rig.device.announce()).toBe(true),
  },
  {
    name: 'MQ',
    turns: [
      { kind: 'mq-vq-pairs-set', pairs: 2 },
      { kind: 'mq-vq-pairs-set', pairs: 1 },
    ],
  },
  {
    name: 'GUEST_OFFLOADS',
    turns: [
      { kind: 'guest-offloads-set', offloads: SOME_OFFLOADS },
      { kind: 'guest-offloads-set', offloads: 0n },
    ],
  },
];

describe.each(controlPaths())('$name', (path) => {
  let lab: ControlLab;
  beforeAll(async () => {
    lab = await ControlLab.create(path, { pairs: 2 });
  });
  afterAll(() => lab.close());

  describe.each([false, true])('indirect: %s', (indirect) => {
    beforeAll(() => lab.restart({ indirect }));

    test.each(CLASSES)('$name', async ({ turns, before }) => {
      const { trace } = lab.rig;
      const cuts = framings(encodeControlCommand(turns[0]).length);
      const wrong: unknown[] = [];
      let turn = 0;
      for (const [index, readable] of cuts.entries()) {
        for (const writable of cuts.length > 8 ? [WRITABLE[index % WRITABLE.length]!] : WRITABLE) {
          const command = turns[(turn++ >> TURN_SHIFT) & 1]!;
          before?.(lab);
          trace.clear();
          const { written, length } = await lab.guest.request(encodeControlCommand(command), { readable, writable });
          const [ack, ...behind] = written;
          const done = trace.records.filter((one) => one.kind === 'control');
          const right = ack === VIRTIO_NET_OK && length === 1 && behind.every((byte) => byte === UNWRITTEN);
          if (!right || done.length !== 1 || !same(done[0]!, command))
            wrong.push({ readable, writable, written, length, done });
        }
      }
      expect(wrong).toEqual([]);
      expect(turn).toBe(cuts.length * (cuts.length > 8 ? 1 : WRITABLE.length));
    });

    test('what the last of them mean holds', async () => {
      const { device, trace } = lab.rig;
      expect([device.mac, device.activePairs]).toEqual([GUEST_MAC, 1]);
      expect(lab.guest.mmio.config().announce).toBe(false);
      expect(await lab.deliver(everyKind())).toEqual(namesOf(everyKind()));
      await lab.say({ kind: 'rx-mode', mode: 'promisc', on: false });
      await expectFiltered(lab, everyKind());
      trace.clear();
      await lab.say({ kind: 'guest-offloads-set', offloads: lab.guest.features & GUEST_OFFLOADS });
      expect(trace.ioctls()).toContain('TUNSETOFFLOAD');
    });
  });
});

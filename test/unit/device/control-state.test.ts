import * as net from '../../../lib/constants/virtio-net';
import {
  applyCommand,
  type ControlChange,
  type ControlState,
  initialControlState,
} from '../../../lib/device/control-state';
import type { ControlCommand } from '../../../lib/net/control-command';
import { bit, bits } from '../../../lib/net/features';
import type { ReceiveFilter } from '../../../lib/net/receive-filter';
import { macs, macTable } from '../../helpers/control-commands';

const MAC = '02:00:00:00:00:01';
const OFFLOADS = [1, 7, 8, 9, 10, 54, 55];
const CONTROLS = [
  net.VIRTIO_NET_F_CTRL_GUEST_OFFLOADS,
  net.VIRTIO_NET_F_CTRL_VQ,
  net.VIRTIO_NET_F_CTRL_RX,
  net.VIRTIO_NET_F_CTRL_VLAN,
  net.VIRTIO_NET_F_CTRL_RX_EXTRA,
  net.VIRTIO_NET_F_GUEST_ANNOUNCE,
  net.VIRTIO_NET_F_MQ,
  net.VIRTIO_NET_F_CTRL_MAC_ADDR,
];
const ALL = bits(...CONTROLS, ...OFFLOADS);
const context = { features: ALL, maxPairs: 4 };

const initial = (features = ALL): ControlState => initialControlState(MAC, features);
const announcing = (features = ALL): ControlState => ({ ...initial(features), announcePending: true });

/** Every object of the state, so that a write to any of them throws; typed arrays cannot be frozen and are compared. */
function frozen(state: ControlState): ControlState {
  Object.freeze(state.receiveFilter.unicast);
  Object.freeze(state.receiveFilter.multicast);
  Object.freeze(state.receiveFilter);
  return Object.freeze(state);
}

function apply(state: ControlState, command: ControlCommand, features = ALL) {
  const before = structuredClone(state);
  const answer = applyCommand(frozen(state), command, { ...context, features });
  expect(state).toEqual(before);
  return answer;
}

function filterAfter(state: ControlState, command: ControlCommand): ReceiveFilter {
  const answer = apply(state, command);
  if (answer === 'error') throw new Error(`${command.kind} was refused`);
  return answer.state.receiveFilter;
}

describe('after a reset', () => {
  test('everything passes but tagged frames', () => {
    expect(initial()).toEqual({
      receiveFilter: {
        promiscuous: true,
        allMulticast: false,
        allUnicast: false,
        noMulticast: false,
        noUnicast: false,
        noBroadcast: false,
        mac: MAC,
        unicast: [],
        multicast: [],
        unicastOverflow: false,
        multicastOverflow: false,
        vlans: new Uint8Array(512),
      },
      activePairs: 1,
      guestOffloads: bits(...OFFLOADS),
      announcePending: false,
    });
  });

  test('VLANs are not filtered without their feature, and only acked offloads are on', () => {
    const state = initial(bits(net.VIRTIO_NET_F_GUEST_CSUM, net.VIRTIO_NET_F_GUEST_TSO6, net.VIRTIO_NET_F_HOST_TSO4));
    expect(state.receiveFilter.vlans).toBeNull();
    expect(state.guestOffloads).toBe(bits(1, 8));
  });
});

interface Row {
  command: ControlCommand;
  feature: number;
  change: ControlChange;
  /** What the state differs in from the one before. */
  becomes: Partial<Omit<ControlState, 'receiveFilter'>> & { receiveFilter?: Partial<ReceiveFilter> };
}

const mode = (
  name: (ControlCommand & { kind: 'rx-mode' })['mode'],
  field: keyof ReceiveFilter,
  feature: number,
): Row => {
  const on = name !== 'promisc';
  return {
    command: { kind: 'rx-mode', mode: name, on },
    feature,
    change: 'filter',
    becomes: { receiveFilter: { [field]: on } },
  };
};

const vlan5 = new Uint8Array(512);
vlan5[0] = 0x20;

const ROWS: Row[] = [
  mode('promisc', 'promiscuous', net.VIRTIO_NET_F_CTRL_RX),
  mode('allmulti', 'allMulticast', net.VIRTIO_NET_F_CTRL_RX),
  mode('alluni', 'allUnicast', net.VIRTIO_NET_F_CTRL_RX_EXTRA),
  mode('nomulti', 'noMulticast', net.VIRTIO_NET_F_CTRL_RX_EXTRA),
  mode('nouni', 'noUnicast', net.VIRTIO_NET_F_CTRL_RX_EXTRA),
  mode('nobcast', 'noBroadcast', net.VIRTIO_NET_F_CTRL_RX_EXTRA),
  {
    command: macTable(macs(2), [], false, true),
    feature: net.VIRTIO_NET_F_CTRL_RX,
    change: 'filter',
    becomes: { receiveFilter: { unicast: macs(2), multicastOverflow: true } },
  },
  {
    command: { kind: 'mac-addr-set', mac: '02:00:00:00:00:99' },
    feature: net.VIRTIO_NET_F_CTRL_MAC_ADDR,
    change: 'mac',
    becomes: { receiveFilter: { mac: '02:00:00:00:00:99' } },
  },
  {
    command: { kind: 'vlan-add', vid: 5 },
    feature: net.VIRTIO_NET_F_CTRL_VLAN,
    change: 'filter',
    becomes: { receiveFilter: { vlans: vlan5 } },
  },
  { command: { kind: 'vlan-del', vid: 5 }, feature: net.VIRTIO_NET_F_CTRL_VLAN, change: null, becomes: {} },
  {
    command: { kind: 'announce-ack' },
    feature: net.VIRTIO_NET_F_GUEST_ANNOUNCE,
    change: 'announce-ack',
    becomes: { announcePending: false },
  },
  {
    command: { kind: 'mq-vq-pairs-set', pairs: 4 },
    feature: net.VIRTIO_NET_F_MQ,
    change: 'pairs',
    becomes: { activePairs: 4 },
  },
  {
    command: { kind: 'guest-offloads-set', offloads: bits(1, 7) },
    feature: net.VIRTIO_NET_F_CTRL_GUEST_OFFLOADS,
    change: 'offloads',
    becomes: { guestOffloads: bits(1, 7) },
  },
];

describe.each(ROWS)('$command', ({ command, feature, change, becomes }) => {
  test('changes its part, nothing else, and not the state before', () => {
    const state = announcing();
    const { receiveFilter, ...rest } = becomes;
    expect(apply(state, command)).toEqual({
      state: { ...state, ...rest, receiveFilter: { ...state.receiveFilter, ...receiveFilter } },
      change,
    });
  });

  test('needs its feature and no other control feature', () => {
    const offloads = bits(...OFFLOADS);
    for (const other of CONTROLS) {
      const without = apply(announcing(), command, ALL & ~bit(other));
      expect(without === 'error').toBe(other === feature);
      const alone = apply(announcing(), command, offloads | bit(other));
      expect(alone === 'error').toBe(other !== feature);
    }
  });

  test('twice changes nothing the second time', () => {
    const first = apply(announcing(), command);
    if (first === 'error') throw new Error('refused');
    const second = apply({ ...first.state, announcePending: true }, command);
    const again = command.kind === 'mac-table-set' ? 'filter' : command.kind === 'announce-ack' ? 'announce-ack' : null;
    expect(second).toMatchObject({ change: again });
  });
});

test('a table replaces the one before, overflow included', () => {
  const first = filterAfter(initial(), macTable(macs(3), [], false, true));
  const second = filterAfter({ ...initial(), receiveFilter: first }, macTable([], macs(1, 1)));
  expect(second).toMatchObject({
    unicast: [],
    multicast: macs(1, 1),
    unicastOverflow: false,
    multicastOverflow: false,
  });
});

test('every VLAN has its own bit', () => {
  let state = initial();
  for (let vid = 0; vid < 4096; vid++) {
    const answer = applyCommand(state, { kind: 'vlan-add', vid }, context);
    if (answer === 'error') throw new Error(`VLAN ${vid} was refused`);
    const { vlans } = answer.state.receiveFilter;
    if ((vlans![vid >> 3]! & (1 << (vid & 7))) === 0) throw new Error(`VLAN ${vid} has no bit`);
    expect(answer.change).toBe('filter');
    state = answer.state;
  }
  expect(state.receiveFilter.vlans).toEqual(new Uint8Array(512).fill(0xff));
  const without = filterAfter(state, { kind: 'vlan-del', vid: 4095 }).vlans!;
  expect([without[510], without[511]]).toEqual([0xff, 0x7f]);
});

test('a VLAN table that a saved state lacks is no crash', () => {
  const state = { ...initial(), receiveFilter: { ...initial().receiveFilter, vlans: null } };
  expect(apply(state, { kind: 'vlan-add', vid: 1 })).toBe('error');
  for (const vid of [-1, 4096]) expect(apply(initial(), { kind: 'vlan-add', vid })).toBe('error');
});

test.each(['01:00:5e:00:00:01', '33:33:00:00:00:01', 'ff:ff:ff:ff:ff:ff', '03:00:00:00:00:00', '00:00:00:00:00:00'])(
  '%s is no address of a station',
  (mac) => {
    expect(apply(initial(), { kind: 'mac-addr-set', mac })).toBe('error');
  },
);

test.each([0, 5, 0x8000, 0xffff])('%i pairs of 4', (pairs) => {
  expect(apply(initial(), { kind: 'mq-vq-pairs-set', pairs })).toBe('error');
});

test.each([1, 2, 3, 4])('%i pairs of 4 are possible', (pairs) => {
  expect(apply(initial(), { kind: 'mq-vq-pairs-set', pairs })).toMatchObject({ state: { activePairs: pairs } });
});

test('an ack of nothing', () => {
  expect(apply(initial(), { kind: 'announce-ack' })).toBe('error');
});

describe('offloads', () => {
  const set = (offloads: bigint, features = ALL) =>
    apply(initial(), { kind: 'guest-offloads-set', offloads }, features);

  test.each([[[]], [[1]], [OFFLOADS], [[1, 7, 9]], [[1, 8, 9]], [[1, 54, 55]], [[1, 10]]])('%j', (on) => {
    expect(set(bits(...on))).toMatchObject({ state: { guestOffloads: bits(...on) } });
  });

  test.each([
    [[7]],
    [[8]],
    [[10]],
    [[54]],
    [[55]],
    [[1, 9]],
    [[9]],
    [[1, 9, 54]],
    [[0]],
    [[1, 11]],
    [[1, 63]],
    [[1, 46]],
  ])('%j cannot be', (on) => {
    expect(set(bits(...on))).toBe('error');
  });

  test.each(OFFLOADS)('%i was not acked', (feature) => {
    const others = bits(...OFFLOADS) & ~bit(feature);
    expect(set(bits(1, 7, 9) | bit(feature), ALL & ~bit(feature))).toBe('error');
    if (feature !== 1) expect(set(others & ~bits(9), ALL & ~bit(feature))).not.toBe('error');
  });

  test('offloads of tunnels need all four of segmentation', () => {
    const features = ALL | bits(65, 66);
    expect(set(bits(1, 7, 8, 54, 55, 65, 66), features)).toMatchObject({
      state: { guestOffloads: bits(1, 7, 8, 54, 55, 65, 66) },
    });
    expect(set(bits(1, 7, 8, 54, 55, 65), ALL)).toBe('error');
    expect(set(bits(1, 7, 8, 54, 65), features)).toBe('error');
    expect(set(bits(1, 7, 8, 54, 55, 66), features)).toBe('error');
  });

  test('GUEST_HDRLEN is let through when acked and is no offload', () => {
    const hdrlen = bit(net.VIRTIO_NET_F_GUEST_HDRLEN);
    expect(set(bits(1, 7) | hdrlen)).toBe('error');
    expect(set(bits(1, 7) | hdrlen, ALL | hdrlen)).toMatchObject({ state: { guestOffloads: bits(1, 7) } });
  });
});

test.each([
  [4, 1],
  [6, 0],
  [0, 6],
])('class %i command %i is not served', (klass, command) => {
  expect(apply(initial(), { kind: 'unknown', class: klass, command })).toBe('error');
});

test('a failed effect leaves the state to go on from', () => {
  const before = initial();
  const tried = apply(before, { kind: 'vlan-add', vid: 9 });
  const next = apply(before, { kind: 'vlan-add', vid: 10 });
  if (tried === 'error' || next === 'error') throw new Error('refused');
  expect([tried.state.receiveFilter.vlans![1], next.state.receiveFilter.vlans![1]]).toEqual([2, 4]);
  expect(before.receiveFilter.vlans).toEqual(new Uint8Array(512));
});

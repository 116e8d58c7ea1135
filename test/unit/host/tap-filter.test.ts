/**
 * Receive filter programs in the kernel, on a tap in a namespace made for the purpose. Frames come over a bridge, which carries their tag in
 * metadata, and from a packet socket on the tap itself, which leaves it in the frame.
 */
import {
  BPF_ABS,
  BPF_JEQ,
  BPF_K,
  BPF_LD,
  BPF_RET,
  BPF_W,
  SKF_AD_OFF,
  SKF_AD_VLAN_TAG_PRESENT,
} from '../../../lib/constants/bpf';
import { IFF_NO_PI, IFF_TAP } from '../../../lib/constants/if-tun';
import { Netns } from '../../../lib/host/netns';
import { Tap } from '../../../lib/host/tap';
import { BpfAssembler } from '../../../lib/net/bpf-assembler';
import { acceptsFrame, type ReceiveFilter } from '../../../lib/net/receive-filter';
import { ACCEPT_ALL, DROP_ALL, receiveFilterProgram } from '../../../lib/net/receive-filter-program';
import { sendPackets } from '../../helpers/packet-socket';
import {
  DEVICE_MAC,
  distinctMacs,
  frameTo,
  receiveFilter,
  vlanTable,
  WORST_VLANS,
} from '../../helpers/receive-filters';
import { until } from '../../helpers/vhost-wait';

const FLAGS = IFF_TAP | IFF_NO_PI;
const STRIDE = 128;
const ROOM = 512;

let netns: Netns;
let guest: Tap;
let station: Tap;
beforeAll(async () => {
  netns = await Netns.create();
  guest = await Tap.open({ netns: netns.path, name: 'guest', flags: FLAGS });
  station = await Tap.open({ netns: netns.path, name: 'station', flags: FLAGS });
  await netns.addBridge('bridge', ['guest', 'station']);
});
afterAll(async () => {
  await station.close();
  await guest.close();
  await netns.delete();
});

const OTHER = '02:00:00:00:00:02';
const GROUP = '33:33:00:00:00:01';
const OTHER_GROUP = '01:00:5e:00:00:01';
const UNICAST = distinctMacs(32, 0xf2);
const MULTICAST = distinctMacs(32, 0xf3);
const DESTINATIONS = [
  DEVICE_MAC,
  OTHER,
  '03:00:00:00:00:01',
  '82:00:00:00:00:01',
  GROUP,
  '33:33:00:00:00:02',
  OTHER_GROUP,
  'ff:ff:ff:ff:ff:ff',
  'ff:ff:ff:ff:ff:fe',
  UNICAST[0]!,
  UNICAST[31]!,
  MULTICAST[17]!,
];
/** What follows the addresses. */
const TAGS: readonly (readonly number[])[] = [
  [0x88, 0xb5],
  [0x81, 0x00, 0x00, 0x00, 0x88, 0xb5],
  [0x81, 0x00, 0x00, 0x05, 0x88, 0xb5],
  [0x81, 0x00, 0xe0, 0x06, 0x88, 0xb5],
  [0x81, 0x00, 0xff, 0xff, 0x88, 0xb5],
  [0x81, 0x00, 0x00, 0x05, 0x81, 0x00, 0x00, 0x06, 0x88, 0xb5],
  [0x81, 0x00, 0x00, 0x06, 0x81, 0x00, 0x00, 0x05, 0x88, 0xb5],
  [0x88, 0xa8, 0x00, 0x06, 0x81, 0x00, 0x00, 0x06, 0x88, 0xb5],
];

/** Every destination with every tag; the source numbers them, and is no destination that the bridge could learn. */
const FRAMES = DESTINATIONS.flatMap((destination) => TAGS.map((tag) => frameTo(destination, ...tag))).map(
  (frame, index) => {
    frame.set([0x06, 0, 0, 0, index >> 8, index & 0xff], 6);
    return frame;
  },
);
/** Too short for the tag it says it has; nothing else tells it from others, so it goes last. */
const SHORT = frameTo(DEVICE_MAC, 0x81, 0x00, 0x00, 0x05).slice(0, 15);

const hex = (frame: Uint8Array): string => Buffer.from(frame).toString('hex');

/** As acceptsFrame sees a frame that came over a bridge: its outer tag taken out. */
function acceptsOverBridge(filter: ReceiveFilter, frame: Uint8Array): boolean {
  const type = (frame[12]! << 8) | frame[13]!;
  if (type !== 0x8100 && type !== 0x88a8) return acceptsFrame(filter, frame, null);
  const rest = new Uint8Array([...frame.subarray(0, 12), ...frame.subarray(16)]);
  return acceptsFrame(filter, rest, (frame[14]! << 8) | frame[15]!, type);
}

function writeAll(frames: readonly Uint8Array[]): void {
  const arena = new Uint8Array(frames.length * STRIDE);
  for (const [index, frame] of frames.entries()) arena.set(frame, index * STRIDE);
  const lengths = Int32Array.from(frames, ({ length }) => length);
  expect(station.writeFrames(arena, STRIDE, frames.length, lengths)).toBe(frames.length);
}

const arena = new Uint8Array(ROOM * STRIDE);
const lengths = new Int32Array(ROOM);

/** What reaches the guest of `count` frames that `send` sends; each of the others must be counted as dropped. */
async function arrivals(count: number, send: () => Promise<void> | void): Promise<string[]> {
  const before = (await guest.stats()).tx.dropped;
  await send();
  const arrived: string[] = [];
  let dropped = 0;
  await until('every frame has arrived or is counted', async () => {
    const read = guest.readFrames(arena, STRIDE, ROOM, lengths);
    for (let i = 0; i < read; i++) arrived.push(hex(arena.subarray(i * STRIDE, i * STRIDE + lengths[i]!)));
    dropped = (await guest.stats()).tx.dropped - before;
    return arrived.length + dropped >= count;
  });
  expect(arrived.length + dropped).toBe(count);
  return arrived;
}

const overBridge = (): Promise<string[]> => arrivals(FRAMES.length, () => writeAll(FRAMES));
const fromPacketSocket = async (): Promise<string[]> => {
  const index = await guest.interface.index();
  return arrivals(FRAMES.length + 1, () => sendPackets(netns, index, [...FRAMES, SHORT]));
};

const every32nd = Array.from({ length: 128 }, (_, word) => 32 * word + 5);
const FILTERS: readonly [string, Partial<ReceiveFilter>][] = [
  ['promiscuous', { promiscuous: true }],
  ['nothing listed', {}],
  ['unicast', { unicast: [OTHER] }],
  ['multicast', { multicast: [GROUP, OTHER_GROUP] }],
  ['both', { unicast: [OTHER, UNICAST[0]!], multicast: [GROUP] }],
  ['another device address', { mac: OTHER }],
  ['all multicast', { allMulticast: true }],
  ['all unicast', { allUnicast: true }],
  ['all of both', { allUnicast: true, allMulticast: true }],
  ['multicast overflow', { multicastOverflow: true, unicast: [OTHER] }],
  ['unicast overflow', { unicastOverflow: true, multicast: [GROUP] }],
  ['no multicast', { noMulticast: true, multicast: [GROUP], allMulticast: true }],
  ['no unicast', { noUnicast: true, allUnicast: true, multicast: [GROUP] }],
  ['no broadcast', { noBroadcast: true, multicast: [GROUP] }],
  ['no broadcast, all multicast', { noBroadcast: true, allMulticast: true }],
  ['no broadcast, all of both', { noBroadcast: true, allMulticast: true, allUnicast: true }],
  ['only broadcast', { noUnicast: true, noMulticast: true }],
  ['only unicast', { allUnicast: true, noMulticast: true, noBroadcast: true }],
  ['nothing at all', { noUnicast: true, noMulticast: true, noBroadcast: true }],
  ['full unicast table', { unicast: [...UNICAST, ...distinctMacs(32, 0xe2)] }],
  ['full multicast table', { multicast: [...MULTICAST, ...distinctMacs(32, 0xe3)] }],
  ['no VLANs', { vlans: vlanTable([]) }],
  ['no VLANs, all addresses', { vlans: vlanTable([]), allMulticast: true, allUnicast: true }],
  ['VLAN 0', { vlans: vlanTable([0]), allUnicast: true }],
  ['VLAN 5', { vlans: vlanTable([5]), allMulticast: true, allUnicast: true }],
  ['VLAN 6', { vlans: vlanTable([6]), multicast: [GROUP] }],
  ['VLANs 0, 5 and 4095', { vlans: vlanTable([0, 5, 4095]), allUnicast: true, noBroadcast: true }],
  ['one VLAN of each word', { vlans: vlanTable(every32nd), allMulticast: true, allUnicast: true }],
  ['all VLANs but 6', { vlans: new Uint8Array(512).fill(0xff).fill(0xbf, 0, 1), allUnicast: true }],
  ['all VLANs', { vlans: new Uint8Array(512).fill(0xff), unicast: [OTHER], noMulticast: true }],
  ['promiscuous, with VLANs', { promiscuous: true, vlans: vlanTable([5]) }],
  ['the largest', { vlans: WORST_VLANS, unicast: UNICAST, multicast: MULTICAST }],
];

test.each(FILTERS)(
  'what acceptsFrame accepts arrives as it was sent, and the rest is counted: %s',
  async (_, changes) => {
    const filter = receiveFilter(changes);
    await guest.attachFilter(receiveFilterProgram(filter));
    const wantedOverBridge = FRAMES.filter((frame) => acceptsOverBridge(filter, frame));
    expect(await overBridge()).toEqual(wantedOverBridge.map(hex));
    const wanted = [...FRAMES, SHORT].filter((frame) => acceptsFrame(filter, frame, null));
    expect(await fromPacketSocket()).toEqual(wanted.map(hex));
  },
);

test('the list of filters tells each frame from every other way to treat it', () => {
  const verdicts = FILTERS.map(([, changes]) => {
    const filter = receiveFilter(changes);
    return FRAMES.map((frame) => `${acceptsOverBridge(filter, frame)}${acceptsFrame(filter, frame, null)}`);
  });
  for (const index of FRAMES.keys()) {
    expect(new Set(verdicts.map((ones) => ones[index])).size).toBeGreaterThan(1);
  }
});

test('a program for another filter is found out', async () => {
  const filter = receiveFilter({ unicast: [OTHER], vlans: vlanTable([5]) });
  await guest.attachFilter(receiveFilterProgram({ ...filter, vlans: vlanTable([6]) }));
  expect(await overBridge()).not.toEqual(FRAMES.filter((frame) => acceptsOverBridge(filter, frame)).map(hex));
});

test('a bridge carries a tag in metadata, a packet socket leaves it in the frame', async () => {
  const asm = new BpfAssembler();
  const yes = asm.label();
  asm.statement(BPF_LD | BPF_W | BPF_ABS, SKF_AD_OFF + SKF_AD_VLAN_TAG_PRESENT);
  asm.jump(BPF_JEQ, 1, yes, null);
  asm.statement(BPF_RET | BPF_K, 0);
  asm.place(yes);
  asm.statement(BPF_RET | BPF_K, 0xffffffff);
  await guest.attachFilter(asm.assemble());
  const tagged = FRAMES.filter((frame) => frame[12] === 0x81 || frame[13] === 0xa8);
  expect(await overBridge()).toEqual(tagged.map(hex));
  expect(await fromPacketSocket()).toEqual([]);
});

test('an accepted frame keeps its length, however long; another answer cuts it', async () => {
  for (const device of ['guest', 'station', 'bridge']) await netns.ip('link', 'set', 'dev', device, 'mtu', '65521');
  const long = new Uint8Array(65535);
  long.set(frameTo(DEVICE_MAC));
  const received = new Uint8Array(65535);
  const length = new Int32Array(1);
  const lengthThrough = async (program: Uint8Array): Promise<number> => {
    await guest.attachFilter(program);
    expect(station.writeFrames(long, long.length, 1, Int32Array.of(long.length))).toBe(1);
    await until('the frame', () => guest.readFrames(received, received.length, 1, length) === 1);
    return length[0]!;
  };
  expect(await lengthThrough(ACCEPT_ALL)).toBe(65535);
  expect(await lengthThrough(receiveFilterProgram(receiveFilter()))).toBe(65535);
  const cut = DROP_ALL.slice();
  new DataView(cut.buffer).setUint32(4, 40, true);
  expect(await lengthThrough(cut)).toBe(40);
});

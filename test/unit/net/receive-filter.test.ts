import fc from 'fast-check';
import { formatMac } from '../../../lib/net/ethernet';
import {
  acceptsFrame,
  BROADCAST,
  filtersNothing,
  initialReceiveFilter,
  MAC_TABLE_ENTRIES,
  type ReceiveFilter,
} from '../../../lib/net/receive-filter';
import { ACCEPT_ALL, DROP_ALL, receiveFilterProgram } from '../../../lib/net/receive-filter-program';
import { bpfFault, bpfRunner, decodeBpf, encodeBpf, type Instruction } from '../../helpers/bpf-interpreter';
import {
  DEVICE_MAC,
  distinctMacs,
  framesNear,
  frameTo,
  receiveFilter,
  type Sent,
  vlanTable,
  WORST_VLANS,
} from '../../helpers/receive-filters';

const WHOLE = 0xffffffff;
const OTHER = '02:00:00:00:00:02';
const GROUP = '33:33:00:00:00:01';
const OTHER_GROUP = '01:00:5e:00:00:01';

const accepts = (filter: ReceiveFilter, { frame, tag }: Sent): boolean =>
  tag === null ? acceptsFrame(filter, frame, null) : acceptsFrame(filter, frame, tag.tci, tag.tpid);

/** Of unicast to the device, to another, to a listed group, to another group, broadcast: which pass. */
function passes(filter: ReceiveFilter): string {
  return [DEVICE_MAC, OTHER, GROUP, OTHER_GROUP, BROADCAST]
    .map((destination) => (acceptsFrame(filter, frameTo(destination), null) ? '+' : '-'))
    .join('');
}

test.each<[string, string, Partial<ReceiveFilter>]>([
  ['its own address and broadcast, when nothing is listed', '+---+', {}],
  [
    'everything, when promiscuous, whatever else is set',
    '+++++',
    { promiscuous: true, noUnicast: true, noBroadcast: true },
  ],
  ['listed addresses', '+++-+', { unicast: [OTHER], multicast: [GROUP] }],
  ['all unicast', '++--+', { allUnicast: true }],
  ['all unicast, when too many were named', '++--+', { unicastOverflow: true }],
  ['no unicast, which is stronger', '----+', { noUnicast: true, allUnicast: true, unicastOverflow: true }],
  ['all multicast', '+-+++', { allMulticast: true }],
  ['all multicast, when too many were named', '+-+++', { multicastOverflow: true }],
  [
    'no multicast, which does not mean broadcast',
    '+---+',
    { noMulticast: true, allMulticast: true, multicast: [GROUP] },
  ],
  ['no broadcast', '+-+--', { noBroadcast: true, multicast: [GROUP] }],
  ['no broadcast, though it is in the table', '+----', { noBroadcast: true, multicast: [BROADCAST] }],
  ['no broadcast, though all multicast', '+-++-', { noBroadcast: true, allMulticast: true }],
  ['nothing', '-----', { noBroadcast: true, noMulticast: true, noUnicast: true }],
  ['no group address by the unicast table or the other way', '+---+', { unicast: [GROUP], multicast: [OTHER] }],
])('lets through %s', (_, expected, changes) => {
  const filter = receiveFilter(changes);
  expect(passes(filter)).toBe(expected);
  const run = bpfRunner(receiveFilterProgram(filter));
  const destinations = [DEVICE_MAC, OTHER, GROUP, OTHER_GROUP, BROADCAST];
  expect(destinations.map((one) => (run(frameTo(one), null) === WHOLE ? '+' : '-')).join('')).toBe(expected);
});

describe('VLANs', () => {
  const filter = receiveFilter({ vlans: vlanTable([0, 5, 4095]) });
  const inFrame = (tci: number): boolean =>
    acceptsFrame(filter, frameTo(DEVICE_MAC, 0x81, 0, tci >> 8, tci & 0xff, 8, 0), null);

  test('are filtered by the 12 bits of the vid, 0 included, in metadata and in the frame', () => {
    for (const [tci, expected] of [
      [0, true],
      [1, false],
      [5, true],
      [0xf005, true],
      [0xf006, false],
      [4095, true],
      [4094, false],
    ] as const) {
      expect([tci, inFrame(tci), acceptsFrame(filter, frameTo(DEVICE_MAC), tci)]).toEqual([tci, expected, expected]);
    }
    const without0 = receiveFilter({ vlans: vlanTable([1]) });
    expect(acceptsFrame(without0, frameTo(DEVICE_MAC), 0)).toBe(false);
  });

  test('untagged frames pass, a tag does not help a wrong destination', () => {
    expect(acceptsFrame(filter, frameTo(DEVICE_MAC), null)).toBe(true);
    expect(acceptsFrame(filter, frameTo(OTHER), 5)).toBe(false);
  });

  test('only the outer tag counts, and only one of 802.1Q', () => {
    const inner6 = frameTo(DEVICE_MAC, 0x81, 0, 0, 6, 8, 0);
    expect(acceptsFrame(filter, inner6, null)).toBe(false);
    expect(acceptsFrame(filter, inner6, 5)).toBe(true);
    expect(acceptsFrame(filter, inner6, 6, 0x88a8)).toBe(true);
    expect(acceptsFrame(filter, frameTo(DEVICE_MAC, 0x88, 0xa8, 0, 6, 0x81, 0, 0, 6), null)).toBe(true);
  });

  test('without a table no tag is looked at', () => {
    expect(acceptsFrame(receiveFilter(), frameTo(DEVICE_MAC, 0x81, 0, 0, 6, 8, 0), null)).toBe(true);
    expect(acceptsFrame(receiveFilter(), frameTo(DEVICE_MAC), 6)).toBe(true);
  });

  test('frames that end before what is to be read do not pass', () => {
    const tagged = frameTo(DEVICE_MAC, 0x81, 0, 0, 5);
    expect([13, 14, 15, 16].map((length) => acceptsFrame(filter, tagged.subarray(0, length), null))).toEqual([
      false,
      false,
      false,
      true,
    ]);
    expect(acceptsFrame(receiveFilter(), tagged.subarray(0, 13), null)).toBe(false);
    expect(acceptsFrame(receiveFilter(), tagged.subarray(0, 14), null)).toBe(true);
  });
});

test('a device begins promiscuous, with empty tables', () => {
  expect(initialReceiveFilter('02:00:00:AA:00:01', false)).toEqual({
    promiscuous: true,
    allMulticast: false,
    allUnicast: false,
    noMulticast: false,
    noUnicast: false,
    noBroadcast: false,
    mac: '02:00:00:aa:00:01',
    unicast: [],
    multicast: [],
    unicastOverflow: false,
    multicastOverflow: false,
    vlans: null,
  });
  expect(initialReceiveFilter(DEVICE_MAC, true).vlans).toEqual(new Uint8Array(512));
  expect(() => initialReceiveFilter('02:00', true)).toThrow(/MAC address/);
});

test('a filter that filters nothing is one instruction, and so is one that drops everything', () => {
  const open = { allUnicast: true, multicastOverflow: true };
  for (const filter of [
    initialReceiveFilter(DEVICE_MAC, true),
    receiveFilter(open),
    receiveFilter({ ...open, vlans: new Uint8Array(512).fill(0xff) }),
  ]) {
    expect(filtersNothing(filter)).toBe(true);
    expect(receiveFilterProgram(filter)).toBe(ACCEPT_ALL);
  }
  for (const changes of [
    { allUnicast: false },
    { multicastOverflow: false },
    { noUnicast: true },
    { noMulticast: true },
    { noBroadcast: true },
    { vlans: vlanTable(Array.from({ length: 4095 }, (_, vid) => vid)) },
  ]) {
    expect(filtersNothing(receiveFilter({ ...open, ...changes }))).toBe(false);
  }
  expect(decodeBpf(ACCEPT_ALL)).toEqual([{ code: 0x06, jt: 0, jf: 0, k: WHOLE }]);
  expect(decodeBpf(DROP_ALL)).toEqual([{ code: 0x06, jt: 0, jf: 0, k: 0 }]);
  expect(receiveFilterProgram(receiveFilter({ noBroadcast: true, noMulticast: true, noUnicast: true }))).toBe(DROP_ALL);
});

test('a VLAN table of another size, and what is no address, are refused', () => {
  expect(() => receiveFilterProgram(receiveFilter({ vlans: new Uint8Array(511) }))).toThrow(/511 bytes/);
  expect(() => receiveFilterProgram(receiveFilter({ unicast: ['02:00'] }))).toThrow(/MAC address/);
});

/** Few values of each byte: addresses share their halves, and frames hit them. */
const byte = fc.constantFrom(0x00, 0x01, 0x02, 0x33, 0x80, 0xff);
const address = fc
  .oneof(fc.constant([0xff, 0xff, 0xff, 0xff, 0xff, 0xff]), fc.array(byte, { minLength: 6, maxLength: 6 }))
  .map((bytes) => formatMac(Uint8Array.from(bytes)));
const tableByte = fc.constantFrom(0x00, 0xff);
const table = fc.oneof(
  fc.uint8Array({ minLength: 512, maxLength: 512 }),
  fc.array(fc.nat(4095), { maxLength: 20 }).map(vlanTable),
  fc.array(tableByte, { minLength: 512, maxLength: 512 }).map((bytes) => Uint8Array.from(bytes)),
  fc
    .array(fc.tuple(fc.nat(511), fc.nat(511), tableByte), { maxLength: 4 })
    .map((runs) => runs.reduce((all, [from, to, value]) => all.fill(value, from, to), new Uint8Array(512))),
);
const rarely = fc.nat(5).map((value) => value === 0);
const anyFilter: fc.Arbitrary<ReceiveFilter> = fc.record({
  promiscuous: fc.nat(20).map((value) => value === 0),
  allMulticast: rarely,
  allUnicast: rarely,
  noMulticast: rarely,
  noUnicast: rarely,
  noBroadcast: rarely,
  mac: address,
  unicast: fc.array(address, { maxLength: MAC_TABLE_ENTRIES }),
  multicast: fc.array(address, { maxLength: MAC_TABLE_ENTRIES }),
  unicastOverflow: rarely,
  multicastOverflow: rarely,
  vlans: fc.option(table, { freq: 3 }),
});
const tci = fc.oneof(fc.nat(0xffff), fc.constantFrom(0, 1, 31, 32, 4095));
const etherTypes = fc.constantFrom([0x81, 0x00], [0x88, 0xa8], [0x08, 0x00]);
const anyFrame = fc
  .record({
    destination: fc.oneof(address, fc.nat(200)),
    type: etherTypes,
    tci,
    inner: etherTypes,
    length: fc.oneof({ weight: 4, arbitrary: fc.constant(60) }, { weight: 1, arbitrary: fc.nat(20) }),
    tag: fc.option(fc.record({ tci, tpid: fc.constantFrom(0x8100, 0x8100, 0x88a8) })),
  })
  .map(({ destination, type, tci: inline, inner, length, tag }) => ({
    destination,
    tag,
    sent: (to: string): Sent => ({
      frame: frameTo(to, ...type, inline >> 8, inline & 0xff, ...inner, 0, 7).subarray(0, length),
      tag,
    }),
  }));

test('for any filter and any frame the program says what acceptsFrame says', () => {
  const seen = { accepted: 0, dropped: 0, listed: 0 };
  fc.assert(
    fc.property(anyFilter, fc.array(anyFrame, { minLength: 10, maxLength: 60 }), (filter, frames) => {
      const run = bpfRunner(receiveFilterProgram(filter));
      const listed = [filter.mac, ...filter.unicast, ...filter.multicast];
      for (const { destination, sent } of frames) {
        const to = typeof destination === 'string' ? destination : listed[destination % listed.length]!;
        const one = sent(to);
        const accepted = accepts(filter, one);
        expect(run(one.frame, one.tag)).toBe(accepted ? WHOLE : 0);
        seen[accepted ? 'accepted' : 'dropped']++;
        if (accepted && listed.includes(to)) seen.listed++;
      }
    }),
    { numRuns: 1500 },
  );
  expect(Math.min(seen.accepted, seen.dropped, seen.listed)).toBeGreaterThan(2000);
});

const WORST: readonly [string, number, ReceiveFilter][] = [
  ['unicast addresses', 63, receiveFilter({ unicast: distinctMacs(63, 0xf2) })],
  ['group addresses', 64, receiveFilter({ multicast: distinctMacs(64, 0xf3) })],
  ['both', 64, receiveFilter({ unicast: distinctMacs(32, 0xf2), multicast: distinctMacs(32, 0xf3) })],
  [
    'both kinds, a full table of each',
    128,
    receiveFilter({ unicast: distinctMacs(64, 0xf2), multicast: distinctMacs(64, 0xf3) }),
  ],
].map(
  ([name, count, filter]) =>
    [name, count, { ...(filter as ReceiveFilter), vlans: WORST_VLANS }] as [string, number, ReceiveFilter],
);

describe('the size is bounded:', () => {
  test.each(WORST)('every word of the VLAN table different, and %s (%i)', (_, count, filter) => {
    const words = new Uint32Array(WORST_VLANS.slice().buffer);
    expect(words.every((word, index) => word !== 0 && word !== WHOLE && word !== words[index + 1])).toBe(true);
    const program = receiveFilterProgram(filter);
    expect(bpfFault(program)).toBeNull();
    expect(program.length / 8).toBeLessThan(count <= MAC_TABLE_ENTRIES ? 640 : 840);
    const run = bpfRunner(program);
    for (const one of framesNear(filter)) expect(run(one.frame, one.tag)).toBe(accepts(filter, one) ? WHOLE : 0);
  });

  test('any table', () => {
    fc.assert(
      fc.property(anyFilter, (filter) => {
        const program = receiveFilterProgram(filter);
        expect(bpfFault(program)).toBeNull();
        expect(program.length / 8).toBeLessThan(1000);
      }),
    );
  });

  test('what a guest usually asks for is short', () => {
    const multicast = [GROUP, OTHER_GROUP, '33:33:ff:00:00:01', '01:00:5e:00:00:fb', '33:33:00:00:00:fb'];
    expect(receiveFilterProgram(receiveFilter({ multicast })).length / 8).toBeLessThan(27);
    expect(receiveFilterProgram(receiveFilter({ multicast, vlans: vlanTable([]) })).length / 8).toBeLessThan(34);
    expect(receiveFilterProgram(receiveFilter({ multicast, vlans: vlanTable([0, 10, 20]) })).length / 8).toBeLessThan(
      50,
    );
  });
});

describe('a fault in one instruction is found:', () => {
  const FILTERS: readonly [string, ReceiveFilter][] = [
    [
      'addresses',
      receiveFilter({ unicast: ['02:81:00:00:00:02', '52:54:00:12:34:56'], multicast: [GROUP, OTHER_GROUP] }),
    ],
    ['many addresses', receiveFilter({ unicast: ['02:ff:00:00:00:02'], multicast: distinctMacs(20, 0x33) })],
    ['no VLANs', receiveFilter({ vlans: vlanTable([]), unicast: ['02:81:00:00:00:02'] })],
    // Words that differ from both neighbours in their first and last bits.
    ['VLANs', receiveFilter({ vlans: vlanTable([0, 5, 31, 96, 100, 127, 1984, 2000, 4064, 4095]), allUnicast: true })],
  ];
  const GOTO = 0x05;
  const isComparison = ({ code }: Instruction): boolean => (code & 7) === 5 && code !== GOTO;
  /** tax, txa and rsh x; and gotos, which may well go by way of another that has the same end. */
  const ignoresK = ({ code }: Instruction): boolean => [0x07, 0x87, 0x7c, GOTO].includes(code);
  /** Where the lowest bit may make no difference: masks, and bounds between two addresses. */
  const isCoarse = ({ code }: Instruction): boolean => [0x54, 0x35].includes(code);
  /** The last two instructions accept and drop; `left` is how many follow this one. */
  const FAULTS: Readonly<Record<string, (one: Instruction, left: number) => Instruction>> = {
    'the lowest bit of k': (one) => (ignoresK(one) || isCoarse(one) ? one : { ...one, k: (one.k ^ 1) >>> 0 }),
    'half of k': (one) => (ignoresK(one) ? one : { ...one, k: one.k >>> 1 }),
    'a goto too far': (one) => (one.code === GOTO ? { ...one, k: one.k + 1 } : one),
    'both ways of a jump exchanged': (one) => ({ ...one, jt: one.jf, jf: one.jt }),
    'a true way too far': (one) => (isComparison(one) ? { ...one, jt: one.jt + 1 } : one),
    'a true way that drops': (one, left) => (isComparison(one) ? { ...one, jt: left - 1 } : one),
    'a false way that accepts': (one, left) => (isComparison(one) ? { ...one, jf: left - 2 } : one),
  };

  test.each(FILTERS)('%s', (_, filter) => {
    const frames = framesNear(filter);
    const wanted = frames.map((one) => (accepts(filter, one) ? WHOLE : 0));
    const isFound = (program: Uint8Array): boolean => {
      if (bpfFault(program) !== null) return true;
      const run = bpfRunner(program);
      return frames.some(({ frame, tag }, index) => run(frame, tag) !== wanted[index]);
    };
    const instructions = decodeBpf(receiveFilterProgram(filter));
    expect(isFound(encodeBpf(instructions))).toBe(false);
    const missed: string[] = [];
    let planted = 0;
    for (const [name, fault] of Object.entries(FAULTS)) {
      for (const [at, instruction] of instructions.entries()) {
        const sound = encodeBpf(instructions);
        const faulty = encodeBpf(instructions.with(at, fault(instruction, instructions.length - 1 - at)));
        if (Buffer.compare(sound, faulty) === 0) continue;
        planted++;
        if (!isFound(faulty)) missed.push(`${at}: ${name}`);
      }
    }
    expect(missed).toEqual([]);
    expect(planted).toBeGreaterThan(instructions.length);
  });
});

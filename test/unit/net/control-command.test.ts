import fc from 'fast-check';
import {
  type ControlCommand,
  encodeControlCommand,
  parseControlCommand,
  RX_MODES,
} from '../../../lib/net/control-command';
import { MAC_TABLE_ENTRIES } from '../../../lib/net/receive-filter';
import { bytesOf, COMMANDS, macs, macTable } from '../../helpers/control-commands';

const ARGUMENT_ERROR = expect.objectContaining({ code: 'VHOST_ERR_INVALID_ARGUMENT' }) as Error;

test.each(COMMANDS)('$hex is $command.kind', ({ hex, command }) => {
  expect(Buffer.from(encodeControlCommand(command)).toString('hex')).toBe(hex);
  expect(parseControlCommand(bytesOf(hex))).toEqual(command);
});

test.each(COMMANDS)('$command.kind ($hex) of any other length', ({ hex, command }) => {
  const bytes = bytesOf(hex);
  for (let length = 0; length < bytes.length; length++) {
    const parsed = parseControlCommand(bytes.subarray(0, length));
    if (length < 2) expect(parsed).toBeNull();
    else expect(parsed).toMatchObject({ kind: 'malformed', class: bytes[0], command: bytes[1] });
  }
  const longer = parseControlCommand(Uint8Array.from([...bytes, 0]));
  if (command.kind === 'unknown') expect(longer).toEqual(command);
  else expect(longer).toMatchObject({ kind: 'malformed' });
});

test('a mode is on whatever the byte is but 0', () => {
  for (const [value, on] of [
    [0, false],
    [1, true],
    [2, true],
    [255, true],
  ] as const) {
    expect(parseControlCommand(Uint8Array.of(0, 3, value))).toEqual({ kind: 'rx-mode', mode: 'nomulti', on });
  }
});

test('a VLAN has 12 bits', () => {
  for (const command of [0, 1]) {
    expect(parseControlCommand(Uint8Array.of(2, command, 0xff, 0x0f))).toMatchObject({ vid: 4095 });
    expect(parseControlCommand(Uint8Array.of(2, command, 0x00, 0x10))).toMatchObject({ kind: 'malformed' });
    expect(parseControlCommand(Uint8Array.of(2, command, 0xff, 0xff))).toMatchObject({ kind: 'malformed' });
  }
});

describe('MAC table', () => {
  const parse = (unicast: number, multicast: number) =>
    parseControlCommand(encodeControlCommand(macTable(macs(unicast), macs(multicast, 1))));

  test.each([
    [64, 0],
    [0, 64],
    [40, 24],
  ])('of %i and %i addresses fits', (unicast, multicast) => {
    expect(parse(unicast, multicast)).toEqual(macTable(macs(unicast), macs(multicast, 1)));
  });

  test('what does not fit overflows by its kind', () => {
    expect(parse(65, 0)).toEqual(macTable([], [], true, false));
    expect(parse(0, 65)).toEqual(macTable([], [], false, true));
    expect(parse(40, 25)).toEqual(macTable(macs(40), [], false, true));
    expect(parse(64, 1)).toEqual(macTable(macs(64), [], false, true));
    // A list that was not taken leaves all the room to the other.
    expect(parse(65, 64)).toEqual(macTable([], macs(64, 1), true, false));
    expect(parse(1000, 1000)).toEqual(macTable([], [], true, true));
  });

  test('overflow survives another encoding', () => {
    for (const unicast of [false, true]) {
      for (const multicast of [false, true]) {
        const table = macTable(unicast ? [] : macs(MAC_TABLE_ENTRIES), [], unicast, multicast);
        expect(parseControlCommand(encodeControlCommand(table))).toEqual(table);
      }
    }
  });

  test.each([0xffffffff, 0x2aaaaaab, 0x80000000, 715_827_883])('claims %i entries it does not have', (entries) => {
    const bytes = encodeControlCommand(macTable(macs(2), macs(1, 1)));
    new DataView(bytes.buffer).setUint32(2, entries, true);
    expect(parseControlCommand(bytes)).toMatchObject({ kind: 'malformed' });
    const second = encodeControlCommand(macTable([], macs(1, 1)));
    new DataView(second.buffer).setUint32(6, entries, true);
    expect(parseControlCommand(second)).toMatchObject({ kind: 'malformed' });
  });
});

test('what is not served is unknown, whatever its data', () => {
  const served = new Set(
    COMMANDS.filter(({ command }) => command.kind !== 'unknown').map(({ hex }) => hex.slice(0, 4)),
  );
  expect(served.size).toBe(13);
  let unknown = 0;
  for (let klass = 0; klass < 256; klass++) {
    for (let command = 0; command < 256; command++) {
      const bytes = Uint8Array.of(klass, command, 1, 2, 3);
      if (served.has(Buffer.from(bytes.subarray(0, 2)).toString('hex'))) {
        expect(parseControlCommand(bytes)).toMatchObject({ kind: 'malformed' });
      } else {
        if (parseControlCommand(bytes)?.kind !== 'unknown') throw new Error(`${klass} ${command}`);
        unknown++;
      }
    }
  }
  expect(unknown).toBe(65536 - 13);
});

/** Mostly the beginning of a command that is served. */
const anyBytes = fc.oneof(
  fc.uint8Array({ maxLength: 64 }),
  fc
    .tuple(fc.constantFrom(...COMMANDS), fc.uint8Array({ maxLength: 900 }), fc.nat(20))
    .map(([{ hex }, data, kept]) => Uint8Array.from([...bytesOf(hex).subarray(0, 2 + kept), ...data])),
);

test('any bytes: nothing is thrown, nothing behind them is read, and what is understood is encoded again', () => {
  const seen = new Set<string>();
  void fc.assert(
    fc.property(anyBytes, fc.uint8Array({ maxLength: 64 }), (bytes, behind) => {
      const parsed = parseControlCommand(bytes);
      // Behind the command lies what is none of its business, and must not be found in it.
      const surrounded = Uint8Array.from([...behind, ...bytes, ...behind]);
      const within = parseControlCommand(surrounded.subarray(behind.length, behind.length + bytes.length));
      expect(within).toEqual(parsed);
      expect(parsed === null).toBe(bytes.length < 2);
      if (parsed === null) return;
      seen.add(parsed.kind);
      if (parsed.kind === 'malformed') return;
      expect(parseControlCommand(encodeControlCommand(parsed))).toEqual(parsed);
      if (parsed.kind === 'unknown' || parsed.kind === 'rx-mode') return;
      if (parsed.kind === 'mac-table-set' && (parsed.unicastOverflow || parsed.multicastOverflow)) return;
      expect(encodeControlCommand(parsed)).toEqual(bytes);
    }),
    { numRuns: 3000 },
  );
  expect([...seen]).toEqual(expect.arrayContaining(['malformed', 'unknown', 'rx-mode', 'announce-ack', 'vlan-add']));
});

test.each<ControlCommand>([
  { kind: 'vlan-add', vid: 65536 },
  { kind: 'vlan-del', vid: -1 },
  { kind: 'mq-vq-pairs-set', pairs: 1.5 },
  { kind: 'guest-offloads-set', offloads: 1n << 64n },
  { kind: 'guest-offloads-set', offloads: -1n },
  { kind: 'unknown', class: 256, command: 0 },
  { kind: 'mac-addr-set', mac: '02:00' },
])('cannot be encoded: %o', (command) => {
  expect(() => encodeControlCommand(command)).toThrow(ARGUMENT_ERROR);
});

test('every mode has its command', () => {
  expect(RX_MODES.map((mode) => encodeControlCommand({ kind: 'rx-mode', mode, on: true })[1])).toEqual([
    0, 1, 2, 3, 4, 5,
  ]);
});

test('offloads of tunnels have numbers of their own in the bitmap, which ends at 64', () => {
  const bytes = encodeControlCommand({ kind: 'guest-offloads-set', offloads: (1n << 1n) | (1n << 65n) | (1n << 66n) });
  expect([...bytes.subarray(2)]).toEqual([2, 0, 0, 0, 0, 0xc0, 0, 0]);
  expect(parseControlCommand(bytes)).toEqual({
    kind: 'guest-offloads-set',
    offloads: (1n << 1n) | (1n << 65n) | (1n << 66n),
  });
});

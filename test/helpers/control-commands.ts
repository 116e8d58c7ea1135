/** One of every command of the control virtqueue, as data and as the bytes that the specification gives it. */
import type { ControlCommand, MacTableSet } from '../../lib/net/control-command';

export const bytesOf = (hex: string): Uint8Array => Uint8Array.from(Buffer.from(hex, 'hex'));

/** `count` different addresses; `group` 1 for multicast. */
export function macs(count: number, group = 0): string[] {
  return Array.from({ length: count }, (_, index) => {
    const tail = index.toString(16).padStart(4, '0');
    return `0${2 + group}:00:00:00:${tail.slice(0, 2)}:${tail.slice(2)}`;
  });
}

export function macTable(
  unicast: readonly string[],
  multicast: readonly string[],
  unicastOverflow = false,
  multicastOverflow = false,
): MacTableSet {
  return { kind: 'mac-table-set', unicast, multicast, unicastOverflow, multicastOverflow };
}

const rxMode = (hex: string, mode: (ControlCommand & { kind: 'rx-mode' })['mode'], on: boolean) => ({
  hex,
  command: { kind: 'rx-mode', mode, on } as const,
});

const unknown = (hex: string) => {
  const [klass, command] = bytesOf(hex) as unknown as [number, number];
  return { hex, command: { kind: 'unknown', class: klass, command } as const };
};

export const COMMANDS: readonly { hex: string; command: ControlCommand }[] = [
  rxMode('000000', 'promisc', false),
  rxMode('000001', 'promisc', true),
  rxMode('000101', 'allmulti', true),
  rxMode('000201', 'alluni', true),
  rxMode('000301', 'nomulti', true),
  rxMode('000401', 'nouni', true),
  rxMode('000500', 'nobcast', false),
  { hex: '01000000000000000000', command: macTable([], []) },
  {
    hex: '01000200000002000000000102000000abcd01000000333300000001',
    command: macTable(['02:00:00:00:00:01', '02:00:00:00:ab:cd'], ['33:33:00:00:00:01']),
  },
  { hex: '01010a1b2c3d4e5f', command: { kind: 'mac-addr-set', mac: '0a:1b:2c:3d:4e:5f' } },
  { hex: '0200fe0f', command: { kind: 'vlan-add', vid: 4094 } },
  { hex: '02010100', command: { kind: 'vlan-del', vid: 1 } },
  { hex: '0300', command: { kind: 'announce-ack' } },
  { hex: '04000201', command: { kind: 'mq-vq-pairs-set', pairs: 0x102 } },
  {
    hex: '0500820700000000c000',
    command: { kind: 'guest-offloads-set', offloads: (1n << 55n) | (1n << 54n) | 0x782n },
  },
  // RSS_CONFIG, HASH_CONFIG, NOTF_COAL, HASH_TUNNEL, STATS, RSS contexts, and what nobody has defined.
  unknown('0401'),
  unknown('0402'),
  unknown('0600'),
  unknown('0603'),
  unknown('0700'),
  unknown('0800'),
  unknown('0903'),
  unknown('0006'),
  unknown('0301'),
  unknown('ffff'),
];

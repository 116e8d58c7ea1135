/** struct virtio_net_config, byte by byte (virtio 1.4 section 5.1.4). */
import {
  CONFIG_BYTES,
  DUPLEX_FULL,
  DUPLEX_HALF,
  DUPLEX_UNKNOWN,
  encodeNetConfig,
  type NetConfig,
  SPEED_UNKNOWN,
} from '../../../lib/net/config-space';

const config: NetConfig = {
  mac: '02:1a:2b:3c:4d:5e',
  linkUp: true,
  announce: false,
  maxPairs: 0x0102,
  mtu: 0x05dc,
  speed: 0x01020304,
  duplex: DUPLEX_FULL,
};
const hex = (parts: Partial<NetConfig> = {}): string =>
  Buffer.from(encodeNetConfig({ ...config, ...parts })).toString('hex');

test('every field at its offset, little-endian', () => {
  expect(hex()).toBe(`${'021a2b3c4d5e'}${'0100'}${'0201'}${'dc05'}${'04030201'}${'01'}`);
  expect(encodeNetConfig(config)).toHaveLength(CONFIG_BYTES);
});

test.each<[string, Partial<NetConfig>, number, string]>([
  ['address', { mac: 'FE:DC:BA:98:76:54' }, 0, 'fedcba987654'],
  ['no link', { linkUp: false }, 6, '0000'],
  ['announce', { announce: true }, 6, '0300'],
  ['announce without a link', { linkUp: false, announce: true }, 6, '0200'],
  ['one pair', { maxPairs: 1 }, 8, '0100'],
  ['most pairs', { maxPairs: 0x8000 }, 8, '0080'],
  ['smallest MTU', { mtu: 68 }, 10, '4400'],
  ['largest MTU', { mtu: 65535 }, 10, 'ffff'],
  ['speed 0', { speed: 0 }, 12, '00000000'],
  ['highest speed', { speed: 0x7fffffff }, 12, 'ffffff7f'],
  ['unknown speed', { speed: SPEED_UNKNOWN }, 12, 'ffffffff'],
  ['half duplex', { duplex: DUPLEX_HALF }, 16, '00'],
  ['unknown duplex', { duplex: DUPLEX_UNKNOWN }, 16, 'ff'],
])('%s: these bytes and no others', (_name, parts, offset, bytes) => {
  const before = hex();
  expect(hex(parts)).toBe(before.slice(0, 2 * offset) + bytes + before.slice(2 * offset + bytes.length));
});

test('an address that is none is refused', () => {
  expect(() => encodeNetConfig({ ...config, mac: '02:00' })).toThrow(
    expect.objectContaining({ code: 'VHOST_ERR_INVALID_ARGUMENT' }),
  );
});

import { formatAddress, parseAddress } from '../../lib/migration/address';

test.each([
  ['tcp:127.0.0.1:4444', { kind: 'tcp', host: '127.0.0.1', port: 4444 }],
  ['tcp:there.example:0', { kind: 'tcp', host: 'there.example', port: 0 }],
  ['tcp:[::1]:65535', { kind: 'tcp', host: '::1', port: 65_535 }],
  ['tcp:[fe80::1%eth0]:1', { kind: 'tcp', host: 'fe80::1%eth0', port: 1 }],
  ['unix:/run/a:b', { kind: 'unix', path: '/run/a:b' }],
  ['unix:@name', { kind: 'unix', path: '@name' }],
  [`unix:/${'x'.repeat(106)}`, { kind: 'unix', path: `/${'x'.repeat(106)}` }],
  ['file:/tmp/a b', { kind: 'file', path: '/tmp/a b' }],
])('%s', (text, address) => {
  expect(parseAddress(text)).toEqual(address);
  expect(formatAddress(parseAddress(text))).toBe(text);
});

test.each([
  ['', 'none of tcp:HOST:PORT, unix:PATH or file:PATH'],
  ['there:4444', 'none of tcp:HOST:PORT'],
  ['TCP:there:4444', 'none of'],
  ['tcp:4444', 'not tcp:HOST:PORT'],
  ['tcp:there', 'not tcp:HOST:PORT'],
  ['tcp::4444', '"" is no host name'],
  ['tcp:a b:4444', '"a b" is no host name'],
  ['tcp:::1:4444', 'stands in brackets'],
  ['tcp:fe80::1:4444', 'stands in brackets'],
  ['tcp:[127.0.0.1]:4444', '"127.0.0.1" is no IPv6 address'],
  ['tcp:[::1]', 'not tcp:HOST:PORT'],
  ['tcp:there:65536', 'port "65536", 0 to 65535'],
  ['tcp:there:-1', 'port "-1", 0 to 65535'],
  ['tcp:there:0x10', 'port "0x10"'],
  ['tcp:there:', 'port ""'],
  [`tcp:${'x'.repeat(254)}:1`, 'a host name of 254, at most 253'],
  ['unix:', 'has no path'],
  ['unix:@', 'has no name'],
  [`unix:/${'é'.repeat(54)}`, 'a path of 109 bytes, a UNIX socket takes 107'],
  [`unix:@${'x'.repeat(108)}`, 'a name of 108 bytes, a UNIX socket takes 107'],
  ['unix:/tmp/a\0b', 'zero byte'],
  ['file:', 'has no path'],
])('%j is refused', (text, message) => {
  expect(() => parseAddress(text)).toThrow(
    expect.objectContaining({ code: 'VHOST_ERR_INVALID_ARGUMENT', message: expect.stringContaining(message) }),
  );
});

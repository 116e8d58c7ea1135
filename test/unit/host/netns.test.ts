/** Network namespaces: needs root and iproute2. */
import { existsSync } from 'node:fs';
import { Netns } from '../../../lib/host/netns';
import { codeOf, errorOf } from '../../helpers/vhost-wait';

test('is there, has IPv6 off, and goes with everything in it', async () => {
  await using netns = await Netns.create();
  expect(existsSync(netns.path)).toBe(true);
  await netns.addVeth('a', 'b');
  await netns.addBridge('br', ['a']);
  expect(await netns.ip('-o', 'link')).toMatch(/ a@b: .*master br /);
  const off = await netns.exec('sh', ['-c', 'cat /proc/sys/net/ipv6/conf/b/disable_ipv6 2>/dev/null || echo 1']);
  expect(off.trim()).toBe('1');
  await netns.delete();
  await netns.delete();
  expect(existsSync(netns.path)).toBe(false);
  expect(() => netns.ip('link')).toThrow(expect.objectContaining({ code: 'VHOST_ERR_CLOSED' }));
});

test('a failure says what was called and what it said; nothing stays', async () => {
  await using netns = await Netns.create();
  const error = await errorOf(netns.ip('link', 'set', 'no-such', 'up'));
  expect(error.message).toMatch(/ip -n .* link set no-such up.*no-such/s);
  expect(await codeOf(Netns.create(netns.name))).toBe('VHOST_ERR_UNSUPPORTED');
  expect(existsSync(netns.path)).toBe(true);
  await expect(netns.ipBatch(['link add name x type bridge', 'link set dev no-such up'])).rejects.toThrow(/no-such/);
  expect(Netns.uniqueName()).not.toBe(Netns.uniqueName());
});

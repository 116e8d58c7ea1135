/** Two network namespaces joined by a cable stand for two hosts: TCP goes between their addresses, the guest's traffic over the bridge. */
import { Netns } from '../../lib/host/netns';
import { CliLab, NOTHING_WRONG } from '../helpers/cli-lab';

test('from one host to another over TCP', async () => {
  await using lab = await CliLab.create();
  await using here = await Netns.create();
  await using there = await Netns.create();
  await here.ip('link', 'add', 'name', 'cable', 'type', 'veth', 'peer', 'name', 'cable', 'netns', there.name);
  await here.ipBatch(['address add 10.7.0.1/24 dev cable', 'link set dev cable up']);
  await there.ipBatch(['address add 10.7.0.2/24 dev cable', 'link set dev cable up']);
  const source = await lab.run('a', { inside: here.name });
  const far = await lab.receive('b', 'tcp:10.7.0.2:4444', { inside: there.name });
  expect(far.address).toBe('tcp:10.7.0.2:4444');
  await lab.flows('a');
  const moved = await lab.command('migrate', lab.path('a'), far.address, '--channels', '2');
  expect(moved.all).toMatch(/the guest runs at the destination/);
  expect([moved.ended, await source.end()]).toEqual([0, 0]);
  await far.process.says(/runs here/);
  await lab.flows('b');
  expect(await lab.account('b')).toEqual(NOTHING_WRONG);
  far.process.kill('SIGTERM');
  expect(await far.process.end()).toBe(0);
});

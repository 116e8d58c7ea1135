/** A guest that moves between processes of the command line, under traffic, by every way there is: no frame is lost, doubled or reordered. */
import { existsSync, readFileSync, statSync } from 'node:fs';
import { CliLab, NOTHING_WRONG } from '../helpers/cli-lab';

let lab: CliLab;

beforeEach(async () => {
  lab = await CliLab.create();
});

afterEach(() => lab.close());

interface Line {
  kind: string;
  phase?: string;
  outcome?: string;
}

const lines = (path: string): Line[] =>
  readFileSync(path, 'utf8')
    .trimEnd()
    .split('\n')
    .map((line) => JSON.parse(line) as Line);

test('over a UNIX socket, there and back, with a report and events of both sides', async () => {
  const source = await lab.run('a');
  expect(statSync(lab.path('a')).mode & 0o777).toBe(0o600);
  const there = await lab.receive('b', `unix:${lab.socket()}`, {}, '--events', lab.path('there.jsonl'));
  await lab.flows('a');
  const report = lab.path('report.html');
  const events = lab.path('events.jsonl');
  const moved = await lab.command('migrate', lab.path('a'), there.address, '--report', report, '--events', events);
  expect(moved.all).toMatch(/the guest runs at the destination/);
  expect(moved.ended).toBe(0);
  expect(moved.stdout).toMatch(/^downtime .* \(stop .*, sync .*, lastPages .*, state .*, start .*\)$/m);
  expect(moved.stdout).toMatch(/^pages +8,192 compared, 0 differ$/m);
  expect(moved.stdout).toMatch(/^frames there +[\d,]+ read/m);
  expect(moved.stdout).toMatch(/^proven|^not proven/m);
  expect(moved.stderr).toMatch(/round 0: /);
  expect(await source.end()).toBe(0);
  expect(existsSync(lab.path('a'))).toBe(false);
  await there.process.says(/the guest 02:00:00:00:00:02 runs here/);
  await lab.flows('b');
  expect(readFileSync(report, 'utf8')).toMatch(/<title>Migration of .*: completed<\/title>/);
  const told = lines(events);
  expect(told[0]).toMatchObject({ kind: 'begin', version: 1 });
  expect(told.at(-1)).toMatchObject({ kind: 'end', outcome: 'completed', error: null });
  const phases = told.filter(({ kind }) => kind === 'phase').map(({ phase }) => phase);
  expect(phases).toEqual(['setup', 'precopy', 'relay', 'switchover', 'ready', 'commit', 'running', 'done']);
  expect(lines(lab.path('there.jsonl')).at(-1)).toMatchObject({ kind: 'end', outcome: 'completed' });

  const back = await lab.receive('c', `unix:${lab.socket()}`);
  const again = await lab.command('migrate', lab.path('b'), back.address, '--json', '--channels', '0');
  expect(again.ended).toBe(0);
  expect(JSON.parse(again.stdout)).toMatchObject({
    outcome: 'completed',
    error: null,
    result: { audit: { differing: 0 } },
    record: { version: 1, outcome: 'completed' },
  });
  expect(await there.process.end()).toBe(0);
  await lab.flows('c');
  expect(await lab.account('c')).toEqual(NOTHING_WRONG);
  back.process.kill('SIGTERM');
  expect(await back.process.end()).toBe(0);
  expect(back.process.stdout).toMatch(/ended by a signal\n$/);
});

test('over TCP with two page connections, deflated', async () => {
  const source = await lab.run('a');
  const there = await lab.receive('b', 'tcp:127.0.0.1:0');
  await lab.flows('a');
  const how = ['--channels', '2', '--compression', 'deflate', '--downtime-limit', '500'];
  const moved = await lab.command('migrate', lab.path('a'), there.address, ...how);
  expect(moved.all).toMatch(/the guest runs at the destination/);
  expect([moved.ended, await source.end()]).toEqual([0, 0]);
  await there.process.says(/runs here/);
  await lab.flows('b');
  expect(await lab.account('b')).toEqual(NOTHING_WRONG);
});

test('with two queue pairs', async () => {
  await using pairs = await CliLab.create({ flows: 2 });
  const source = await pairs.run('a', {}, '--pairs', '2');
  const there = await pairs.receive('b', `unix:${pairs.socket()}`, {}, '--pairs', '2');
  await pairs.flows('a');
  const moved = await pairs.command('migrate', pairs.path('a'), there.address);
  expect(moved.all).toMatch(/the guest runs at the destination/);
  expect([moved.ended, await source.end()]).toEqual([0, 0]);
  await pairs.flows('b');
  expect((await pairs.status('b')).taps).toEqual(['b', 'b']);
  for (const { duplicated, reordered } of pairs.station.ledgers) expect([duplicated, reordered]).toEqual([0, 0]);
});

test('locally: memory and taps are handed over to a process that has neither', async () => {
  const source = await lab.run('a');
  const there = await lab.receiveLocal('b', `unix:${lab.socket()}`);
  await lab.flows('a');
  const [, at] = await there.says(/listening at (.*)/);
  const moved = await lab.command('migrate', lab.path('a'), at!, '--local');
  expect(moved.all).toMatch(/the guest runs at the destination/);
  expect([moved.ended, await source.end()]).toEqual([0, 0]);
  await there.says(/runs here/);
  await lab.flows('b');
  expect(await lab.account('b')).toEqual(NOTHING_WRONG);
  expect((await lab.status('b')).taps).toEqual(['a']);
});

test('to a file, and on from there', async () => {
  const source = await lab.run('a');
  await lab.flows('a');
  // Nobody is there to keep what comes meanwhile.
  lab.station.hush();
  const file = lab.path('guest.saved');
  const saved = await lab.command('migrate', lab.path('a'), `file:${file}`);
  expect(saved.stdout).toMatch(/^saved to .*: [\d,]+ pages, .*, the guest stood for .*$/m);
  expect([saved.ended, await source.end()]).toEqual([0, 0]);
  expect(source.stdout).toMatch(/the guest is saved\n$/);
  const restored = lab.start(
    ['receive', `file:${file}`, '--tap', 'b', '--netns', lab.netns.path, '--backend', 'emulated', '--control'].concat(
      lab.path('b'),
    ),
  );
  await restored.says(/runs here/);
  await lab.netns.attach('br0', 'b');
  lab.station.start();
  await lab.flows('b');
  const { toNetwork } = await lab.account('b');
  // What the restored guest sent before its tap was joined to the bridge is lost, in order.
  expect(toNetwork).toMatchObject({ duplicated: 0, reordered: 0, corrupted: 0 });
  expect(await lab.order('b', 'stop', {})).toEqual({});
  expect(await restored.end()).toBe(0);
});

test('short orders: dirty-rate, announce, resolve', async () => {
  await lab.run('a');
  await lab.flows('a');
  const rate = await lab.command('dirty-rate', lab.path('a'), '--seconds', '0.4', '--bandwidth', '100');
  expect(rate.stdout).toMatch(/pages a second/);
  expect(rate.stdout).toMatch(/^ours +.*MB\/s/m);
  const json = await lab.command('dirty-rate', lab.path('a'), '--seconds', '0.3', '--json');
  const { pagesPerSecond, predictions } = JSON.parse(json.stdout) as Record<string, unknown>;
  expect(pagesPerSecond).toBeGreaterThan(0);
  expect(predictions).toHaveLength(3);
  const announced = await lab.command('announce', lab.path('a'));
  expect([announced.stdout, announced.ended]).toEqual(['announced in 5 rounds\n', 0]);
  const resolved = await lab.command('resolve', lab.path('a'), 'here');
  expect([resolved.ended, resolved.stderr]).toEqual([1, 'vhost-net: there is nothing to resolve: running\n']);
  await lab.flows('a');
});

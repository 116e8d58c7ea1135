/** Migrations that fail: the guest stays where it is, its traffic goes on, and the one who ordered it is told why. */
import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import type { TlsOptions } from '../../lib/migration/transport-tls';
import { Authority } from '../helpers/certificates';
import { CliLab, NOTHING_WRONG } from '../helpers/cli-lab';
import type { CliProcess } from '../helpers/cli-process';

const authority = new Authority('the authority');
const other = new Authority('another authority');
let lab: CliLab;
let source: CliProcess;

beforeEach(async () => {
  lab = await CliLab.create();
  source = await lab.run('a');
  await lab.flows('a');
});

afterEach(() => lab.close());

afterAll(() => {
  authority.remove();
  other.remove();
});

/** The guest never noticed. */
async function untouched(): Promise<void> {
  expect(source.ended).toBeNull();
  expect(await lab.status('a')).toMatchObject({ state: 'running', running: true });
  await lab.flows('a');
  expect(await lab.account('a')).toEqual(NOTHING_WRONG);
}

function tlsFlags(name: string, { ca, cert, key }: TlsOptions, peer?: string): string[] {
  const file = (what: string, pem: string | Buffer): string => {
    const path = lab.path(`${name}.${what}`);
    writeFileSync(path, pem);
    return path;
  };
  const files = ['--tls-ca', file('ca', ca), '--tls-cert', file('cert', cert), '--tls-key', file('key', key)];
  return peer === undefined ? files : [...files, '--tls-peer', peer];
}

test('a dry run says what differs and moves nothing, also where something is fatal', async () => {
  const there = await lab.receive('b', `unix:${lab.socket()}`);
  const dry = await lab.command('migrate', lab.path('a'), there.address, '--dry-run');
  expect(dry.all).toMatch(/everything in common/);
  expect(dry.ended).toBe(0);
  await there.process.says(/compared with a source, nothing was moved/);
  await lab.netns.ip('link', 'set', 'dev', 'b', 'mtu', '1400');
  const degraded = await lab.command('migrate', lab.path('a'), there.address, '--dry-run');
  expect(degraded.stdout).toMatch(/^degraded +mtu +1500 +1400$/m);
  expect(degraded.ended).toBe(0);
  await untouched();
});

test('nobody listens; half of what TLS takes; no control socket', async () => {
  const nobody = await lab.command('migrate', lab.path('a'), `unix:${lab.socket()}`);
  expect(nobody.ended).toBe(1);
  expect(nobody.stdout).toMatch(/the guest runs where it was\nENOENT: .*\nnobody listens there: start the destination/);
  const half = await lab.command('migrate', lab.path('a'), 'tcp:127.0.0.1:1', '--tls-ca', lab.path('ca'));
  expect([half.ended, half.stderr]).toEqual([1, 'vhost-net: --tls-cert and --tls-key missing (TLS takes all three)\n']);
  const missing = await lab.command('migrate', lab.path('none'), 'tcp:127.0.0.1:1');
  expect(missing.ended).toBe(1);
  expect(missing.stderr).toMatch(/^vhost-net: ENOENT: connect .*none' \(nobody listens there/m);
  const wrong = await lab.command('migrate', lab.path('a'), 'nowhere');
  expect(wrong.stderr).toMatch(/^vhost-net: address "nowhere" is none of tcp:HOST:PORT, unix:PATH or file:PATH$/m);
  await untouched();
});

test('a report, events or a file that cannot be written', async () => {
  const there = await lab.receive('b', `unix:${lab.socket()}`);
  for (const flags of [
    ['--report', lab.path('no/such/folder.html')],
    ['--events', lab.path('no/such/folder.jsonl')],
  ]) {
    const failed = await lab.command('migrate', lab.path('a'), there.address, ...flags);
    expect(failed.ended).toBe(1);
    expect(failed.stderr).toMatch(/^vhost-net: ENOENT: no such file or directory, open/m);
  }
  mkdirSync(lab.path('folder'));
  const saved = await lab.command('migrate', lab.path('a'), `file:${lab.path('folder')}`);
  expect([saved.ended, saved.stderr]).toEqual([1, expect.stringMatching(/exists and is no file/)]);
  await untouched();
});

test('TLS: a certificate of another authority and a wrong name are refused and said on both sides; then the right one moves the guest', async () => {
  const far = authority.tls('destination', { names: ['DNS:destination', 'IP:127.0.0.1'] });
  const there = await lab.receive('b', 'tcp:127.0.0.1:0', {}, ...tlsFlags('there', far, 'source'));
  const report = lab.path('report.html');
  const near = { ...other.tls('source'), ca: authority.ca };
  const to = ['migrate', lab.path('a'), there.address];
  const refused = await lab.command(...to, '--report', report, ...tlsFlags('wrong', near));
  expect(refused.ended).toBe(1);
  expect(refused.stdout).toMatch(
    /the guest runs where it was\nVHOST_ERR_TLS: .* refused this side: certificate: not signed/,
  );
  await there.process.says(/an attempt failed, still waiting: .* was refused: certificate: not signed/);
  expect(refused.stderr).toMatch(/no report: the two sides never spoke/);
  expect(existsSync(report)).toBe(false);
  const right = authority.tls('source');
  const elsewhere = await lab.command(...to, ...tlsFlags('right', right, 'elsewhere'));
  expect([elsewhere.ended, elsewhere.stdout]).toEqual([
    1,
    expect.stringMatching(/VHOST_ERR_TLS: .* was refused: wrong name/),
  ]);
  const plain = await lab.command(...to);
  expect(plain.ended).toBe(1);
  await lab.flows('a');
  const moved = await lab.command(...to, ...tlsFlags('right', right, 'destination'));
  expect(moved.all).toMatch(/the guest runs at the destination/);
  expect([moved.ended, await source.end()]).toEqual([0, 0]);
  await there.process.says(/runs here/);
  await lab.flows('b');
  expect(await lab.account('b')).toEqual(NOTHING_WRONG);
});

test('Ctrl-C cancels; the destination waits for the next one, which comes', async () => {
  const there = await lab.receive('b', `unix:${lab.socket()}`);
  const report = lab.path('report.html');
  const events = lab.path('events.jsonl');
  const slow = ['--max-bandwidth', '0.2', '--report', report, '--events', events];
  const cancelled = lab.start(['migrate', lab.path('a'), there.address, ...slow]);
  await cancelled.says(/copying memory/);
  await sleep(300);
  expect(await lab.status('a')).toMatchObject({ state: 'migrating', phase: 'precopy' });
  // One at a time.
  const second = await lab.command('migrate', lab.path('a'), there.address);
  expect([second.ended, second.stderr]).toEqual([1, expect.stringMatching(/this process is busy: migrating/)]);
  cancelled.kill('SIGINT');
  expect(await cancelled.end()).toBe(130);
  expect(cancelled.stdout).toMatch(/the migration was cancelled, the guest runs where it was/);
  expect(readFileSync(report, 'utf8')).toMatch(/<title>Migration of .*: cancelled<\/title>/);
  expect(JSON.parse(readFileSync(events, 'utf8').trimEnd().split('\n').at(-1)!)).toMatchObject({
    kind: 'end',
    outcome: 'cancelled',
    error: { code: 'VHOST_ERR_ABORTED' },
  });
  await there.process.says(/an attempt failed, still waiting: .*cancelled/);
  await lab.flows('a');
  const moved = await lab.command('migrate', lab.path('a'), there.address);
  expect(moved.all).toMatch(/the guest runs at the destination/);
  await there.process.says(/runs here/);
  await lab.flows('b');
  expect(await lab.account('b')).toEqual(NOTHING_WRONG);
});

test('who watches goes away, by a second Ctrl-C or for good: the migration goes on', async () => {
  const there = await lab.receive('b', `unix:${lab.socket()}`);
  const slow = ['--max-bandwidth', '2'];
  const killed = lab.start(['migrate', lab.path('a'), there.address, ...slow]);
  await killed.says(/copying memory/);
  killed.kill('SIGKILL');
  await killed.end();
  await there.process.says(/runs here/);
  expect(await source.end()).toBe(0);
  await lab.flows('b');
  expect(await lab.account('b')).toEqual(NOTHING_WRONG);
});

test('Ctrl-C twice leaves the migration alone', async () => {
  const there = await lab.receive('b', `unix:${lab.socket()}`);
  const watched = lab.start(['migrate', lab.path('a'), there.address, '--max-bandwidth', '0.2']);
  await watched.says(/copying memory/);
  // Then nobody answers the first one at once.
  source.kill('SIGSTOP');
  watched.kill('SIGINT');
  await watched.says(/cancelling/);
  watched.kill('SIGINT');
  expect(await watched.end()).toBe(130);
  expect(watched.stderr).toMatch(/^vhost-net: not watched any more: what was begun goes on by itself$/m);
  source.kill('SIGCONT');
  // The first one was an order all the same.
  await there.process.says(/an attempt failed, still waiting: .*cancelled/);
  await untouched();
});

test('the process that owns the guest dies in the middle: nobody can say where the guest is', async () => {
  const there = await lab.receive('b', `unix:${lab.socket()}`);
  const watched = lab.start(['migrate', lab.path('a'), there.address, '--max-bandwidth', '0.2']);
  await watched.says(/copying memory/);
  source.kill('SIGKILL');
  expect(await watched.end()).toBe(3);
  expect(watched.stderr).toMatch(/^vhost-net: the process behind .*a has gone \(look where the guest runs before/m);
});

test.each([
  ['uncertain', 3, /^UNCERTAIN: the guest may run at the destination\nVHOST_ERR_X: what happened\nwhat to do$/m],
  ['returned', 4, /it runs nowhere/],
  ['stranded', 4, /it runs nowhere/],
  ['failed', 1, /the guest runs where it was/],
  ['cancelled', 1, /the migration was cancelled/],
])('outcome %s: exit status %i', async (outcome, status, text) => {
  const error = { code: 'VHOST_ERR_X', message: 'what happened', hint: 'what to do' };
  const server = createServer((socket) => {
    socket.once('data', () =>
      socket.write(`${JSON.stringify({ id: 1, result: { outcome, error, result: null, record: null } })}\n`),
    );
  });
  await new Promise<void>((resolve) => server.listen(lab.path('fake'), resolve));
  const told = await lab.command('migrate', lab.path('fake'), 'unix:/nowhere');
  server.close();
  expect([told.ended, told.stdout]).toEqual([status, expect.stringMatching(text)]);
});

test('a control socket that cannot be: said before anything is received or run', async () => {
  const to = ['--tap', 'z', '--netns', lab.netns.path, '--backend', 'emulated', '--control'];
  for (const command of [['run'], ['receive', `unix:${lab.socket()}`]]) {
    const taken = await lab.command(...command, ...to, lab.path('a'));
    expect([taken.ended, taken.stderr]).toEqual([
      1,
      expect.stringMatching(/^vhost-net: EADDRINUSE: .*somebody listens there/m),
    ]);
  }
  await untouched();
});

test('a signal to a destination in the middle of a migration ends it; the guest goes on where it is', async () => {
  const there = await lab.receive('b', `unix:${lab.socket()}`);
  const watched = lab.start(['migrate', lab.path('a'), there.address, '--max-bandwidth', '0.2']);
  await watched.says(/copying memory/);
  there.process.kill('SIGTERM');
  expect(await there.process.end()).toBe(0);
  expect(there.process.stdout).toMatch(/ended by a signal\n$/);
  expect(await watched.end()).toBe(1);
  await untouched();
});

test('a signal to the source during a migration ends the migration and then the guest', async () => {
  const there = await lab.receive('b', `unix:${lab.socket()}`, {}, '--once');
  const watched = lab.start(['migrate', lab.path('a'), there.address, '--max-bandwidth', '0.2']);
  await watched.says(/copying memory/);
  await sleep(200);
  source.kill('SIGTERM');
  expect(await source.end()).toBe(0);
  expect(await watched.end()).toBe(1);
  expect(watched.stdout).toMatch(/cancelled/);
  expect(await there.process.end()).toBe(1);
  expect(existsSync(lab.path('a'))).toBe(false);
});

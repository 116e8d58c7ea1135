/** At most one process runs the guest, whichever of them is killed or stands still, and when. `npm run reliability` does it many times. */
import { setTimeout as sleep } from 'node:timers/promises';
import { FrameType } from '../../lib/migration/frame';
import { CliLab, NOTHING_WRONG } from '../helpers/cli-lab';
import type { CliProcess } from '../helpers/cli-process';
import { FrameProxy, type From, type OnFrame } from '../helpers/frame-proxy';
import { DEAD_AFTER_MS, killOnce, PHASES, planKill, randomNumbers } from './kill';

const seed = Number(process.env.RELIABILITY_SEED ?? Date.now() % 100_000);
const random = randomNumbers(seed);

const kills = [
  ...PHASES.slice(0, 6).map((phase) => planKill(random, phase, { how: 'kill', victim: 'destination' })),
  ...(['precopy', 'relay', 'switchover', 'commit'] as const).map((phase) =>
    planKill(random, phase, { how: 'kill', victim: 'source' }),
  ),
  planKill(random, 'precopy', { how: 'stop', victim: 'destination' }),
  planKill(random, 'switchover', { how: 'stop', victim: 'source' }),
].map((kill) => ({ ...kill, seed }));

test.each(kills)('$how the $victim $offsetMs ms after $phase (seed $seed)', async (kill) => {
  const { duplicated } = await killOnce(kill);
  expect(duplicated).toBe(0);
});

/** A migration that is struck between two frames, known exactly. */
async function between(from: From, type: FrameType, hit: (source: CliProcess, destination: CliProcess) => boolean) {
  const lab = await CliLab.create();
  const source = await lab.run('a');
  const behind = lab.socket();
  const destination = (await lab.receive('b', `unix:${behind}`, {}, '--dead-after', `${DEAD_AFTER_MS}`)).process;
  await lab.flows('a');
  let struck = false;
  const onFrame: OnFrame = (by, what) => {
    if (struck || by !== from || what !== type) return true;
    struck = true;
    return hit(source, destination);
  };
  const front = lab.socket();
  const proxy = await FrameProxy.listen(front, behind, onFrame);
  const options = { channels: 0, deadAfterMs: DEAD_AFTER_MS };
  const answer = await lab.order('a', 'migrate', { address: `unix:${front}`, options }).catch(() => null);
  expect(struck).toBe(true);
  const end = async (): Promise<void> => {
    await proxy.close();
    await lab.close();
  };
  return { lab, source, destination, behind, outcome: answer?.outcome ?? 'gone', [Symbol.asyncDispose]: end };
}

test('GO reaches a destination that stands still and is killed: the source waits to be told, and brings the guest back with every frame', async () => {
  await using struck = await between('destination', FrameType.READY, (_, destination) => {
    destination.kill('SIGSTOP');
    return true;
  });
  const { lab, destination, behind } = struck;
  expect(struck.outcome).toBe('uncertain');
  expect(await lab.status('a')).toMatchObject({ state: 'uncertain', running: false });
  expect(await lab.transmitting(['a', 'b'])).toEqual([]);
  await expect(lab.order('a', 'migrate', { address: `unix:${behind}` })).rejects.toMatchObject({
    code: 'VHOST_ERR_STATE',
    message: expect.stringContaining('the guest does not run here: uncertain'),
  });
  await expect(lab.order('a', 'stop', {})).rejects.toMatchObject({ code: 'VHOST_ERR_STATE' });
  destination.kill('SIGKILL');
  await destination.end();
  const told = await lab.command('resolve', lab.path('a'), 'here');
  expect([told.stdout, told.ended]).toEqual(['the guest runs here again\n', 0]);
  await lab.flows('a');
  await lab.receive('c', `unix:${behind}`);
  await lab.move('a', `unix:${behind}`, 'c');
  await lab.flows('c');
  expect(await lab.account('c')).toEqual(NOTHING_WRONG);
});

test('GO reaches a destination that stands still and goes on later: one of both runs the guest, the other never', async () => {
  await using struck = await between('destination', FrameType.READY, (_, destination) => {
    destination.kill('SIGSTOP');
    return true;
  });
  const { lab, source, destination } = struck;
  expect(struck.outcome).toBe('uncertain');
  destination.kill('SIGCONT');
  await destination.says(/runs here|an attempt failed/);
  await sleep(500);
  const runners = await lab.transmitting(['a', 'b']);
  expect(runners).toEqual(destination.stdout.includes('runs here') ? ['b'] : []);
  await lab.order('a', 'resolve', { where: runners.length === 1 ? 'there' : 'here' });
  if (runners.length === 1) expect(await source.end()).toBe(0);
  await lab.flows(runners[0] ?? 'a');
  expect(lab.station.ledger.duplicated).toBe(0);
});

test.each([
  ['the destination runs it', true],
  ['and GO is lost with it: the destination takes the next guest', false],
])('the source is killed when it has sent GO: %s', async (_, goes) => {
  await using struck = await between('source', FrameType.GO, (source) => {
    source.kill('SIGKILL');
    return goes;
  });
  const { lab, destination, behind } = struck;
  expect(struck.outcome).toBe('gone');
  if (goes) await destination.says(/runs here/);
  else {
    await destination.says(/an attempt failed/);
    expect(await lab.transmitting(['b'])).toEqual([]);
    expect(lab.station.ledger.duplicated).toBe(0);
    await lab.run('c');
    await lab.flows('c');
    await lab.move('c', `unix:${behind}`, 'b');
  }
  await lab.flows('b');
  expect(await lab.transmitting(['a', 'b'])).toEqual(['b']);
});

test('an order that is wrong, while the destination runs it: two guests are found, which shows that they would be', async () => {
  await using struck = await between('destination', FrameType.RUNNING, () => false);
  const { lab, destination } = struck;
  expect(struck.outcome).toBe('uncertain');
  await destination.says(/runs here/);
  expect(await lab.transmitting(['a', 'b'])).toEqual(['b']);
  expect(lab.station.ledger.duplicated).toBe(0);
  await lab.order('a', 'resolve', { where: 'here' });
  expect(await lab.transmitting(['a', 'b'])).toEqual(['a', 'b']);
  expect(lab.station.ledger.duplicated).toBeGreaterThan(0);
});

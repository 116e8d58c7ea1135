/** A destination that means harm, or a wire that damages, against a live source: its guest goes on with logging off, loses nothing, and can be moved. */
import { type Duplex, duplexPair } from 'node:stream';
import { GuestMemory } from '../../lib/memory/guest-memory';
import { Channel } from '../../lib/migration/channel';
import { describeSide } from '../../lib/migration/environment';
import { FRAME_HEADER_SIZE, FrameType, frameName } from '../../lib/migration/frame';
import { expectGoesOn, type Machine, type Place, Rig } from '../helpers/migration-rig';
import { type Answer, answerAsDestination } from '../helpers/pretended-destination';

const SIZE = 12 << 20;
const NOTHING = Buffer.alloc(0);
const NONCE = '0'.repeat(32);

let rig: Rig;
let here: Place;
let there: Place;
let machine: Machine;

beforeAll(async () => {
  rig = await Rig.create({ ringSize: 64 });
  [here, there] = [await rig.place('emulated'), await rig.place('emulated')];
  machine = await rig.boot(here, GuestMemory.create([{ gpa: 0, size: SIZE }]));
  await rig.flows(machine);
});

afterAll(async () => {
  await rig.close();
});

/** What is answered to frames of a type instead of the right thing; null for the right thing. */
type OneAnswer = (type: number, channel: Channel) => Answer | null | Promise<Answer | null>;

async function play(stream: Duplex, script: OneAnswer): Promise<void> {
  const channel = new Channel(stream, { timeoutMs: 3000 });
  const environment = await describeSide(machine.device.backend);
  await channel.answer();
  await answerAsDestination(channel, environment, async (type) => {
    const answer = await script(type, channel);
    return answer === null ? null : [answer];
  });
}

async function endOf(script: OneAnswer): Promise<{ code: string; message: string }> {
  const [near, far] = duplexPair();
  const playing = play(far, script).catch(() => undefined);
  const error = await rig
    .source(machine, { timeoutMs: 3000 })
    .migrate(near)
    .then(
      () => ({ code: 'none', message: 'it went well' }),
      (thrown: { code: string; message: string }) => thrown,
    );
  far.destroy();
  await playing;
  return error;
}

const goesOn = (): Promise<void> => expectGoesOn(rig, machine);

const at =
  (type: number, answer: Answer | null): OneAnswer =>
  (came) =>
    came === type ? answer : null;

test.each<[string, OneAnswer]>([
  ['SETUP_ACK of null', at(FrameType.SETUP, { json: null })],
  ['SETUP_ACK without differences', at(FrameType.SETUP, { json: { environment: {}, relay: true } })],
  ['differences of text', at(FrameType.SETUP, { json: { differences: 'none', relay: true } })],
  ['a difference of null', at(FrameType.SETUP, { json: { differences: [null], relay: true } })],
  ['a severity nobody knows', at(FrameType.SETUP, { json: { differences: [{ severity: 'deadly' }], relay: true } })],
  ['relay of text', at(FrameType.SETUP, { json: { differences: [], relay: 'yes' } })],
  ['SETUP_ACK of no JSON', at(FrameType.SETUP, { bytes: Buffer.from('{') })],
  ['READY for SETUP_ACK', at(FrameType.SETUP, { type: FrameType.READY, bytes: NOTHING })],
  ['RUNNING for SETUP_ACK', at(FrameType.SETUP, { type: FrameType.RUNNING, json: { startMs: 1 } })],
  ['PAGES for ROUND_ACK', at(FrameType.ROUND_END, { type: FrameType.PAGES, bytes: Buffer.alloc(16) })],
  ['READY for ROUND_ACK', at(FrameType.ROUND_END, { type: FrameType.READY, bytes: NOTHING })],
  ['ERROR for ROUND_ACK', at(FrameType.ROUND_END, { type: FrameType.ERROR, bytes: Buffer.from('{') })],
  ['OPENED of null', at(FrameType.OPEN, { json: null })],
  ['OPENED without a nonce', at(FrameType.OPEN, { json: {} })],
  ['an empty nonce, which every frame would carry', at(FrameType.OPEN, { json: { nonce: '' } })],
  ['a nonce of a number', at(FrameType.OPEN, { json: { nonce: 5 } })],
  ['a nonce too long', at(FrameType.OPEN, { json: { nonce: `${NONCE}00` } })],
  ['READY for OPENED', at(FrameType.OPEN, { type: FrameType.READY, bytes: NOTHING })],
  ['RUNNING for READY', at(FrameType.STATE, { type: FrameType.RUNNING, json: { startMs: 1 } })],
  ['AUDIT for READY', at(FrameType.STATE, { type: FrameType.AUDIT, bytes: Buffer.alloc(8) })],
  ['CANCEL for READY', at(FrameType.STATE, { type: FrameType.CANCEL, json: { reason: [] } })],
])('before GO: %s', async (_name, script) => {
  expect(await endOf(script)).toMatchObject({ code: expect.stringMatching(/PROTOCOL|MIGRATION|ABORTED/) });
  await goesOn();
});

test('GO that is answered by rubbish: uncertain, and by order the guest goes on here', async () => {
  for (const answer of [{ bytes: Buffer.from('{') }, { type: FrameType.SETTLED, json: {} }]) {
    const [near, far] = duplexPair();
    const playing = play(far, at(FrameType.GO, { type: FrameType.RUNNING, ...answer })).catch(() => undefined);
    const source = rig.source(machine, { timeoutMs: 3000 });
    await expect(source.migrate(near)).rejects.toMatchObject({ code: 'VHOST_ERR_UNCERTAIN' });
    far.destroy();
    await playing;
    await source.resolve('here');
    await goesOn();
  }
});

describe('a wire that changes what passes', () => {
  /** Lets frames of one direction through, one of them changed. */
  function wire(change: (type: number, frame: Buffer) => Buffer[]): [Duplex, Duplex] {
    const [near, left] = duplexPair();
    const [far, right] = duplexPair();
    let bytes = Buffer.alloc(0);
    let done = false;
    left.on('data', (chunk: Buffer) => {
      bytes = Buffer.concat([bytes, chunk]);
      while (bytes.length >= FRAME_HEADER_SIZE) {
        const length = FRAME_HEADER_SIZE + bytes.readUInt32LE(12);
        if (bytes.length < length) return;
        const frame = bytes.subarray(0, length);
        const passed = done ? [frame] : change(frame.readUInt16LE(4), frame);
        done ||= passed.length !== 1 || passed[0] !== frame;
        for (const each of passed) right.write(each);
        bytes = bytes.subarray(length);
      }
    });
    left.on('end', () => right.end());
    right.on('data', (chunk: Buffer) => left.write(chunk));
    right.on('end', () => left.end());
    for (const stream of [left, right]) stream.on('error', () => undefined);
    return [near, far];
  }

  const flip = (frame: Buffer, where: number): Buffer => {
    const changed = Buffer.from(frame);
    changed[where]! ^= 16;
    return changed;
  };
  const ways: [string, (frame: Buffer) => Buffer[]][] = [
    ['dropped', () => []],
    ['doubled', (frame) => [frame, frame]],
    ['with a bit of its header turned', (frame) => [flip(frame, 9)]],
    ['with its last bit turned', (frame) => [flip(frame, frame.length - 1)]],
  ];
  const types = [FrameType.SETUP, FrameType.PAGES, FrameType.ROUND_END, FrameType.OPEN, FrameType.STATE];

  test.each(ways)(
    'a frame %s',
    async (_way, change) => {
      for (const type of types) {
        const [near, far] = wire((came, frame) => (came === type ? change(frame) : [frame]));
        const receiving = rig.destination(there, there.host(), { timeoutMs: 1000 }).receive(far);
        const [sent, received] = await Promise.allSettled([
          rig.source(machine, { timeoutMs: 1000 }).migrate(near),
          receiving,
        ]);
        expect({ type: frameName(type), ends: [sent.status, received.status] }).toEqual({
          type: frameName(type),
          ends: ['rejected', 'rejected'],
        });
        near.destroy();
        far.destroy();
        await goesOn();
      }
    },
    60_000,
  );
});

test('after all of that it is moved, and every page is equal', async () => {
  const { result, machine: moved } = await rig.migrate(machine, there);
  machine = moved;
  expect(result.audit).toMatchObject({ differing: 0 });
  await rig.flows(machine);
});

test('all that was tried so far has cost no frame, either way', async () => {
  const { toNetwork, toGuest } = await rig.settle(machine);
  for (const way of [toNetwork, toGuest]) {
    expect(way).toMatchObject({ lost: 0, duplicated: 0, reordered: 0, corrupted: 0, received: way.sent });
  }
});

test('SETTLED or an audit of rubbish: the guest has arrived, only the proof is missing', async () => {
  for (const answer of ['null', '{}', '{"account":5}', '{"account":{}}', '{']) {
    const [near, far] = duplexPair();
    const playing = play(far, (type, channel) => {
      if (type === FrameType.GO) return { type: FrameType.RUNNING, json: { startMs: 1 } };
      if (type === FrameType.DRAINED) void channel.send(FrameType.SETTLED, Buffer.from(answer));
      return null;
    }).catch(() => undefined);
    const source = rig.source(machine, { timeoutMs: 2000 });
    const migrating = source.migrate(near);
    setTimeout(() => far.end(), 300);
    expect(await migrating).toMatchObject({ handover: { destination: null }, audit: null });
    far.destroy();
    await playing;
    // It is there now, as far as the source knows: the guest is put back by hand.
    await machine.device.start();
    machine.runner.resume();
  }
});

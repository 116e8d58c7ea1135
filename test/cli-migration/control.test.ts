/** The control socket: what strangers send, several orders at a time, and a device's orders without a command line. */
import { mkdtempSync, rmSync, statSync } from 'node:fs';
import { createConnection } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { ControlClient } from '../../lib/migration/control-client';
import type { Departure } from '../../lib/migration/control-desk';
import { LONGEST_ORDER } from '../../lib/migration/control-protocol';
import { ControlServer } from '../../lib/migration/control-server';
import { MigrationListener } from '../../lib/migration/listener';
import type { MigrationEvent } from '../../lib/migration/options';
import { type Machine, type Place, Rig } from '../helpers/migration-rig';

let rig: Rig;
let place: Place;
let machine: Machine;
let folder: string;
let server: ControlServer;
let departures: Departure[];

beforeEach(async () => {
  rig = await Rig.create({ rate: 500 });
  place = await rig.place('emulated');
  machine = await rig.boot(place);
  folder = mkdtempSync(join(tmpdir(), 'vhost-net-control-'));
  departures = [];
  const onLeft = (how: Departure): void => {
    departures.push(how);
    // As an owner does who ends with its guest.
    if (how === 'stopped') void server.close();
  };
  server = await ControlServer.serve(
    path(),
    { device: machine.device, guest: machine.runner },
    { describe: () => ({ said: 'by the owner' }), onLeft },
  );
});

afterEach(async () => {
  await server.close();
  await rig.close();
  rmSync(folder, { recursive: true });
});

const path = (): string => join(folder, 'control');

/** What the server answers to bytes, until it hangs up or `lines` have come. */
async function talk(bytes: string | Buffer, lines = Number.POSITIVE_INFINITY): Promise<unknown[]> {
  const socket = createConnection(path());
  let text = '';
  const count = () => text.split('\n').length - 1;
  await new Promise<void>((resolve, reject) => {
    socket.setEncoding('utf8').on('data', (piece: string) => {
      text += piece;
      if (count() >= lines) resolve();
    });
    socket.on('close', () => resolve());
    socket.on('error', reject);
    socket.write(bytes);
  });
  socket.destroy();
  return text
    .trimEnd()
    .split('\n')
    .map((line) => JSON.parse(line) as unknown);
}

const order = (method: unknown, params?: unknown, more: object = {}): string =>
  `${JSON.stringify({ id: 7, method, params, ...more })}\n`;

test.each<[string, string, string]>([
  ['a method nobody knows', order('reboot'), 'unknown method "reboot"'],
  ['a method of every object', order('constructor'), 'unknown method "constructor"'],
  ['a method that is no text', order(5), 'unknown method 5'],
  ['a parameter nobody knows', order('status', { verbose: true }), 'status: unknown parameter "verbose"'],
  [
    'a parameter of every object',
    '{"id":7,"method":"status","params":{"__proto__":1}}\n',
    'unknown parameter "__proto__"',
  ],
  ['a parameter that is missing', order('migrate', {}), 'migrate: parameter "address" is missing'],
  [
    'an option nobody knows',
    order('migrate', { address: 'unix:/x', options: { speed: 1 } }),
    'unknown parameter "speed"',
  ],
  ['an option out of range', order('migrate', { address: 'unix:/x', options: { channels: 17 } }), '"channels" is 17'],
  [
    'an option of another type',
    order('migrate', { address: 'unix:/x', options: { local: 'yes' } }),
    '"local" is "yes"',
  ],
  [
    'half of TLS',
    order('migrate', { address: 'unix:/x', options: { tls: { ca: 'x' } } }),
    'parameter "cert" is missing',
  ],
  ['parameters that are a list', order('status', []), 'status: params is []'],
  ['a path that is not absolute', order('save', { path: 'here' }), 'save: parameter "path" is "here"'],
  ['a place that is none', order('resolve', { where: 'anywhere' }), 'expected here or there'],
  ['a field nobody knows', order('status', {}, { jsonrpc: '2.0' }), 'an order with "jsonrpc"'],
])('%s is refused by name, and the connection goes on', async (_, line, message) => {
  const [refusal, status] = await talk(`${line}${order('status')}`, 2);
  expect(refusal).toMatchObject({
    id: 7,
    error: { code: 'VHOST_ERR_INVALID_ARGUMENT', message: expect.stringContaining(message) },
  });
  expect(status).toMatchObject({ id: 7, result: { state: 'running', owner: { said: 'by the owner' } } });
});

test.each<[string, string | Buffer, string]>([
  ['no JSON', 'hello\n', 'a line that is no JSON'],
  ['a line without an end', Buffer.alloc(LONGEST_ORDER + 1, 0x20), `a line of more than ${LONGEST_ORDER} bytes`],
])('%s: said once, and hung up', async (_, bytes, message) => {
  expect(await talk(bytes)).toEqual([{ id: null, error: { code: 'VHOST_ERR_PROTOCOL', message, hint: null } }]);
  expect(statSync(path()).mode & 0o777).toBe(0o600);
  await rig.flows(machine);
});

test('without an id an order is refused, not carried out', async () => {
  expect(await talk('{"method":"stop"}\n', 1)).toEqual([
    { id: null, error: expect.objectContaining({ message: 'an order without an id' }) },
  ]);
  await rig.flows(machine);
  expect(departures).toEqual([]);
});

test('answers of several orders at a time; a busy device says with what; cancel ends it', async () => {
  const client = await ControlClient.connect(path());
  const measured = client.call('dirty-rate', { seconds: 30 });
  measured.catch(() => undefined);
  await sleep(50);
  expect(await client.call('status', {})).toMatchObject({ state: 'measuring', running: true, taps: ['place0'] });
  await expect(client.call('migrate', { address: 'unix:/nowhere' })).rejects.toMatchObject({
    code: 'VHOST_ERR_STATE',
    message: 'this process is busy: measuring (wait for it, or cancel it)',
    hint: 'wait for it, or cancel it',
  });
  expect(await client.call('cancel', {})).toEqual({ cancelled: true });
  await expect(measured).rejects.toMatchObject({ code: 'VHOST_ERR_ABORTED' });
  expect(await client.call('cancel', {})).toEqual({ cancelled: false });
  const gone = client.call('dirty-rate', { seconds: 30 });
  gone.catch(() => undefined);
  await sleep(50);
  client.close();
  await expect(gone).rejects.toMatchObject({ code: 'VHOST_ERR_CLOSED' });
  // Nobody wants it any more.
  const other = await ControlClient.connect(path());
  await sleep(200);
  expect(await other.call('status', {})).toMatchObject({ state: 'running' });
  other.close();
});

test('a save that goes on, then one that does not: the owner is told, and nothing else is carried out', async () => {
  const client = await ControlClient.connect(path());
  expect(await client.call('save', { path: join(folder, 'one'), resume: true })).toMatchObject({
    pages: expect.any(Number),
  });
  await rig.flows(machine);
  expect(departures).toEqual([]);
  await client.call('save', { path: join(folder, 'two') });
  expect(departures).toEqual(['saved']);
  expect(await client.call('status', {})).toMatchObject({ state: 'saved', running: false });
  await expect(client.call('announce', {})).rejects.toThrow('the guest does not run here: saved');
  await expect(client.call('resolve', { where: 'here' })).rejects.toThrow('there is nothing to resolve: saved');
  client.close();
});

test('a migration: its events, its answer before the server goes, and then the status says where the guest is', async () => {
  const there = await rig.place('emulated');
  const listener = await MigrationListener.listen(`unix:${join(folder, 'there')}`, there.host());
  const client = await ControlClient.connect(path());
  const events: MigrationEvent[] = [];
  const params = { address: listener.address, options: { audit: true } };
  const answer = client.call('migrate', params, (event) => events.push(event));
  const { outcome, error, result, record } = await answer;
  expect([outcome, error]).toEqual(['completed', null]);
  expect(result?.audit?.differing).toBe(0);
  expect(record?.outcome).toBe('completed');
  expect(events.filter(({ kind }) => kind === 'phase')).toHaveLength(8);
  expect(departures).toEqual(['moved']);
  expect(await client.call('status', {})).toMatchObject({ state: 'moved', last: { outcome: 'completed' } });
  await server.close();
  await expect(client.call('status', {})).rejects.toMatchObject({ code: 'VHOST_ERR_CLOSED' });
  const { memory, device, guest } = await listener.arrived;
  await listener.close();
  await rig.discard({ memory, device, runner: guest });
});

test('stop ends the guest, and the answer arrives although the server is closed at once', async () => {
  const client = await ControlClient.connect(path());
  expect(await client.call('stop', {})).toEqual({});
  expect(departures).toEqual(['stopped']);
  await expect(client.call('status', {})).rejects.toMatchObject({ code: 'VHOST_ERR_CLOSED' });
  expect(machine.runner.running).toBe(false);
});

/** The device's state as it is written and read back (docs/migration-stream.md), and what of it is refused. */
import { DEFAULT_PROPERTIES } from '../../../lib/device/device-properties';
import {
  DEVICE_STATE_VERSION,
  type DeviceState,
  encodeDeviceState,
  validateDeviceState,
} from '../../../lib/device/device-state';
import { VirtioNetDevice } from '../../../lib/device/virtio-net-device';
import { ProtocolError } from '../../../lib/errors';
import { GuestMemory } from '../../../lib/memory/guest-memory';
import { DUPLEX_UNKNOWN, SPEED_UNKNOWN } from '../../../lib/net/config-space';
import { macs } from '../../helpers/control-commands';
import { EVERYTHING } from '../../helpers/device-rig';
import { fullState } from '../../helpers/device-states';
import { StubBackend } from '../../helpers/stub-backend';

type Json = Record<string, unknown>;
const throughJson = (value: unknown): Json => JSON.parse(JSON.stringify(value)) as Json;
const saved = (): Json => throughJson(encodeDeviceState(fullState()));

/** `saved` with the field at `path` replaced; undefined drops it. */
function mutated(path: string, value: unknown, state = saved()): Json {
  const names = path.split('.');
  const last = names.pop()!;
  const parent = names.reduce<Json>((at, name) => at[name] as Json, state);
  if (value === undefined) delete parent[last];
  else parent[last] = value;
  return state;
}

function refusal(state: unknown): ProtocolError {
  try {
    validateDeviceState(state);
  } catch (error) {
    expect(error).toBeInstanceOf(ProtocolError);
    return error as ProtocolError;
  }
  throw new Error('the state was accepted');
}

describe('written', () => {
  test('every field has its name, and JSON carries all of it', () => {
    const state = saved();
    expect(Object.keys(state)).toEqual([
      'version',
      'mandatory',
      'status',
      'features',
      'offered',
      'driverFeatures',
      'properties',
      'queues',
      'resetQueues',
      'controlQueue',
      'control',
      'config',
      'transport',
    ]);
    expect(state.version).toBe(DEVICE_STATE_VERSION);
    expect(state.features).toBe(`0x${'f'.repeat(32)}`);
    expect((state.control as Json).vlans).toEqual(Array.from({ length: 4096 }, (_, vid) => vid));
    expect((state.control as Json).guestOffloads).toBe('0x82');
    expect(validateDeviceState(state)).toEqual(fullState());
  });

  test('the transport is mandatory where there is one', () => {
    const without = encodeDeviceState({ ...fullState(), transport: null });
    expect(saved().mandatory).toEqual([...without.mandatory, 'transport']);
    expect(without.mandatory.every((name) => name in without)).toBe(true);
    expect(validateDeviceState(throughJson(without)).transport).toBeNull();
  });

  test('shares nothing with the device', () => {
    const parts = fullState();
    const before = structuredClone(parts);
    const state = encodeDeviceState(parts);
    spoil(state);
    expect(parts).toEqual(before);
    expect(encodeDeviceState({ ...fullState(), transport: null }).mandatory).toContain('queues');
  });
});

/** Changes everything that can be changed in place, however deep. */
function spoil(value: object): void {
  for (const [key, entry] of Object.entries(value)) {
    if (typeof entry === 'object' && entry !== null) spoil(entry);
    (value as Json)[key] = 'spoilt';
  }
}

describe('read', () => {
  test('shares nothing with what it was read from', () => {
    const state = mutated('transport', { kind: 'any', nested: { deeply: [{ list: [1] }] } });
    const parts = validateDeviceState(state);
    const before = structuredClone(parts);
    spoil(state);
    expect(parts).toEqual(before);
  });

  test('unknown fields are ignored, everywhere; a mandatory one that is unknown is refused by name', () => {
    const state = saved();
    for (const place of [state, state.properties, state.control, state.config, state.controlQueue] as Json[])
      place.later = { anything: [1] };
    expect(validateDeviceState(state)).toEqual(fullState());
    (state.mandatory as string[]).push('later');
    expect(refusal(state).message).toMatch(/mandatory field "later"/);
  });

  test.each([
    ['a number', 1],
    ['null', null],
    ['an object that will not be a string', { toString: 1, valueOf: 1 }],
    ['a list', ['status']],
    ['a name of Object.prototype', 'constructor'],
    ['another', '__proto__'],
  ])('a mandatory name that is %s: refused', (_name, name) => {
    expect(refusal(mutated('mandatory', ['status', name])).message).toMatch(/mandatory field/);
  });

  test('of version 1: everything that came later has its default', () => {
    const queue = { size: 128, ready: true, descTable: 0x1000, availRing: 0x2000, usedRing: 0x3000, nextAvail: 7 };
    const queues = [queue, { ...queue, size: 64 }, queue, queue];
    const state = { version: 1, mandatory: ['features', 'queues'], features: '0x100010002', mac: '02:00:00:00:00:02' };
    const parts = validateDeviceState(throughJson({ ...state, mtu: 1400, queues }));
    expect(parts).toEqual({
      status: 15,
      features: 0x1_0001_0002n,
      offered: 0x1_0001_0002n,
      driverFeatures: 0x1_0001_0002n,
      properties: {
        ...DEFAULT_PROPERTIES,
        mac: '02:00:00:00:00:02',
        pairs: 2,
        rxQueueSize: 128,
        txQueueSize: 64,
        mtu: 1400,
      },
      queues,
      resetQueues: [],
      controlQueue: { size: 64, ready: false, descTable: 0, availRing: 0, usedRing: 0, nextAvail: 0 },
      control: {
        receiveFilter: {
          promiscuous: true,
          allMulticast: false,
          allUnicast: false,
          noMulticast: false,
          noUnicast: false,
          noBroadcast: false,
          mac: '02:00:00:00:00:02',
          unicast: [],
          multicast: [],
          unicastOverflow: false,
          multicastOverflow: false,
          vlans: null,
        },
        activePairs: 2,
        guestOffloads: 2n,
        announcePending: false,
      },
      config: { linkUp: true, mtu: 1400, speed: SPEED_UNKNOWN, duplex: DUPLEX_UNKNOWN, generation: 0 },
      transport: null,
    });
    expect(validateDeviceState(throughJson({ ...state, queues })).properties.mtu).toBe(1500);
    expect(refusal(throughJson({ ...state, mac: undefined, queues })).message).toMatch(/mac is missing/);
  });

  test('of version 2, with nothing but what must be there', () => {
    const queue = { size: 16, ready: false, descTable: 0, availRing: 0, usedRing: 0, nextAvail: 0 };
    const parts = validateDeviceState({
      version: 2,
      features: '0x0',
      queues: [queue, queue],
      properties: { mac: '02:00:00:00:00:02' },
    });
    expect(parts).toMatchObject({
      status: 15,
      offered: 0n,
      driverFeatures: 0n,
      properties: { ...DEFAULT_PROPERTIES, mac: '02:00:00:00:00:02' },
      control: { activePairs: 1 },
      config: { linkUp: true, mtu: 1500 },
      transport: null,
    });
  });

  const bad = {
    integer: [null, '1', 1.5, Number.NaN, Number.POSITIVE_INFINITY, -1, 2 ** 53, true, [1], {}],
    boolean: [null, 0, 1, 'true', [], {}],
    features: [null, 1, '1', '0x', '0xg', '0X1', '0x1 ', `0x${'f'.repeat(33)}`, ['0x1'], {}],
    mac: [null, 1, '', '02:00:00:00:00', '02:00:00:00:00:0A', '02:00:00:00:00:00:00', '02-00-00-00-00-00', ['02']],
    list: [null, 'list', {}, { length: 2 }, 7],
    object: ['object', 7, [], [1], true],
    name: [7, [], {}, true, 'x'.repeat(65)],
  };
  type Field = {
    path: string;
    kind: keyof typeof bad;
    /** What it may not be beside what its kind says. */
    also?: unknown[];
    /** In the message; else the last part of the path. */
    name?: RegExp;
    /** Null stands for the default. */
    nullable?: boolean;
  };
  const entries = (count: number, entry: unknown): unknown[] => Array.from({ length: count }, () => entry);
  const flags = [
    ...['promiscuous', 'allMulticast', 'allUnicast', 'noMulticast', 'noUnicast', 'noBroadcast'],
    ...['unicastOverflow', 'multicastOverflow', 'announcePending'],
  ];
  const FIELDS: Field[] = [
    { path: 'version', kind: 'integer', also: [0, 3, undefined] },
    { path: 'mandatory', kind: 'list', also: [entries(257, 'status')], nullable: true },
    // 16 and 32 are no bits; 4 without 8, 8 without 2.
    { path: 'status', kind: 'integer', also: [256, 16, 32, 4, 7, 8, 12], nullable: true },
    { path: 'features', kind: 'features', also: [undefined] },
    { path: 'offered', kind: 'features', also: ['0x0'] },
    { path: 'driverFeatures', kind: 'features' },
    { path: 'properties', kind: 'object', also: [undefined, null] },
    { path: 'properties.mac', kind: 'mac', also: [undefined] },
    { path: 'properties.pairs', kind: 'integer', also: [0, 9, 7] },
    ...['rxQueueSize', 'txQueueSize', 'ctrlQueueSize'].map(
      (name): Field => ({ path: `properties.${name}`, kind: 'integer', also: [0, 3, 65536] }),
    ),
    { path: 'properties.mtu', kind: 'integer', also: [67, 65536] },
    { path: 'properties.indirect', kind: 'boolean' },
    { path: 'properties.speed', kind: 'integer', also: [2 ** 31, 2 ** 32] },
    { path: 'properties.duplex', kind: 'integer', also: [2, 254, 256] },
    { path: 'properties.profile', kind: 'name' },
    { path: 'queues', kind: 'list', also: [undefined, [], [1], entries(18, {}), entries(3, {})], name: /queue/ },
    { path: 'queues.3', kind: 'object', also: [null], name: /queue 3 is/ },
    { path: 'queues.3.size', kind: 'integer', also: [0, 32769, undefined], name: /queue 3 size/ },
    { path: 'queues.3.ready', kind: 'boolean', also: [undefined], name: /queue 3 ready/ },
    { path: 'queues.3.descTable', kind: 'integer', also: [8, 1, undefined], name: /queue 3 descTable/ },
    { path: 'queues.3.availRing', kind: 'integer', also: [2, undefined], name: /queue 3 availRing/ },
    { path: 'queues.3.usedRing', kind: 'integer', also: [2, undefined], name: /queue 3 usedRing/ },
    { path: 'queues.3.nextAvail', kind: 'integer', also: [200, undefined], name: /queue 3 nextAvail/ },
    { path: 'queues.3.packed', kind: 'object', also: [null], name: /queue 3 packed is/ },
    { path: 'queues.3.packed.availWrap', kind: 'boolean', also: [undefined], name: /queue 3 packed availWrap/ },
    { path: 'queues.3.packed.nextUsed', kind: 'integer', also: [200, undefined], name: /queue 3 packed nextUsed/ },
    { path: 'queues.3.packed.usedWrap', kind: 'boolean', also: [undefined], name: /queue 3 packed usedWrap/ },
    { path: 'resetQueues', kind: 'list', also: [[17], [-1], ['1'], entries(18, 0)], nullable: true },
    { path: 'controlQueue', kind: 'object', name: /control queue/ },
    { path: 'controlQueue.size', kind: 'integer', also: [undefined], name: /control queue size/ },
    { path: 'control', kind: 'object' },
    { path: 'control.mac', kind: 'mac', nullable: true },
    ...flags.map((flag): Field => ({ path: `control.${flag}`, kind: 'boolean', nullable: true })),
    { path: 'control.unicast', kind: 'list', also: [macs(65), ['x'], [1], [null]], nullable: true },
    { path: 'control.multicast', kind: 'list', also: [macs(65), ['x']], nullable: true },
    // 24 of the other kind are there.
    { path: 'control.unicast', kind: 'list', also: [macs(41)], name: /MAC table|unicast/, nullable: true },
    {
      path: 'control.vlans',
      kind: 'list',
      also: [[4096], [-1], ['1'], [1.5], entries(4097, 1)],
      name: /VLAN|vlans/,
      nullable: true,
    },
    { path: 'control.activePairs', kind: 'integer', also: [0, 9], nullable: true },
    { path: 'control.guestOffloads', kind: 'features', also: ['0x1'] },
    { path: 'config', kind: 'object' },
    { path: 'config.linkUp', kind: 'boolean', nullable: true },
    { path: 'config.mtu', kind: 'integer', also: [67, 65536], nullable: true },
    { path: 'config.speed', kind: 'integer', also: [2 ** 31], nullable: true },
    { path: 'config.duplex', kind: 'integer', also: [2], nullable: true },
    { path: 'config.generation', kind: 'integer', also: [2 ** 32], nullable: true },
    { path: 'transport', kind: 'object', also: [nested(10)] },
  ];

  function nested(levels: number): Json {
    return levels === 0 ? {} : { deeper: nested(levels - 1) };
  }

  test.each(FIELDS)('$path: what it may not be is refused by name', ({ path, kind, also = [], name, nullable }) => {
    const values = [...bad[kind].filter((value) => value !== null || !nullable), ...also];
    for (const value of values) {
      const { message, expected, code } = refusal(mutated(path, value));
      expect([value, message]).toEqual([value, expect.stringMatching(name ?? new RegExp(path.split('.').at(-1)!))]);
      expect([code, expected.length > 0]).toEqual(['VHOST_ERR_PROTOCOL', true]);
    }
    expect(values.length).toBeGreaterThan(3);
  });

  test('every field that is written has a line above', () => {
    const lines = new Set(FIELDS.map(({ path }) => path));
    const state = encodeDeviceState(fullState());
    const paths = [
      ...Object.keys(state),
      ...(['properties', 'control', 'config'] as const).flatMap((part) =>
        Object.keys(state[part]).map((name) => `${part}.${name}`),
      ),
      ...Object.keys(state.queues[3]!).map((name) => `queues.3.${name}`),
      ...Object.keys(state.queues[3]!.packed!).map((name) => `queues.3.packed.${name}`),
    ];
    expect(paths.filter((path) => !lines.has(path))).toEqual([]);
  });

  test('registers of a queue that is not enabled are whatever a driver has written to them', () => {
    const written = {
      size: 0,
      ready: false,
      descTable: 2 ** 64,
      availRing: 3,
      usedRing: 2 ** 53,
      nextAvail: 0,
    };
    for (const size of [0, 3, 0xffffffff]) {
      const queue = { ...written, size };
      expect(validateDeviceState(mutated('queues.3', queue)).queues[3]).toEqual(queue);
      expect(validateDeviceState(mutated('controlQueue', queue)).controlQueue).toEqual(queue);
      expect(refusal(mutated('queues.3', { ...queue, ready: true })).message).toMatch(/queue 3/);
    }
    for (const [field, value] of [
      ['size', 2 ** 32],
      ['size', 1.5],
      ['descTable', -1],
      ['descTable', 2 ** 65],
      ['usedRing', Number.NaN],
      ['nextAvail', 65536],
    ] as const) {
      expect(refusal(mutated('queues.3', { ...written, [field]: value })).message).toMatch(`queue 3 ${field} is`);
    }
  });

  test.each([
    ['a ready queue that is not packed', 'queues.3.packed'],
    ['a ready control queue that is not packed', 'controlQueue.packed'],
  ])('%s, of a driver that acked RING_PACKED: refused', (_name, path) => {
    const state = mutated(path, undefined);
    const queue = path
      .split('.')
      .slice(0, -1)
      .reduce<Json>((at, name) => at[name] as Json, state);
    queue.size = 256;
    expect(refusal(state).message).toMatch(/format that was not acked/);
    queue.ready = false;
    expect(validateDeviceState(state).features).toBe(EVERYTHING);
  });

  test('a packed queue of a driver that did not ack RING_PACKED: refused', () => {
    const state = mutated('features', '0x100000000');
    (state.control as Json).vlans = null;
    (state.control as Json).guestOffloads = '0x0';
    expect(refusal(state).message).toMatch(/format that was not acked/);
  });

  test('VLANs that nobody can have named: refused', () => {
    const state = mutated('features', `0x${(EVERYTHING & ~(1n << 19n)).toString(16)}`);
    expect(refusal(state).message).toMatch(/VLANs/);
    (state.control as Json).vlans = null;
    expect(validateDeviceState(state).control.receiveFilter.vlans).toBeNull();
  });

  test.each([undefined, null, 7, 'state', [], [saved()], true, Number.NaN, 7n, Symbol('state'), () => undefined])(
    'no object at all (%p): refused',
    (state) => {
      expect(refusal(state).message).toMatch(/state is/);
    },
  );

  test('what hostile senders think of: long, deep and prototypes', () => {
    const deep = JSON.parse(`${'['.repeat(100_000)}${']'.repeat(100_000)}`) as unknown;
    const deepObject = JSON.parse(`${'{"a":'.repeat(100_000)}1${'}'.repeat(100_000)}`) as unknown;
    const long = 'x'.repeat(1_000_000);
    for (const path of ['version', 'mandatory', 'features', 'queues', 'properties', 'control', 'config', 'status']) {
      for (const value of [deep, long, [deep], [{ toJSON: long }]]) {
        expect(refusal(mutated(path, value)).message.length).toBeLessThan(400);
      }
    }
    for (const path of ['version', 'mandatory', 'features', 'queues', 'properties', 'controlQueue', 'status']) {
      expect(refusal(mutated(path, deepObject)).message.length).toBeLessThan(400);
    }
    // An unknown field that nobody looks at.
    expect(validateDeviceState(mutated('later', deepObject))).toEqual(fullState());
    for (const value of [{ deep }, { deepObject }]) {
      expect(refusal(mutated('transport', value)).message).toMatch(/transport is nested too deep/);
    }
    expect(refusal(deep).message).toMatch(/state is a list of 1/);
  });

  test('a list with holes has nothing in them', () => {
    const state = saved();
    for (const list of [(state.control as Json).unicast, state.queues] as unknown[][]) {
      const entry = list[1];
      delete list[1];
      expect(refusal(state).message).toMatch(/(unicast|queue 1) is missing/);
      list[1] = entry;
    }
    expect(validateDeviceState(state)).toEqual(fullState());
  });

  test('keys of prototypes are keys like others', () => {
    const evil =
      '{"__proto__": {"polluted": 1, "mac": "02:00:00:00:00:66"}, "constructor": {"prototype": {"polluted": 1}}}';
    const state = saved();
    const places = ['properties', 'control', 'config', 'controlQueue', 'transport'];
    for (const place of places) state[place] = { ...(state[place] as Json), ...(JSON.parse(evil) as Json) };
    const whole = JSON.parse(`{"__proto__": {"polluted": 1}, ${JSON.stringify(state).slice(1)}`) as unknown;
    const { transport, ...parts } = validateDeviceState(whole);
    const { transport: _, ...expected } = fullState();
    expect(parts).toEqual(expected);
    expect(Object.getPrototypeOf(transport)).toBe(Object.prototype);
    expect((transport as Json).polluted).toBeUndefined();
    expect(({} as Json).polluted).toBeUndefined();
    // Of a field that is missing nothing is taken from a prototype that was sent.
    const without = JSON.parse('{"__proto__": {"mac": "02:00:00:00:00:66"}}') as Json;
    expect(refusal(mutated('properties', without)).message).toMatch(/property mac is missing/);
  });

  test('cut short anywhere: no JSON, or refused', () => {
    const text = JSON.stringify(encodeDeviceState(fullState()));
    let parsed = 0;
    for (let end = 0; end < text.length; end += 7) {
      let value: unknown;
      try {
        value = JSON.parse(text.slice(0, end));
      } catch {
        continue;
      }
      parsed++;
      refusal(value);
    }
    expect(parsed).toBe(0);
    // Every field dropped, one after the other.
    const state = saved() as unknown as DeviceState;
    const fails = Object.keys(state).filter((name) => {
      const rest = throughJson(state);
      delete rest[name];
      try {
        validateDeviceState(rest);
        return false;
      } catch (error) {
        expect(error).toBeInstanceOf(ProtocolError);
        return true;
      }
    });
    expect(fails).toEqual(['version', 'features', 'properties', 'queues']);
  });
});

describe('a device is built of it', () => {
  let memory: GuestMemory;

  beforeEach(() => {
    memory = GuestMemory.create([{ gpa: 0, size: 0x10_0000 }]);
  });

  afterEach(() => {
    memory.close();
  });

  const restore = (state: unknown, properties?: DeviceState['properties']) =>
    VirtioNetDevice.restore(state, { memory, backend: new StubBackend(), ...(properties && { properties }) });

  test('and says the same again', async () => {
    await using device = restore(saved());
    expect(throughJson(device.save())).toEqual(saved());
    expect([device.mac, device.mtu, device.linkUp, device.configGeneration, device.activePairs]).toEqual([
      '02:00:00:00:00:0b',
      1280,
      false,
      0xffffffff,
      5,
    ]);
    // The next generation after the highest is 0.
    device.setMtu(1300);
    expect(device.configGeneration).toBe(0);
  });

  test('what it says is its own', async () => {
    await using device = restore(saved());
    spoil(device.save());
    expect(throughJson(device.save())).toEqual(saved());
  });

  test('where properties differ all of them are told in one error', async () => {
    const { properties } = fullState();
    await using device = restore(saved(), properties);
    expect(device.properties).toEqual(properties);
    const others = {
      mac: '02:00:00:00:00:99',
      pairs: 4,
      rxQueueSize: 256,
      txQueueSize: 256,
      ctrlQueueSize: 64,
      mtu: 1500,
      indirect: true,
      speed: SPEED_UNKNOWN,
      duplex: DUPLEX_UNKNOWN,
      profile: null,
    };
    const difference = (name: keyof typeof others): string => `${name} ${properties[name]} there, ${others[name]} here`;
    const names = Object.keys(others) as (keyof typeof others)[];
    expect(names).toEqual(Object.keys(properties));
    expect(() => restore(saved(), others)).toThrow(
      expect.objectContaining({
        code: 'VHOST_ERR_INCOMPATIBLE',
        message: `device properties differ: ${names.map(difference).join('; ')}`,
      }),
    );
    for (const name of names) {
      expect(() => restore(saved(), { ...properties, [name]: others[name] })).toThrow(
        expect.objectContaining({ message: `device properties differ: ${difference(name)}` }),
      );
    }
  });
});

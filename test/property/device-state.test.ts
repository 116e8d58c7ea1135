/** Any state comes back as it was; anything else is accepted only where it is a state too, and never ends in another error. */
import * as fc from 'fast-check';
import { encodeDeviceState, validateDeviceState } from '../../lib/device/device-state';
import { ProtocolError } from '../../lib/errors';
import { deviceStates, fullState } from '../helpers/device-states';

type Json = Record<string, unknown>;
const throughJson = (value: unknown): Json => JSON.parse(JSON.stringify(value)) as Json;

test('round trip', () => {
  void fc.assert(
    fc.property(deviceStates, (state) => {
      const read = validateDeviceState(throughJson(encodeDeviceState(state)));
      expect(read).toEqual(state);
      expect(encodeDeviceState(read)).toEqual(encodeDeviceState(state));
    }),
    { numRuns: 200 },
  );
});

/** Every place in a state: the object, the key. */
function places(value: unknown, found: [Json, string][] = []): [Json, string][] {
  if (typeof value !== 'object' || value === null || ArrayBuffer.isView(value)) return found;
  for (const key of Object.keys(value)) {
    found.push([value as Json, key]);
    places((value as Json)[key], found);
  }
  return found;
}

const anything = fc.oneof(
  fc.constantFrom<unknown>(null, -1, 1.5, Number.NaN, Number.POSITIVE_INFINITY, 2 ** 53, 1e300, '', '0x', [], {}, true),
  fc.constantFrom<unknown>(0, 1, 16, 255, 4096, 65536, 2 ** 32, '0x1', '02:00:00:00:00:01', 'status'),
  fc.anything({
    maxDepth: 2,
    withBigInt: true,
    withNullPrototype: true,
    withDate: true,
    withTypedArray: true,
    withMap: true,
  }),
  fc.jsonValue(),
);

/** Accepted, with a result that is valid itself, or refused with a ProtocolError that says what it expected. */
function accepted(state: unknown): boolean {
  let parts: ReturnType<typeof validateDeviceState>;
  try {
    parts = validateDeviceState(state);
  } catch (error) {
    expect(error).toBeInstanceOf(ProtocolError);
    expect((error as ProtocolError).message.length).toBeLessThan(600);
    return false;
  }
  // What a transport has for itself is its own: anything that is not too deep.
  const again = { ...parts, transport: null };
  expect(validateDeviceState(encodeDeviceState(again))).toEqual(again);
  return true;
}

let good = 0;
let refused = 0;
const count = (was: boolean): void => {
  if (was) good++;
  else refused++;
};

test('any fields of any state replaced by anything, or dropped', () => {
  void fc.assert(
    fc.property(
      fc.oneof(deviceStates, fc.constant(fullState())),
      fc.array(fc.tuple(fc.noBias(fc.nat()), fc.option(anything, { nil: undefined, freq: 5 })), {
        minLength: 1,
        maxLength: 3,
      }),
      (state, changes) => {
        const mutable = throughJson(
          encodeDeviceState({
            ...state,
            control: {
              ...state.control,
              receiveFilter: {
                ...state.control.receiveFilter,
                vlans: state.control.receiveFilter.vlans && new Uint8Array(512),
              },
            },
          }),
        );
        for (const [pick, value] of changes) {
          const all = places(mutable);
          const [object, key] = all[pick % all.length]!;
          if (value === undefined) delete object[key];
          else object[key] = value;
        }
        count(accepted(mutable));
      },
    ),
    { numRuns: 800 },
  );
  // Both ends are met often.
  expect([good > 8, refused > 200]).toEqual([true, true]);
});

test('anything at all', () => {
  void fc.assert(
    fc.property(anything, (value) => {
      expect(accepted(value)).toBe(false);
    }),
    { numRuns: 500 },
  );
});

test('nothing that was sent reaches a prototype', () => {
  const before = Object.getOwnPropertyNames(Object.prototype);
  const keys = fc.constantFrom('__proto__', 'constructor', 'prototype', 'toString', 'hasOwnProperty', 'mac', 'version');
  void fc.assert(
    fc.property(fc.array(fc.tuple(fc.nat(), keys, fc.jsonValue()), { minLength: 1, maxLength: 5 }), (additions) => {
      const state = throughJson(encodeDeviceState(fullState()));
      for (const [pick, key, value] of additions) {
        const objects = [state, ...places(state).map(([object, name]) => object[name])].filter(
          (object): object is Json => typeof object === 'object' && object !== null && !Array.isArray(object),
        );
        const object = objects[pick % objects.length]!;
        Object.defineProperty(object, key, { value, enumerable: true, configurable: true, writable: true });
      }
      accepted(state);
      expect(Object.getOwnPropertyNames(Object.prototype)).toEqual(before);
      expect(({} as Json).polluted).toBeUndefined();
    }),
    { numRuns: 300 },
  );
});

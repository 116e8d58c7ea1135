/** Which features need which (virtio 1.4 section 5.1.3.1), and what is offered. */
import * as fc from 'fast-check';
import * as net from '../../../lib/constants/virtio-net';
import {
  DEVICE_FEATURES,
  FEATURE_PROFILES,
  GUEST_OFFLOADS,
  offeredFeatures,
  unmetDependencies,
  withoutUnmet,
} from '../../../lib/net/feature-rules';
import { bit, bits, featureNames, hasBit } from '../../../lib/net/features';
import { EVERYTHING } from '../../helpers/device-rig';

const N = net;
/** The specification's list, as numbers: each bit, and of each group that it needs one. */
const NEEDS: readonly (readonly [number, ...(readonly number[])[]])[] = [
  [7, [1]],
  [8, [1]],
  [9, [7, 8]],
  [10, [1]],
  [54, [1]],
  [55, [1]],
  [65, [7], [8], [54], [55]],
  [66, [65]],
  [11, [0]],
  [12, [0]],
  [13, [11, 12]],
  [14, [0]],
  [56, [0]],
  [67, [11], [12], [56]],
  [68, [67]],
  [2, [17]],
  [18, [17]],
  [19, [17]],
  [20, [17]],
  [21, [17]],
  [22, [17]],
  [23, [17]],
  [50, [17]],
  [52, [17]],
  [53, [17]],
  [57, [17]],
  [60, [17]],
  [61, [11, 12]],
  [64, [60]],
  [51, [60, 57]],
];
const met = (features: bigint, groups: readonly (readonly number[])[]): boolean =>
  groups.every((group) => group.some((number) => hasBit(features, number)));
const named = (number: number): string => featureNames(bit(number))[0]!;

const someFeatures = fc
  .uniqueArray(
    fc.oneof(fc.constantFrom(...NEEDS.flatMap(([number, ...groups]) => [number, ...groups.flat()])), fc.nat(127)),
  )
  .map((numbers) => bits(...numbers));

test.each(NEEDS.map(([number, ...groups]) => [named(number), number, groups] as const))(
  '%s',
  (name, number, groups) => {
    expect(unmetDependencies(bit(number))).toEqual([
      `${name} needs ${groups.map((group) => group.map(named).join(' or ')).join(' and ')}`,
    ]);
    // With any one of each group it is met, and what is left to complain about is others.
    for (const choice of groups.reduce<number[][]>(
      (all, group) => all.flatMap((left) => group.map((one) => [...left, one])),
      [[]],
    )) {
      const complaints = unmetDependencies(bits(number, ...choice));
      expect(complaints.filter((complaint) => complaint.startsWith(`${name} needs`))).toEqual([]);
    }
    // Without any one of the groups it is not.
    for (const group of groups) {
      const others = EVERYTHING & ~bits(...group);
      expect(unmetDependencies(others).some((complaint) => complaint.startsWith(`${name} needs`))).toBe(true);
      expect(hasBit(withoutUnmet(others), number)).toBe(false);
    }
  },
);

test('any set: exactly what the list says, each bit told once', () => {
  void fc.assert(
    fc.property(someFeatures, (features) => {
      const unmet = NEEDS.filter(([number, ...groups]) => hasBit(features, number) && !met(features, groups));
      const told = unmetDependencies(features).map((complaint) => complaint.split(' ')[0]);
      expect([...told].sort()).toEqual(unmet.map(([number]) => named(number)).sort());
    }),
    { numRuns: 500 },
  );
});

test('the largest subset that depends on nothing outside of it', () => {
  void fc.assert(
    fc.property(someFeatures, (features) => {
      const left = withoutUnmet(features);
      expect(left & ~features).toBe(0n);
      expect(unmetDependencies(left)).toEqual([]);
      expect(withoutUnmet(left)).toBe(left);
      // Largest: met sets have met unions, so no bit that was taken away can come back with the others that were.
      let grown = left;
      for (let again = true; again; ) {
        again = false;
        for (let number = 0; number < 128; number++) {
          if (!hasBit(features & ~grown, number)) continue;
          const rule = NEEDS.find(([one]) => one === number);
          if (rule !== undefined && !met(grown, rule.slice(1) as number[][])) continue;
          grown |= bit(number);
          again = true;
        }
      }
      expect(grown).toBe(left);
    }),
    { numRuns: 500 },
  );
});

test('a chain falls down to its end', () => {
  const chain = bits(N.VIRTIO_NET_F_GUEST_UDP_TUNNEL_GSO_CSUM, N.VIRTIO_NET_F_GUEST_UDP_TUNNEL_GSO);
  const segments = bits(7, 8, 54, 55);
  expect(withoutUnmet(chain | segments | bit(1))).toBe(chain | segments | bit(1));
  expect(withoutUnmet(chain | segments)).toBe(0n);
  expect(withoutUnmet(bits(N.VIRTIO_NET_F_HASH_TUNNEL, N.VIRTIO_NET_F_RSS, N.VIRTIO_NET_F_RSS_CONTEXT))).toBe(0n);
});

describe('what is offered', () => {
  const offer = (parts: Partial<Parameters<typeof offeredFeatures>[0]> = {}): bigint =>
    offeredFeatures({ backend: EVERYTHING, pairs: 2, ...parts });

  test('what the device serves itself, whatever the data path says of it', () => {
    expect(offer({ backend: 0n })).toBe(DEVICE_FEATURES);
    expect(offer({ backend: 0n, pairs: 1 })).toBe(DEVICE_FEATURES & ~bit(N.VIRTIO_NET_F_MQ));
  });

  test('what the data path carries, without what is for drivers of another age', () => {
    const old = bits(N.VIRTIO_F_NOTIFY_ON_EMPTY, N.VIRTIO_F_ANY_LAYOUT);
    expect(offer()).toBe(EVERYTHING & ~old);
    expect(offer({ backend: bits(N.VIRTIO_F_VERSION_1, N.VIRTIO_NET_F_HOST_TSO4) })).toBe(
      DEVICE_FEATURES | bits(N.VIRTIO_F_VERSION_1),
    );
  });

  test('without a bit, and without those that need it', () => {
    const without = bit(N.VIRTIO_NET_F_CTRL_VQ);
    const gone = featureNames(offer() & ~offer({ without }));
    expect(gone).toEqual(
      featureNames(
        bits(
          17,
          ...NEEDS.filter(([, ...groups]) => groups.some((group) => group.length === 1 && group[0] === 17)).map(
            ([number]) => number,
          ),
          51,
          64,
        ),
      ),
    );
    expect(offer({ without: EVERYTHING })).toBe(0n);
  });

  test.each(Object.values(FEATURE_PROFILES))(
    'profile $name: nothing beyond it, all of it where it can be carried',
    (profile) => {
      expect(profile).toBe(FEATURE_PROFILES[profile.name]);
      expect(unmetDependencies(profile.features)).toEqual([]);
      expect(hasBit(profile.features, N.VIRTIO_F_VERSION_1)).toBe(true);
      expect(offer({ profile })).toBe(profile.features);
      expect(offer({ profile, pairs: 1 })).toBe(profile.features & ~bit(N.VIRTIO_NET_F_MQ));
      const poor = EVERYTHING & ~bit(N.VIRTIO_NET_F_CSUM);
      expect(featureNames(profile.features & ~offer({ profile, backend: poor }))).toEqual([
        'VIRTIO_NET_F_CSUM',
        'VIRTIO_NET_F_HOST_TSO4',
        'VIRTIO_NET_F_HOST_TSO6',
        'VIRTIO_NET_F_HOST_ECN',
      ]);
    },
  );

  test('any parties: a subset of what each allows, that a driver may ack as a whole', () => {
    void fc.assert(
      fc.property(
        someFeatures,
        someFeatures,
        someFeatures,
        fc.integer({ min: 1, max: 8 }),
        (backend, pinned, without, pairs) => {
          const offered = offer({ backend, pairs, profile: { name: 'any', features: pinned }, without });
          expect(offered & ~(backend | DEVICE_FEATURES)).toBe(0n);
          expect(offered & ~pinned).toBe(0n);
          expect(offered & without).toBe(0n);
          expect(pairs === 1 && hasBit(offered, N.VIRTIO_NET_F_MQ)).toBe(false);
          expect(unmetDependencies(offered)).toEqual([]);
        },
      ),
      { numRuns: 300 },
    );
  });

  test('offloads of a command are receive offloads', () => {
    expect(featureNames(GUEST_OFFLOADS)).toEqual(
      ['CSUM', 'TSO4', 'TSO6', 'ECN', 'UFO', 'USO4', 'USO6', 'UDP_TUNNEL_GSO', 'UDP_TUNNEL_GSO_CSUM'].map(
        (name) => `VIRTIO_NET_F_GUEST_${name}`,
      ),
    );
  });
});

test('names', () => {
  expect(featureNames(0n)).toEqual([]);
  expect(featureNames(bits(0, 4, 17, 28, 29, 32, 34, 40, 63, 70, 127))).toEqual([
    'VIRTIO_NET_F_CSUM',
    'bit 4',
    'VIRTIO_NET_F_CTRL_VQ',
    'VIRTIO_RING_F_INDIRECT_DESC',
    'VIRTIO_RING_F_EVENT_IDX',
    'VIRTIO_F_VERSION_1',
    'VIRTIO_F_RING_PACKED',
    'VIRTIO_F_RING_RESET',
    'VIRTIO_NET_F_SPEED_DUPLEX',
    'VIRTIO_NET_F_IPSEC',
    'bit 127',
  ]);
});

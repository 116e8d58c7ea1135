/** Whatever lies in the rings, a device either hands out a chain inside guest memory or breaks the ring with VHOST_ERR_RING. */
import * as fc from 'fast-check';
import { gpa } from '../../lib/memory/address';
import { splitLayout } from '../../lib/virtqueue/layout';
import { SplitDevice } from '../../lib/virtqueue/split-device';
import { TestMemory } from '../helpers/ring-memory';

const RINGS = 0x1000;
const SIZE = 16;

/** Mostly plausible, so that chains get far before they break; now and then anything at all. */
const rarely = <T>(plausible: fc.Arbitrary<T>, anything: fc.Arbitrary<T>): fc.Arbitrary<T> =>
  fc.oneof({ weight: 15, arbitrary: plausible }, { weight: 1, arbitrary: anything });

const descriptor = fc.record({
  address: rarely<number | bigint>(
    fc.integer({ min: 0x1000, max: 0x2fc0 }),
    fc.oneof(fc.integer({ min: 0xf00, max: 0x4100 }), fc.bigInt({ min: 0n, max: 2n ** 64n - 1n })),
  ),
  length: rarely(fc.constantFrom(1, 16, 32, 64), fc.oneof(fc.constant(0), fc.integer({ min: 0, max: 2 ** 32 - 1 }))),
  flags: rarely(fc.constantFrom(0, 0, 0, 1, 1, 2, 2, 3, 4), fc.nat(65535)),
  next: rarely(fc.nat(SIZE - 1), fc.nat(65535)),
});

test('random descriptors', () => {
  let chains = 0;
  let broken = 0;
  void fc.assert(
    fc.property(
      fc.array(descriptor, { minLength: 32, maxLength: 32 }),
      fc.array(rarely(fc.nat(SIZE - 1), fc.nat(65535)), { minLength: SIZE, maxLength: SIZE }),
      rarely(fc.nat(SIZE), fc.nat(65535)),
      fc.boolean(),
      (descriptors, heads, idx, eventIdx) => {
        const memory = new TestMemory([
          { gpa: RINGS, size: 0x1000 },
          { gpa: 0x2000, size: 0x1000 },
          { gpa: 0x4000, size: 0x80 },
        ]);
        const layout = splitLayout(RINGS, SIZE, eventIdx);
        for (const [index, { address, length, flags, next }] of descriptors.entries()) {
          const at = index < SIZE ? RINGS + 16 * index : 0x2000 + 16 * (index - SIZE);
          const view = memory.view(at, 16);
          view.setBigUint64(0, BigInt(address), true);
          view.setUint32(8, length, true);
          view.setUint16(12, flags, true);
          view.setUint16(14, next, true);
        }
        const avail = memory.view(layout.avail, 4 + 2 * SIZE);
        avail.setUint16(2, idx, true);
        for (const [index, head] of heads.entries()) avail.setUint16(4 + 2 * index, head, true);
        const before = memory.clone();
        const device = new SplitDevice(
          memory,
          {
            size: SIZE,
            ready: true,
            descTable: gpa(layout.desc),
            availRing: gpa(layout.avail),
            usedRing: gpa(layout.used),
            nextAvail: 0,
          },
          { eventIdx },
        );
        try {
          for (let id = device.pop(); id >= 0; id = device.pop()) {
            chains++;
            const { chain } = device;
            if (id >= SIZE || chain.buffers === 0) throw new Error(`id ${id} with ${chain.buffers} buffers`);
            let bytes = 0;
            for (let at = 0; at < chain.buffers; at++) {
              const region = memory.regionOf(chain.addresses[at]!, chain.lengths[at]!);
              if (region !== chain.regions[at] || chain.lengths[at] === 0)
                throw new Error('a buffer outside its region');
              bytes += chain.lengths[at]!;
            }
            if (bytes !== chain.readableBytes + chain.writableBytes) throw new Error('bytes do not add up');
          }
        } catch (error) {
          if ((error as { code?: string }).code !== 'VHOST_ERR_RING') throw error;
          broken++;
        }
        for (const [index, { u8 }] of memory.regions.entries()) {
          if (Buffer.compare(u8, before.regions[index]!.u8) !== 0) throw new Error('reading a ring wrote to memory');
        }
      },
    ),
    { numRuns: 2000 },
  );
  expect(chains).toBeGreaterThan(1000);
  expect(broken).toBeGreaterThan(500);
});

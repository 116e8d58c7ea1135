import type { SideEnvironment } from '../../../lib/migration/environment';
import { requireRoom } from '../../../lib/migration/preflight';

const here = { freeMemory: 1 << 20, maxRegions: 3 } as SideEnvironment;
const region = (size: number, gpa = 0) => ({ gpa, size });

test('a region that fits is taken, to the last byte', () => {
  requireRoom([region(1 << 19)], region(1 << 19), here);
  requireRoom([], region(1 << 20), here);
});

test('all regions count, not only the one that comes', () => {
  expect(() => requireRoom([region(1 << 19), region(4096)], region(1 << 19), here)).toThrow(
    /bytes of memory: 1052672 here, 1048576 available there/,
  );
  expect(() => requireRoom([], region(2 ** 40), here)).toThrow(
    expect.objectContaining({ code: 'VHOST_ERR_INCOMPATIBLE' }),
  );
});

test('so does their number', () => {
  const three = [region(4096), region(4096), region(4096)];
  requireRoom(three.slice(1), region(4096), here);
  expect(() => requireRoom(three, region(4096), here)).toThrow(/memory regions: 4 here, 3 there/);
});

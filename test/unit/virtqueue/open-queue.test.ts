import { attachDriver, openDeviceQueue } from '../../../lib/virtqueue/open-queue';
import { PackedDevice } from '../../../lib/virtqueue/packed-device';
import { PackedDriver } from '../../../lib/virtqueue/packed-driver';
import { SplitDevice } from '../../../lib/virtqueue/split-device';
import { SplitDriver } from '../../../lib/virtqueue/split-driver';
import { PACKED, SPLIT } from '../../helpers/ring-formats';
import { TestMemory } from '../../helpers/ring-memory';

const GPA = 0x10000;

test.each([
  { format: SPLIT, Device: SplitDevice, Driver: SplitDriver },
  { format: PACKED, Device: PackedDevice, Driver: PackedDriver },
])('a $format.name queue is known by its state, in memory and as data', ({ format, Device, Driver }) => {
  const memory = new TestMemory([{ gpa: GPA, size: 0x10000 }]);
  format.format(memory, GPA, { size: 8, eventIdx: true });
  const driver = attachDriver(memory, format.stateAt(GPA, 8));
  expect(driver).toBeInstanceOf(Driver);
  const device = openDeviceQueue(memory, driver.queueState(), { eventIdx: true, indirect: false });
  expect(device).toBeInstanceOf(Device);
  expect([device.size, device.eventIdx, driver.eventIdx]).toEqual([8, true, true]);
});

test('memory that holds neither is refused', () => {
  const memory = new TestMemory([{ gpa: GPA, size: 0x10000 }]);
  expect(() => attachDriver(memory, GPA)).toThrow(expect.objectContaining({ code: 'VHOST_ERR_RING' }) as Error);
});

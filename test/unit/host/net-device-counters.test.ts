import { NetDeviceCounters } from '../../../lib/host/net-device-counters';
import { Netns } from '../../../lib/host/netns';
import { Tap } from '../../../lib/host/tap';

test('an interface is told from one whose name ends like its own', async () => {
  await using netns = await Netns.create();
  await using longer = await Tap.open({ name: 'a-longer-tap0', netns: netns.path });
  await using tap = await Tap.open({ name: 'tap0', netns: netns.path });
  const frame = new Uint8Array(longer.vnetHdrSize + 60);
  for (let count = 0; count < 3; count++) longer.writeFrames(frame, frame.length, 1, Int32Array.of(frame.length));
  tap.writeFrames(frame, frame.length, 1, Int32Array.of(frame.length));
  for (const [name, packets] of [
    ['a-longer-tap0', 3],
    ['tap0', 1],
  ] as const) {
    const counters = await NetDeviceCounters.open(name, netns.path);
    expect(counters.read()).toMatchObject({ rx: { packets } });
    counters.close();
  }
  const none = await NetDeviceCounters.open('ap0', netns.path);
  expect(none.read()).toBeNull();
  none.close();
});

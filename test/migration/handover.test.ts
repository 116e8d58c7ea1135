/** A guest moves under every kind of traffic: each frame is given once and in order, and the accounts of both sides say so. */
import { pathKinds } from '../helpers/device-rig';
import { faultsOf, HandoverLab } from '../helpers/handover-lab';

const KINDS = pathKinds();
/** Frames a second: the VM has no more to give. */
const RATE = KINDS.length > 1 ? 700 : 2800;
const MIX = { station: RATE, guest: RATE / 2 };

test('A to B to A to B', async () => {
  await using lab = await HandoverLab.create();
  await lab.boot();
  await lab.traffic(MIX);
  for (const to of [1, 0, 1, 0]) {
    await lab.flows(100);
    const { result } = await lab.migrate(to);
    expect(result.handover).toMatchObject({ unproven: [], source: { cutBy: 'marker' } });
  }
  await lab.flows(100);
  expect(faultsOf(await lab.settle())).toEqual({});
});

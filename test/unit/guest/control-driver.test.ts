import { ControlDriver } from '../../../lib/guest/control-driver';
import { SplitDriver } from '../../../lib/virtqueue/split-driver';
import { COMMANDS, macs, macTable } from '../../helpers/control-commands';
import { AREA, AREA_BYTES, ControlRig } from '../../helpers/control-rig';

const STATE_ERROR = expect.objectContaining({ code: 'VHOST_ERR_STATE' }) as Error;
const ARGUMENT_ERROR = expect.objectContaining({ code: 'VHOST_ERR_INVALID_ARGUMENT' }) as Error;

test('framed as Linux does by default: header, data, ack', async () => {
  const rig = new ControlRig();
  const desc = rig.memory.view(rig.layout.desc, 16 * 16);
  for (const { hex, command } of COMMANDS) {
    const chain: [length: number, flags: number][] = [];
    let at = rig.driver.nextId;
    rig.control.send(command);
    do {
      chain.push([desc.getUint32(16 * at + 8, true), desc.getUint16(16 * at + 12, true)]);
      at = desc.getUint16(16 * at + 14, true);
    } while ((chain.at(-1)![1] & 1) !== 0);
    const data = hex.length / 2 - 2;
    expect(chain).toEqual([[2, 1], ...(data === 0 ? [] : [[data, 1]]), [1, 2]]);
    await rig.queue.run();
    expect(rig.control.poll()).toBe(command.kind === 'unknown' ? 1 : 0);
  }
});

test('goes on from guest memory alone', async () => {
  const rig = new ControlRig();
  rig.control.send({ kind: 'mq-vq-pairs-set', pairs: 2 });
  const attach = () => {
    const driver = SplitDriver.attach(rig.memory, rig.stateAt, rig.log);
    return new ControlDriver(driver, rig.memory, { gpa: AREA, bytes: AREA_BYTES }, rig.log);
  };
  const second = attach();
  expect([second.busy, second.poll()]).toEqual([true, null]);
  await rig.queue.run();
  const third = attach();
  expect([third.busy, third.poll(), third.busy]).toEqual([true, 0, false]);
  if (third.send({ kind: 'announce-ack' })) rig.queue.wake();
  await rig.queue.run();
  expect(third.poll()).toBe(0);
});

test('sends one command at a time', async () => {
  const rig = new ControlRig();
  expect([rig.control.busy, rig.control.poll()]).toEqual([false, null]);
  rig.control.send({ kind: 'announce-ack' });
  expect(rig.control.busy).toBe(true);
  expect(() => rig.control.send({ kind: 'announce-ack' })).toThrow(STATE_ERROR);
  expect(rig.control.poll()).toBeNull();
  await rig.queue.run();
  expect([rig.control.poll(), rig.control.busy, rig.control.poll()]).toEqual([0, false, null]);
  expect(rig.driver.free).toBe(16);
});

test('sees a device that writes no ack', () => {
  const rig = new ControlRig();
  rig.control.send({ kind: 'announce-ack' });
  rig.device.push(rig.device.pop(), 0);
  rig.device.publish();
  expect(rig.control.poll()).toBe(0xff);
});

test('refuses what its area or framing cannot hold, without a trace in the ring', () => {
  const rig = new ControlRig({ size: 4 });
  const vlan = { kind: 'vlan-add', vid: 1 } as const;
  for (const framing of [
    { readable: [2, 1] },
    { readable: [2, 3] },
    { readable: [] },
    { readable: [0, 4] },
    { readable: [5, -1] },
    { readable: [1.5, 2.5] },
    { readable: [2, 2], writable: [] },
    { readable: [2, 2], writable: [9] },
  ]) {
    expect(() => rig.control.send(vlan, framing)).toThrow(ARGUMENT_ERROR);
  }
  expect(() => rig.control.send(vlan, { readable: [1, 1, 1, 1] })).toThrow(ARGUMENT_ERROR);
  expect(() => rig.control.send(macTable(macs(700), []))).toThrow(ARGUMENT_ERROR);
  expect([rig.driver.free, rig.driver.inFlight, rig.control.busy]).toEqual([4, 0, false]);
});

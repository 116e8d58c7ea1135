/** Flows that a tap moves between queues, as they are read: their frames come out in the order in which they were sent. */
import { type FlowFrame, FlowOrder } from '../../../lib/migration/handover/flow-order';

interface Sent extends FlowFrame {
  readonly sequence: number;
}

const frame = (stream: bigint, pair: number, round: number, sequence: number): Sent => ({
  stream,
  pair,
  round,
  sequence,
});

function sorted(order: FlowOrder, frames: Sent[]): number[] {
  for (const each of frames) order.saw(each);
  order.sort(frames);
  return frames.map(({ sequence }) => sequence);
}

test('the first frame of a flow, and of a flow in a queue, asks for the other queues to be read', () => {
  const order = new FlowOrder();
  expect([0, 0, 1, 1, 0].map((pair, index) => order.saw(frame(1n, pair, index, index)))).toEqual([
    true,
    false,
    true,
    false,
    false,
  ]);
});

test('the queue in which the guest gets the flow is the one it moved to, also when that was read first', () => {
  const order = new FlowOrder();
  expect(order.queueFor(1n, 0)).toBe(0);
  const frames = [frame(1n, 0, 0, 2), frame(1n, 0, 0, 3), frame(1n, 5, 0, 0), frame(1n, 5, 0, 1), frame(1n, 0, 1, 4)];
  expect(sorted(order, frames)).toEqual([0, 1, 2, 3, 4]);
  expect(order.unknown).toBe(0);
  expect(order.elsewhere).toBe(0);
});

test('without such a queue the rounds tell, and it is given to the last one', () => {
  const order = new FlowOrder();
  const frames = [frame(1n, 5, 0, 0), frame(1n, 5, 1, 1), frame(1n, 0, 2, 2), frame(1n, 0, 3, 3)];
  expect(sorted(order, frames)).toEqual([0, 1, 2, 3]);
  expect(order.unknown).toBe(0);
  expect(order.queueFor(1n, 5)).toBe(0);
  expect(order.elsewhere).toBe(0);
});

test('two queues in one round, and none of them known: the order is unknown', () => {
  const order = new FlowOrder();
  sorted(order, [frame(1n, 5, 0, 0), frame(1n, 0, 0, 1)]);
  expect(order.unknown).toBe(1);
});

test('three queues in one round are unknown even when the last is known', () => {
  const order = new FlowOrder();
  order.queueFor(1n, 2);
  sorted(order, [frame(1n, 0, 0, 0), frame(1n, 1, 0, 1), frame(1n, 2, 0, 2)]);
  expect(order.unknown).toBe(1);
});

test('flows keep their places among others', () => {
  const order = new FlowOrder();
  order.queueFor(1n, 0);
  const frames = [frame(1n, 0, 0, 11), frame(2n, 1, 0, 20), frame(1n, 3, 0, 10), frame(2n, 1, 0, 21)];
  expect(sorted(order, frames)).toEqual([10, 20, 11, 21]);
});

test('flows that the guest is given in another queue than the tap has them in, or that this tap has not had, are elsewhere', () => {
  const order = new FlowOrder();
  order.queueFor(1n, 0);
  order.queueFor(2n, 1);
  order.queueFor(3n, 2);
  sorted(order, [frame(1n, 4, 0, 0), frame(3n, 2, 0, 0)]);
  expect(order.elsewhere).toBe(2);
});

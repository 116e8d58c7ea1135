/**
 * The order of flows over several tap queues. A tap moves a flow to the queue on which the guest answers (drivers/net/tun.c, tun_flow_update), in
 * the middle of everything, and of frames in two queues nothing says which came first. What helps:
 *
 *     a flow's older queue is read after its newer one was: then frames that are read later than all those of another queue are younger
 *     the queue in which the guest gets a flow is the one on which it answers: the flow has moved to it, not from it
 *
 * So frames are sorted in the end, when both are known.
 */

/** Frames that were read in one go have the same round. */
export interface FlowFrame {
  readonly pair: number;
  readonly round: number;
  readonly stream: bigint | null;
}

/** Rounds in which a flow was in one queue. */
interface Visit {
  readonly pair: number;
  readonly first: number;
  last: number;
}

export class FlowOrder {
  /** By flow, in the order in which it was seen first in each queue. */
  readonly #visits = new Map<bigint, Visit[]>();
  /** By flow: the guest's queue that it is given to, for as long as frames wait here. */
  readonly #given = new Map<bigint, number>();
  /** Flows of which the order could not be told. */
  unknown = 0;

  /** A frame was read. Answers whether others of its flow may wait in other queues that came before it: they are to be read in the same round. */
  saw({ stream, pair, round }: FlowFrame): boolean {
    const visits = this.#visits.get(stream!);
    if (visits === undefined) {
      this.#visits.set(stream!, [{ pair, first: round, last: round }]);
      return true;
    }
    const visit = visits.find((other) => other.pair === pair);
    if (visit !== undefined) visit.last = round;
    else visits.push({ pair, first: round, last: round });
    return visit === undefined;
  }

  /** The guest's queue for a frame that came in `queue`: that of the frames of its flow before it. */
  queueFor(flow: bigint, queue: number): number {
    const given = this.#given.get(flow);
    if (given !== undefined) return given;
    this.#given.set(flow, queue);
    return queue;
  }

  /** Puts the frames of every flow into their order, in the places of that flow; frames of one queue come in order. */
  sort<Frame extends FlowFrame>(frames: Frame[]): void {
    const moved = new Map<bigint, number[]>();
    for (const [flow, visits] of this.#visits) if (visits.length > 1) moved.set(flow, this.#queues(flow, visits));
    if (moved.size === 0) return;
    const places = new Map<bigint, number[]>();
    for (const [place, { stream }] of frames.entries()) {
      if (!moved.has(stream!)) continue;
      const list = places.get(stream!);
      if (list === undefined) places.set(stream!, [place]);
      else list.push(place);
    }
    for (const [flow, list] of places) {
      const queues = moved.get(flow)!;
      const sorted = list
        .map((place) => frames[place]!)
        .sort((one, other) => queues.indexOf(one.pair) - queues.indexOf(other.pair));
      for (const [index, place] of list.entries()) frames[place] = sorted[index]!;
    }
  }

  /** Queues of a flow, the oldest first. The last one is where the tap has it now, which is given to the guest unless another was before. */
  #queues(flow: bigint, visits: readonly Visit[]): number[] {
    const given = this.#given.get(flow);
    const last = visits.find(({ pair }) => pair === given) ?? visits.at(-1)!;
    const sorted = [...visits.filter((visit) => visit !== last), last];
    const overlap = sorted.some((visit, index) => index > 0 && visit.first <= sorted[index - 1]!.last);
    // Two queues, one of which is the guest's, need no rounds.
    if (overlap && (sorted.length > 2 || given !== last.pair)) this.unknown++;
    this.#given.set(flow, given ?? last.pair);
    const queues = sorted.map(({ pair }) => pair);
    this.#visits.set(flow, [last]);
    return queues;
  }

  /** Flows that are not given to the queue in which the tap has them, or may not be: what comes in its queue must wait for what was given. */
  get elsewhere(): number {
    let count = 0;
    for (const [flow, given] of this.#given) if (this.#visits.get(flow)?.at(-1)?.pair !== given) count++;
    return count;
  }
}

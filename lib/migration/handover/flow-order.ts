/**
 * The order of flows over several tap queues. A tap moves a flow to the queue on which the guest answers (drivers/net/tun.c, tun_flow_update), in
 * the middle of everything: of two frames in two queues nobody sees which came first, but the one in the queue where the flow was before did.
 */
export class FlowOrder {
  /** By flow: the queue in which its last frame was. */
  readonly #seen = new Map<bigint, number>();
  /** By flow: the guest's queue that it is given to, for as long as frames wait here. */
  readonly #given = new Map<bigint, number>();

  /** A frame came in a queue. Answers the queue that may hold earlier ones of its flow, or null: that is to be read before it counts. */
  moved(flow: bigint, queue: number): number | null {
    const before = this.#seen.get(flow);
    this.#seen.set(flow, queue);
    return before === undefined || before === queue ? null : before;
  }

  /** The guest's queue for a frame that came in `queue`: that of the frames of its flow before it. */
  queueFor(flow: bigint, queue: number): number {
    const given = this.#given.get(flow);
    if (given !== undefined) return given;
    this.#given.set(flow, queue);
    return queue;
  }
}

/** What runs inside a guest. */

/** Called with the time; handles at most a batch each way and answers how much it did. */
export interface Program {
  poll(nowMicros: number): number;
  /** Microseconds until it has something to do by itself; Infinity when it only reacts. */
  dueIn(nowMicros: number): number;
  /** It cannot go on before the transmit queue has room. */
  readonly waitsForRoom: boolean;
}

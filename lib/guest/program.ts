/** What runs inside a guest, on each of its pairs. */
import type { LedgerSet } from '../observe/ledger-set';
import type { Lanes } from './lanes';
import type { Machine } from './machine';
import type { Receiver } from './receive';
import type { Transmitter } from './transmit';

/** Called with the time; handles at most a batch each way and answers how much it did. */
export interface Program {
  poll(nowMicros: number): number;
  /** Microseconds until it has something to do by itself; Infinity when it only reacts. */
  dueIn(nowMicros: number): number;
  /** It cannot go on before the transmit queue, that of its flow's lane, has room. */
  readonly waitsForRoom: boolean;
}

/** What a program works with. */
export interface Equipment {
  /** Of its pair. */
  machine: Machine;
  receiver: Receiver;
  transmitter: Transmitter;
  /** Of all pairs. */
  lanes: Lanes;
  ledgers: LedgerSet;
}

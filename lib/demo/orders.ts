/** How the demo's processes talk: orders go to a child, each is answered by the word of the same name, and a child says what happens. */
import { reasonOf } from '../errors';

/** Orders by name, each with what it takes and what answers it. */
export type OrderBook = Readonly<Record<string, { order: unknown; word: unknown }>>;

/** What goes to a child. */
export interface OrderMessage {
  name: string;
  order: unknown;
}

/** What comes back: an answer, a failure, or something worth a line on the terminal. */
export type SideMessage =
  | { is: 'word'; name: string; word: unknown }
  | { is: 'failed'; name: string; reason: string }
  | { is: 'event'; text: string }
  /** CLOCK_MONOTONIC microseconds at which the guest stood still or ran again. */
  | { is: 'moment'; moment: 'stopped' | 'started'; at: number };

/** What a child does for each order. */
export type Obedience<Book extends OrderBook> = {
  [Name in keyof Book]: (order: Book[Name]['order']) => Promise<Book[Name]['word']>;
};

export function tell(message: SideMessage): void {
  process.send?.(message);
}

/** Obeys, in a child, until the order `end` was answered or whoever gave the orders is gone. */
export function obey<Book extends OrderBook>(orders: Obedience<Book>): void {
  const carryOut = async ({ name, order }: OrderMessage): Promise<void> => {
    try {
      tell({ is: 'word', name, word: await orders[name as keyof Book](order as never) });
    } catch (error) {
      tell({ is: 'failed', name, reason: reasonOf(error) });
    }
    if (name === 'end') process.disconnect();
  };
  process.on('message', (message: OrderMessage) => void carryOut(message));
  process.on('disconnect', () => process.exit());
}

/** The demo's hold on one of its processes: orders out, words back. */
import { type ChildProcess, fork } from 'node:child_process';
import { join } from 'node:path';
import { VhostError } from '../errors';
import type { OrderBook, OrderMessage, SideMessage } from './orders';

interface Waiting {
  resolve(word: unknown): void;
  reject(error: Error): void;
}

export interface SideListener {
  event?(text: string): void;
  moment?(moment: 'stopped' | 'started', at: number): void;
}

export class SideProcess<Book extends OrderBook> {
  readonly name: string;
  readonly #child: ChildProcess;
  readonly #waiting = new Map<string, Waiting>();
  #ended = false;

  /** `script` is a file of this folder that obeys the book's orders. */
  constructor(script: string, name: string, listener: SideListener = {}) {
    this.name = name;
    this.#child = fork(join(__dirname, script), [name], { stdio: ['ignore', 'inherit', 'inherit', 'ipc'] });
    this.#child.on('message', (message: SideMessage) => {
      if (message.is === 'event') listener.event?.(message.text);
      else if (message.is === 'moment') listener.moment?.(message.moment, message.at);
      else this.#answer(message);
    });
    this.#child.on('exit', (code, signal) => {
      this.#ended = true;
      const how = signal === null ? `exit status ${code}` : signal;
      for (const { reject } of this.#waiting.values()) reject(this.#error(`ended with ${how}`));
      this.#waiting.clear();
    });
  }

  #answer(message: SideMessage & { name: string }): void {
    const waiting = this.#waiting.get(message.name);
    this.#waiting.delete(message.name);
    if (message.is === 'word') waiting?.resolve(message.word);
    else if (message.is === 'failed') waiting?.reject(this.#error(message.reason));
  }

  #error(what: string): VhostError {
    return new VhostError('VHOST_ERR_MIGRATION', `the ${this.name} process: ${what}`);
  }

  /** Gives an order and waits for its word. */
  ask<Name extends keyof Book & string>(name: Name, order: Book[Name]['order']): Promise<Book[Name]['word']> {
    return new Promise((resolve, reject) => {
      if (this.#ended) {
        reject(this.#error('has ended'));
        return;
      }
      this.#waiting.set(name, { resolve: resolve as (word: unknown) => void, reject });
      const message: OrderMessage = { name, order };
      this.#child.send(message);
    });
  }

  /** Ends the process whatever it does. */
  kill(): void {
    if (!this.#ended) this.#child.kill('SIGKILL');
  }
}

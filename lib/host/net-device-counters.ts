/** An interface's counters as /proc/net/dev has them: a file of the interface's namespace stays open, so that reading it costs next to nothing. */
import { check, systemError } from '../errors';
import { type FdHandle, native } from '../native';
import type { InterfaceStats } from './net-device';

const PATH = '/proc/thread-self/net/dev';
/** A line an interface. */
const LARGEST = 1 << 20;

export class NetDeviceCounters {
  readonly #name: string;
  readonly #file: FdHandle;
  #buffer = Buffer.alloc(16_384);

  private constructor(name: string, file: FdHandle) {
    this.#name = name;
    this.#file = file;
  }

  static async open(name: string, netns: string | null): Promise<NetDeviceCounters> {
    return new NetDeviceCounters(name, check<FdHandle>(await native().netnsOpen(netns, PATH, 0), 'open', PATH));
  }

  /** Null when the interface has gone. */
  read(): InterfaceStats | null {
    const text = this.#text();
    // Names are padded to six places on their left, so a longer one may end like this one.
    const at = [`\n${this.#name}:`, ` ${this.#name}:`].map((start) => text.indexOf(start)).find((found) => found >= 0);
    if (at === undefined) return null;
    const end = text.indexOf('\n', at + 1);
    const numbers = text
      .slice(at + this.#name.length + 2, end)
      .trim()
      .split(/\s+/)
      .map(Number);
    const side = (first: number) => ({
      bytes: numbers[first]!,
      packets: numbers[first + 1]!,
      errors: numbers[first + 2]!,
      dropped: numbers[first + 3]!,
    });
    return { rx: side(0), tx: side(8) };
  }

  #text(): string {
    for (;;) {
      let length = 0;
      for (;;) {
        const got = native().fdPread(this.#file, this.#buffer.subarray(length), length);
        if (got < 0) throw systemError(got, 'read', PATH);
        length += got;
        if (got === 0 || length === this.#buffer.length) break;
      }
      if (length < this.#buffer.length || length >= LARGEST) return this.#buffer.toString('latin1', 0, length);
      this.#buffer = Buffer.alloc(this.#buffer.length * 4);
    }
  }

  close(): void {
    native().fdClose(this.#file);
  }
}

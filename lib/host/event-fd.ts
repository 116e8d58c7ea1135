/** eventfd(2): a counter that wakes whoever waits for it. Kicks, calls and error notices of a ring travel through these. */
import { readlinkSync } from 'node:fs';
import { check, closedError, invalidArgument, systemError } from '../errors';
import { type FdHandle, native, type PollHandle } from '../native';

/** EFD_CLOEXEC | EFD_NONBLOCK, include/uapi/linux/eventfd.h. */
const EFD_CLOEXEC = 0o2000000;
const EFD_NONBLOCK = 0o4000;
const READABLE = 1;
const EAGAIN = -11;

/** Calls back whenever its EventFd was signalled, until closed. */
export interface EventFdWatch {
  close(): void;
  /** Keeps the process running while watching (the default). */
  ref(): void;
  unref(): void;
}

export class EventFd {
  /** For calls into the addon. */
  readonly handle: FdHandle;
  readonly #native = native();
  readonly #watches = new Set<EventFdWatch>();
  #closed = false;

  private constructor(handle: FdHandle) {
    this.handle = handle;
  }

  /** @param initial counter value, 0 to 2^32 - 1. */
  static create(initial = 0): EventFd {
    return new EventFd(check<FdHandle>(native().eventFdCreate(initial, EFD_CLOEXEC | EFD_NONBLOCK), 'eventfd'));
  }

  /** Takes ownership of a descriptor of this process, which must be a non-blocking eventfd. */
  static adopt(fd: number): EventFd {
    return new EventFd(check<FdHandle>(native().fdAdopt(fd), 'fcntl'));
  }

  /**
   * One of another process, of which the descriptor is taken whatever happens. It is made non-blocking, for everybody who has it: a counter at
   * its maximum would hold this process up. Throws VHOST_ERR_INVALID_ARGUMENT for a descriptor of anything else.
   */
  static share(handle: FdHandle): EventFd {
    const addon = native();
    try {
      const number = check(addon.fdNumber(handle), 'fcntl');
      const target = readlinkSync(`/proc/self/fd/${number}`);
      if (target !== 'anon_inode:[eventfd]') throw invalidArgument(`a descriptor of ${target}`, 'an eventfd');
      check(addon.fdSetNonblocking(handle, true), 'fcntl');
    } catch (error) {
      addon.fdClose(handle);
      throw error;
    }
    return new EventFd(handle);
  }

  get closed(): boolean {
    return this.#closed;
  }

  /** The descriptor's number, to be handed to the kernel. */
  get fd(): number {
    if (this.#closed) throw closedError('EventFd');
    return this.#native.fdNumber(this.handle);
  }

  /** Adds 1. A counter at its maximum needs no more: whoever waits is awake already. */
  signal(): void {
    const result = this.#native.eventFdSignal(this.handle);
    if (result < 0 && result !== EAGAIN) throw this.#failure(result, 'write');
  }

  /** Takes the counter: its value, 0 when it was not signalled. */
  drain(): number {
    const value = this.#native.eventFdDrain(this.handle);
    if (value >= 0) return value;
    if (value === EAGAIN) return 0;
    throw this.#failure(value, 'read');
  }

  #failure(errno: number, syscall: string): Error {
    return this.#closed ? closedError('EventFd') : systemError(errno, syscall);
  }

  /** Drains, then calls `listener` with what was drained. The listener may be called with 0 when somebody else drained first. */
  onSignal(listener: (count: number) => void): EventFdWatch {
    if (this.#closed) throw closedError('EventFd');
    const addon = this.#native;
    const watches = this.#watches;
    const poll = check<PollHandle>(
      addon.pollStart(this.handle, READABLE, (status) => {
        if (status < 0) {
          watch.close();
          return;
        }
        const count = addon.eventFdDrain(this.handle);
        listener(Math.max(count, 0));
      }),
      'epoll_ctl',
    );
    const watch: EventFdWatch = {
      close() {
        if (watches.delete(watch)) addon.pollStop(poll);
      },
      ref() {
        if (watches.has(watch)) addon.pollRef(poll, true);
      },
      unref() {
        if (watches.has(watch)) addon.pollRef(poll, false);
      },
    };
    watches.add(watch);
    return watch;
  }

  /** Ends every watch, then closes the descriptor. Idempotent. */
  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    for (const watch of [...this.#watches]) watch.close();
    this.#native.fdClose(this.handle);
  }

  [Symbol.dispose](): void {
    this.close();
  }
}

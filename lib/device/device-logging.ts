/** Dirty logging of a device: the data path's writes and this process's own go into one log, on whatever backend. */
import type { Backend } from '../backend/backend';
import { DeviceWriteLog } from '../backend/emulated-log';
import { VhostError } from '../errors';
import type { DirtyLog } from '../memory/dirty-log';
import { DeviceDirtyLog } from './device-dirty-log';

export class DeviceLogging {
  /** What this process itself writes to guest memory for the device. */
  readonly writes = new DeviceWriteLog();
  #log: DeviceDirtyLog | null = null;

  /** Null while logging is off. */
  get log(): DeviceDirtyLog | null {
    return this.#log;
  }

  /** What a data path that takes over writes to. */
  get current(): DirtyLog | null {
    return this.#log?.current ?? null;
  }

  /** On, for everything below GPA `end`. */
  async start(backend: Backend, end: number): Promise<DeviceDirtyLog> {
    if (this.#log !== null) throw new VhostError('VHOST_ERR_STATE', 'dirty logging is already on');
    const log = new DeviceDirtyLog(end);
    try {
      await backend.setDirtyLog(log.current);
    } catch (error) {
      log.close();
      throw error;
    }
    this.writes.use(log.current);
    this.#log = log;
    return log;
  }

  async stop(backend: Backend): Promise<void> {
    const log = this.#log;
    if (log === null) return;
    this.#log = null;
    this.writes.use(null);
    await backend.setDirtyLog(null);
    log.close();
  }

  /** Before the backend is told of memory up to `end`: a table that outgrows the log would let the kernel write behind it. */
  async grow(backend: Backend, end: number): Promise<void> {
    await this.#log?.grow(end, async (log) => {
      await backend.setDirtyLog(log);
      this.writes.use(log);
    });
  }

  close(): void {
    this.writes.use(null);
    this.#log?.close();
    this.#log = null;
  }
}

/** Requests about guest memory and the dirty log (specification, "Multi-region memory" and "Migration"). */

import { closeAll } from '../descriptors';
import { VhostError } from '../errors';
import { PAGE_SIZE } from '../memory/address';
import { DirtyLog } from '../memory/dirty-log';
import type { FdHandle } from '../native';
import type { LogBase, WireRegion } from '../vhost-user/payload';
import type { DataPath } from './data-path';
import { FrontEndMemory } from './front-end-memory';
import type { SessionRings } from './session-rings';
import { driverFeatures, logInUse, type SessionState } from './session-state';
import { queueStateOf } from './vring';

export class SessionMemory {
  readonly #state: SessionState;
  readonly #path: DataPath;
  readonly #rings: SessionRings;
  readonly #slots: number;

  /** @param slots regions there may be. */
  constructor(state: SessionState, path: DataPath, rings: SessionRings, slots: number) {
    this.#state = state;
    this.#path = path;
    this.#rings = rings;
    this.#slots = slots;
  }

  /** Replaces all regions; rings that run go on in them. A table that is refused leaves the one before in force. */
  async setTable(regions: readonly WireRegion[], fds: readonly FdHandle[]): Promise<void> {
    const memory = FrontEndMemory.map(regions, fds);
    try {
      requireLogged(this.#state, memory.guest.end);
      for (const index of this.#path.served) {
        queueStateOf(this.#state.vrings[index]!, memory, driverFeatures(this.#state));
      }
    } catch (error) {
      memory.close();
      throw error;
    }
    // Mappings move, and rings are known by theirs.
    await this.#rings.pauseAll();
    this.#replace(memory);
    await this.#rings.followAll();
  }

  #replace(memory: FrontEndMemory | null): void {
    this.#state.memory?.close();
    this.#state.memory = memory;
    memory?.guest.onChange(() => this.#changed());
  }

  /** While rings run: they stay where they are. */
  async #changed(): Promise<void> {
    if (this.#path.backend.running) await this.#path.backend.memoryChanged();
  }

  async addRegion(region: WireRegion, fd: FdHandle): Promise<void> {
    const { memory } = this.#state;
    if (memory === null) return this.setTable([region], [fd]);
    try {
      if (memory.count >= this.#slots) {
        throw new VhostError('VHOST_ERR_MEMORY_TABLE', `${memory.count + 1} memory regions, at most ${this.#slots}`);
      }
      requireLogged(this.#state, memory.endWith(region));
    } catch (error) {
      closeAll([fd]);
      throw error;
    }
    await memory.add(region, fd);
    // A ring may have waited for it.
    await this.#rings.followAll();
  }

  async removeRegion(region: WireRegion): Promise<void> {
    const { memory } = this.#state;
    const { guestAddr, size } = region;
    const where = `the region at GPA 0x${guestAddr.toString(16)} with ${size} bytes`;
    if (memory === null || !memory.has(region)) throw new VhostError('VHOST_ERR_MEMORY_TABLE', `there is not ${where}`);
    const inside = (address: number): boolean => BigInt(address) >= guestAddr && BigInt(address) < guestAddr + size;
    for (const index of this.#path.served) {
      const { descTable, availRing, usedRing } = this.#path.queues[index]!;
      if ([descTable, availRing, usedRing].some(inside)) {
        throw new VhostError('VHOST_ERR_MEMORY_TABLE', `${where} holds vring ${index}, which runs`);
      }
    }
    if (memory.count > 1) return memory.remove(region);
    // The last one: no ring can run outside of it.
    this.#replace(null);
  }

  /**
   * Where dirty pages are told from now on: nothing is written to the log before any more when it resolves. Throws VHOST_ERR_LOG_SIZE for one
   * that does not reach the end of guest memory, with the one before in force.
   */
  async setLog({ size, offset }: LogBase, fd: FdHandle): Promise<void> {
    if (size > BigInt(Number.MAX_SAFE_INTEGER) || offset > BigInt(Number.MAX_SAFE_INTEGER)) {
      throw new VhostError('VHOST_ERR_LOG_SIZE', `a log of ${size} bytes at offset ${offset}`, { hint: 'below 2^53' });
    }
    const log = DirtyLog.share(fd, Number(offset), Number(size));
    const before = this.#state.log;
    try {
      const { memory } = this.#state;
      if (memory !== null) requireCover(log, memory.guest.end);
      this.#state.log = log;
      await this.applyLog();
    } catch (error) {
      this.#state.log = before;
      log.close();
      throw error;
    }
    before?.close();
  }

  /** Logging as features and log have it now. */
  async applyLog(): Promise<void> {
    const log = logInUse(this.#state);
    if (this.#state.memory !== null) requireLogged(this.#state, this.#state.memory.guest.end);
    await this.#path.backend.setDirtyLog(log);
  }

  /** Once logging is off: nobody says that a log is done with (see docs of the front ends). */
  dropLog(): void {
    this.#state.log?.close();
    this.#state.log = null;
  }

  /** After all rings have ended. */
  close(): void {
    this.#replace(null);
    this.dropLog();
  }
}

function requireCover(log: DirtyLog, end: number): void {
  if (log.covers(end)) return;
  throw new VhostError('VHOST_ERR_LOG_SIZE', `a log of ${log.pages} pages, guest memory has ${end / PAGE_SIZE}`);
}

/** A table that outgrows its log is refused before anybody writes behind it. */
function requireLogged(state: SessionState, end: number): void {
  const log = logInUse(state);
  if (log !== null) requireCover(log, end);
}

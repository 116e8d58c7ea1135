/**
 * The side that gives the guest away. Before GO every failure and every cancel leaves the guest running here with logging off. From GO on this
 * side never runs the guest again by itself; when RUNNING does not come, the error says that the state is uncertain.
 */
import type { Duplex } from 'node:stream';
import type { VirtioNetDevice } from '../device/virtio-net-device';
import { invalidArgument, VhostError } from '../errors';
import { parseAddress } from './address';
import { Channel } from './channel';
import type { SourceState } from './commit/source-machine';
import { MOST_PAGE_CONNECTIONS } from './hello';
import type { Difference } from './messages';
import type { MigratableGuest, MigrationOptions, MigrationResult } from './options';
import type { MigrationRecord } from './record';
import { StreamRecording } from './record-stream';
import { SourceRun } from './source-run';
import { connect } from './transport';

export interface MigrationSourceParts {
  device: VirtioNetDevice;
  guest: MigratableGuest;
}

export class MigrationSource {
  readonly #parts: MigrationSourceParts;
  readonly #options: MigrationOptions;
  #run: SourceRun | null = null;
  /** Of the option `record`, why the recording is not whole. */
  recordFailure: Error | null = null;

  constructor(parts: MigrationSourceParts, options: MigrationOptions = {}) {
    this.#parts = parts;
    this.#options = options;
  }

  /**
   * Migrates to a MigrationListener at `address` (`tcp:HOST:PORT` or `unix:PATH`), or over a connected stream, and resolves when the destination
   * runs. Rejects with the guest running here as before, unless the error's code is VHOST_ERR_UNCERTAIN (it may run there), VHOST_ERR_RETURNED
   * (it runs nowhere) or it says that the guest could not go on.
   */
  async migrate(to: string | Duplex): Promise<MigrationResult> {
    return this.#over(to, (run) => run.migrate());
  }

  /** Compares the two sides and moves nothing. Everything that differs, also what would end a migration. */
  async preflight(to: string | Duplex): Promise<Difference[]> {
    return this.#over(to, (run) => run.compare(true));
  }

  async #over<T>(to: string | Duplex, use: (run: SourceRun) => Promise<T>): Promise<T> {
    if (this.#run !== null) throw new VhostError('VHOST_ERR_STATE', 'a MigrationSource migrates once: make another');
    const { timeoutMs, signal, tls, local = false, channels = 1 } = this.#options;
    const dial = typeof to === 'string' ? () => connect(to, { signal, tls }) : null;
    if (local && (dial === null || tls !== undefined || parseAddress(to as string).kind !== 'unix')) {
      throw invalidArgument('a local hand-over over anything but unix:PATH', 'descriptors cannot be passed otherwise');
    }
    if (!Number.isInteger(channels) || channels < 0 || channels > MOST_PAGE_CONNECTIONS) {
      throw invalidArgument(`${channels} page connections`, `0 to ${MOST_PAGE_CONNECTIONS}`);
    }
    const connection = dial === null ? null : await dial();
    const recording = this.#options.record === undefined ? null : new StreamRecording(this.#options.record);
    const channel = new Channel(connection?.stream ?? (to as Duplex), {
      timeoutMs,
      signal,
      onSent: recording?.write,
    });
    const links = { dial, pageConnections: dial === null || local ? 0 : channels, local };
    const run = new SourceRun(this.#parts, channel, links, this.#options);
    this.#run = run;
    try {
      return await use(run);
    } finally {
      channel.close();
      await recording?.close();
      this.recordFailure = recording?.failure ?? null;
    }
  }

  /**
   * Where nothing tells what became of the guest, an order from outside: 'there', it runs at the destination; 'here', it certainly does not and
   * never will, so it goes on here. Throws VHOST_ERR_STATE where there is nothing to resolve.
   */
  async resolve(where: 'here' | 'there'): Promise<void> {
    if (this.#run === null) throw new VhostError('VHOST_ERR_STATE', 'nothing was migrated');
    await this.#run.resolve(where);
  }

  /** How far it has come, or how it ended; null before both sides have spoken. */
  get state(): SourceState | null {
    return this.#run?.state ?? null;
  }

  /** All that is known of the migration, when it is over; null before both sides have spoken. */
  get record(): MigrationRecord | null {
    return this.#run?.record() ?? null;
  }
}

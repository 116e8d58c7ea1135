/**
 * The side that gives the guest away. Before GO every failure and every cancel leaves the guest running here with logging off. From GO on this
 * side never runs the guest again by itself; when RUNNING does not come, the error says that the state is uncertain.
 */
import type { Duplex } from 'node:stream';
import type { VirtioNetDevice } from '../device/virtio-net-device';
import { VhostError } from '../errors';
import { Channel } from './channel';
import type { Difference } from './messages';
import type { MigratableGuest, MigrationOptions, MigrationResult } from './options';
import { ControlPages } from './page-channel';
import { PageSender, type PageSenderOptions } from './page-sender';
import type { MigrationRecord } from './record';
import { SourceRun } from './source-run';

export interface MigrationSourceParts {
  device: VirtioNetDevice;
  guest: MigratableGuest;
}

export class MigrationSource {
  readonly #parts: MigrationSourceParts;
  readonly #options: MigrationOptions;
  #run: SourceRun | null = null;

  constructor(parts: MigrationSourceParts, options: MigrationOptions = {}) {
    this.#parts = parts;
    this.#options = options;
  }

  /**
   * Migrates over a connected stream and resolves when the destination runs. Rejects with the guest running here as before, unless the
   * error's code is VHOST_ERR_UNCERTAIN (it may run there), VHOST_ERR_RETURNED (it runs nowhere) or it says that the guest could not go on.
   */
  async migrate(stream: Duplex): Promise<MigrationResult> {
    const { channel, run } = this.#begin(stream);
    try {
      return await run.migrate();
    } finally {
      channel.close();
    }
  }

  /** Compares the two sides and moves nothing. Everything that differs, also what would end a migration. */
  async preflight(stream: Duplex): Promise<Difference[]> {
    const { channel, run } = this.#begin(stream);
    try {
      return await run.compare(true);
    } finally {
      channel.close();
    }
  }

  #begin(stream: Duplex): { channel: Channel; run: SourceRun } {
    if (this.#run !== null) throw new VhostError('VHOST_ERR_STATE', 'a MigrationSource migrates once: make another');
    const { timeoutMs, signal } = this.#options;
    const channel = new Channel(stream, {
      ...(timeoutMs === undefined ? {} : { timeoutMs }),
      ...(signal === undefined ? {} : { signal }),
    });
    const sender = new PageSender(this.#parts.device.memory, [new ControlPages(channel)], senderOptions(this.#options));
    const run = new SourceRun(this.#parts, channel, sender, this.#options);
    this.#run = run;
    return { channel, run };
  }

  /**
   * Where nothing tells what became of the guest, an order from outside: 'there', it runs at the destination; 'here', it certainly does not and
   * never will, so it goes on here. Throws VHOST_ERR_STATE where there is nothing to resolve.
   */
  async resolve(where: 'here' | 'there'): Promise<void> {
    if (this.#run === null) throw new VhostError('VHOST_ERR_STATE', 'nothing was migrated');
    await this.#run.resolve(where);
  }

  /** All that is known of the migration, when it is over; null before both sides have spoken. */
  get record(): MigrationRecord | null {
    return this.#run?.record() ?? null;
  }
}

function senderOptions({ signal, maxBandwidth }: MigrationOptions): PageSenderOptions {
  return { ...(signal === undefined ? {} : { signal }), ...(maxBandwidth === undefined ? {} : { maxBandwidth }) };
}

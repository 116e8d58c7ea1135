/**
 * Carries out the orders of a control socket, whoever gives them: one piece of work at a time that needs the guest, and nothing at all to a
 * guest that is not here.
 */
import type { VirtioNetDevice } from '../device/virtio-net-device';
import { VhostError } from '../errors';
import { measureDirtyRate } from '../observe/dirty-rate';
import { AnnounceRounds } from './announce-rounds';
import {
  type ControlMethod,
  type ControlMethods,
  type ControlOrder,
  type ControlOutcome,
  type ControlStatus,
  describeFailure,
  type MigrationAnswer,
} from './control-protocol';
import type { Json } from './json';
import type { MigratableGuest, MigrationEvent, MigrationPhase } from './options';
import { saveToFile } from './save';
import { MigrationSource } from './source';

export interface ControlParts {
  device: VirtioNetDevice;
  guest: MigratableGuest;
}

/** How the guest left: it runs elsewhere, it is a file, or it was ended. */
export type Departure = 'moved' | 'saved' | 'stopped';

export interface ControlHooks {
  /** What the status says beside. */
  describe?: (() => Json) | undefined;
  /** The guest is not here any more; who ordered it is told before the server's close resolves. */
  onLeft?: ((how: Departure) => void) | undefined;
  /** Everything a migration tells. */
  onEvent?: ((event: MigrationEvent) => void) | undefined;
}

type Work = 'migrating' | 'comparing' | 'saving' | 'measuring';

interface Task {
  readonly work: Work;
  readonly abort: AbortController;
  done: Promise<unknown>;
}

/** An order, and who gave it. */
export interface Giver {
  tell(event: MigrationEvent): void;
  /** Aborted when it has gone. */
  readonly gone: AbortSignal;
}

type Handlers = {
  [Method in ControlMethod]: (
    params: ControlMethods[Method]['params'],
    giver: Giver,
  ) => Promise<ControlMethods[Method]['result']>;
};

const UNRESOLVED = ['uncertain', 'returned', 'stranded'] as const;
type Unresolved = (typeof UNRESOLVED)[number];

export class ControlDesk {
  readonly #parts: ControlParts;
  readonly #hooks: ControlHooks;
  #task: Task | null = null;
  #phase: MigrationPhase | null = null;
  /** Where the guest is while nothing goes on. */
  #where: 'running' | Unresolved | Departure = 'running';
  /** The migration that left it uncertain. */
  #source: MigrationSource | null = null;
  #last: ControlStatus['last'] = null;
  #announcing: AnnounceRounds | null = null;
  #closed = false;

  constructor(parts: ControlParts, hooks: ControlHooks) {
    this.#parts = parts;
    this.#hooks = hooks;
  }

  carryOut<Method extends ControlMethod>({ method, params }: ControlOrder<Method>, giver: Giver): Promise<unknown> {
    return this.#handlers[method](params, giver);
  }

  readonly #handlers: Handlers = {
    status: async () => this.#status(),
    preflight: async ({ address, options = {} }, giver) => ({
      differences: await this.#work('comparing', (signal) => {
        const wanted = AbortSignal.any([signal, giver.gone]);
        return new MigrationSource(this.#parts, { ...options, signal: wanted }).preflight(address);
      }),
    }),
    migrate: (params, giver) => this.#work('migrating', (signal) => this.#migrate(params, signal, giver)),
    cancel: async () => {
      const cancelled = this.#task !== null;
      this.#task?.abort.abort(new Error('by order'));
      return { cancelled };
    },
    resolve: ({ where }) => this.#resolve(where),
    'dirty-rate': ({ seconds, intervalMs }, giver) =>
      this.#work('measuring', (signal) => {
        const { device, guest } = this.#parts;
        return measureDirtyRate({ device, guest, seconds, intervalMs, signal: AbortSignal.any([signal, giver.gone]) });
      }),
    announce: () => this.#announce(),
    save: ({ path, resume = false }) =>
      this.#work('saving', async (signal) => {
        const saved = await saveToFile(path, this.#parts, { resume, signal });
        if (!resume) this.#left('saved');
        return saved;
      }),
    stop: async () => {
      this.#refuseWhileBusy();
      // This may be all that is left of it.
      if (this.#unresolved) throw this.#elsewhere();
      await this.#stop();
      return {};
    },
  };

  #status(): ControlStatus {
    const { memory, backend, running, features, mac } = this.#parts.device;
    return {
      pid: process.pid,
      state: this.#task?.work ?? this.#where,
      phase: this.#phase,
      running,
      mac,
      backend: backend.kind,
      features: `0x${features.toString(16)}`,
      memory: memory.regions.reduce((sum, { size }) => sum + size, 0),
      taps: (backend.taps ?? []).filter(({ closed }) => !closed).map(({ name }) => name),
      last: this.#last,
      owner: this.#hooks.describe?.() ?? {},
    };
  }

  #refuseWhileBusy(): void {
    if (this.#closed) throw new VhostError('VHOST_ERR_CLOSED', 'this process is about to end');
    if (this.#task !== null) {
      throw new VhostError('VHOST_ERR_STATE', `this process is busy: ${this.#task.work}`, {
        hint: 'wait for it, or cancel it',
      });
    }
  }

  get #unresolved(): boolean {
    return UNRESOLVED.some((state) => state === this.#where);
  }

  #refuseWithoutGuest(): void {
    this.#refuseWhileBusy();
    if (this.#where !== 'running') throw this.#elsewhere();
  }

  #elsewhere(): VhostError {
    return new VhostError('VHOST_ERR_STATE', `the guest does not run here: ${this.#where}`, {
      hint: this.#unresolved ? 'say where it is: resolve here, or resolve there' : 'ask the process that has it now',
    });
  }

  async #work<T>(work: Work, run: (signal: AbortSignal) => Promise<T>): Promise<T> {
    this.#refuseWithoutGuest();
    const abort = new AbortController();
    const task: Task = { work, abort, done: Promise.resolve() };
    this.#task = task;
    try {
      const done = run(abort.signal);
      task.done = done.catch(() => undefined);
      return await done;
    } finally {
      this.#task = null;
      this.#phase = null;
    }
  }

  async #migrate(
    { address, options = {} }: ControlMethods['migrate']['params'],
    signal: AbortSignal,
    giver: Giver,
  ): Promise<MigrationAnswer> {
    this.#announcing?.stop();
    const onEvent = (event: MigrationEvent): void => {
      if (event.kind === 'phase') this.#phase = event.phase;
      giver.tell(event);
      this.#hooks.onEvent?.(event);
    };
    const source = new MigrationSource(this.#parts, { ...options, signal, onEvent });
    const answer = await source.migrate(address).then(
      (result): MigrationAnswer => ({ outcome: 'completed', error: null, result, record: source.record }),
      (error: unknown): MigrationAnswer => ({
        outcome: outcomeOf(source, error),
        error: describeFailure(error),
        result: null,
        record: source.record,
      }),
    );
    const { outcome, error } = answer;
    this.#last = { outcome, error };
    if (outcome === 'completed') this.#left('moved');
    else if (outcome !== 'failed' && outcome !== 'cancelled') {
      this.#where = outcome;
      this.#source = source;
    }
    return answer;
  }

  async #resolve(where: 'here' | 'there'): Promise<Record<string, never>> {
    this.#refuseWhileBusy();
    if (this.#source === null) throw new VhostError('VHOST_ERR_STATE', `there is nothing to resolve: ${this.#where}`);
    await this.#source.resolve(where);
    this.#source = null;
    if (where === 'here') this.#where = 'running';
    else this.#left('moved');
    return {};
  }

  async #announce(): Promise<{ rounds: number }> {
    this.#refuseWithoutGuest();
    const { device } = this.#parts;
    this.#announcing?.stop();
    const announcing = new AnnounceRounds(device, { macs: device.addresses, vlans: device.vlans });
    this.#announcing = announcing;
    await announcing.ended;
    return { rounds: announcing.rounds };
  }

  async #stop(): Promise<void> {
    const { device, guest } = this.#parts;
    this.#announcing?.stop();
    await guest.pause();
    if (device.running) await device.stop();
    // One that is elsewhere stays there: nothing was ended here.
    if (this.#where === 'running') this.#left('stopped');
    else this.#hooks.onLeft?.('stopped');
  }

  #left(how: Departure): void {
    this.#where = how;
    this.#hooks.onLeft?.(how);
  }

  /** Cancels what goes on, waits for its end, and takes no further order. */
  async close(): Promise<void> {
    this.#closed = true;
    this.#announcing?.stop();
    const task = this.#task;
    task?.abort.abort(new Error('this process is about to end'));
    await task?.done;
  }
}

function outcomeOf(source: MigrationSource, error: unknown): ControlOutcome {
  const { state } = source;
  if (state === 'uncertain' || state === 'returned' || state === 'stranded') return state;
  return error instanceof VhostError && error.code === 'VHOST_ERR_ABORTED' ? 'cancelled' : 'failed';
}

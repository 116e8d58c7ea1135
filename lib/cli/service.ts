/** A process that runs a guest until it has left, is ended by order or by a signal. */
import { endMachine, type Machine } from '../demo/machine';
import { VhostError } from '../errors';
import type { ControlHooks, ControlParts, Departure } from '../migration/control-desk';
import { ControlServer } from '../migration/control-server';
import type { Json } from '../migration/json';
import { listen } from '../migration/transport';
import { sumReports } from '../observe/ledger-set';

const SIGNALS: readonly NodeJS.Signals[] = ['SIGINT', 'SIGTERM'];
/** How often the guest is looked at: it stops by itself when a ring is broken. Milliseconds. */
const WATCH_MS = 500;

/** Resolves when one of the signals has come; later ones end the process as ever. */
export class StopSignals {
  readonly #abort = new AbortController();
  readonly #onSignal = (): void => {
    this.release();
    this.#abort.abort(new VhostError('VHOST_ERR_ABORTED', 'ended by a signal'));
  };

  constructor() {
    for (const signal of SIGNALS) process.on(signal, this.#onSignal);
  }

  get signal(): AbortSignal {
    return this.#abort.signal;
  }

  release(): void {
    for (const signal of SIGNALS) process.off(signal, this.#onSignal);
  }
}

/** Resolves when it is, at once when it was. */
export function aborted(signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    if (signal.aborted) resolve();
    else signal.addEventListener('abort', () => resolve(), { once: true });
  });
}

/** How a guest's time in this process ended. */
export type ServiceEnd = Departure | 'signal' | 'broken';

export interface Service {
  machine: Machine;
  /** Where orders are taken, if anywhere. */
  control: string | undefined;
  stop: AbortSignal;
  /** All is set. */
  told(): void;
  /** The guest goes on without orders; absent where that is no use. */
  unserved?(error: unknown): void;
}

/** The guest's own account of its frames. */
function describeGuest({ guest: { guest, failure } }: Machine): Json {
  const { received, duplicated, reordered, corrupted } = sumReports(guest.ledgers.map((ledger) => ledger.report(0)));
  return {
    program: guest.program,
    pairs: guest.pairs,
    sent: guest.sent,
    received,
    duplicated,
    reordered,
    corrupted,
    failure: failure === null ? null : String(failure),
  };
}

/** Serves orders until the guest's time here is over; then lets it go. */
export async function serveMachine({ machine, control, stop, told, unserved }: Service): Promise<ServiceEnd> {
  const { device, guest } = machine;
  let server: ControlServer | null = null;
  let onLeft: (how: Departure) => void = () => undefined;
  let watch: NodeJS.Timeout | undefined;
  const ended = new Promise<ServiceEnd>((resolve) => {
    void aborted(stop).then(() => resolve('signal'));
    watch = setInterval(() => {
      if (guest.failure !== null) resolve('broken');
    }, WATCH_MS);
    onLeft = resolve;
  });
  try {
    const hooks = { describe: () => describeGuest(machine), onLeft };
    if (control !== undefined) server = await serve(control, { device, guest }, hooks, unserved);
    told();
    return await ended;
  } finally {
    clearInterval(watch);
    await server?.close();
    await endMachine(machine);
  }
}

async function serve(
  control: string,
  parts: ControlParts,
  hooks: ControlHooks,
  unserved: ((error: unknown) => void) | undefined,
): Promise<ControlServer | null> {
  try {
    return await ControlServer.serve(control, parts, hooks);
  } catch (error) {
    if (unserved === undefined) throw error;
    unserved(error);
    return null;
  }
}

/** Throws what would keep orders from being taken there, before there is anything to lose. */
export async function checkControl(path: string): Promise<void> {
  const listener = await listen(`unix:${path}`, {}, (connection) => connection.close());
  await listener.close();
}

export const ENDINGS: Readonly<Record<ServiceEnd, string>> = {
  moved: 'the guest runs at its destination',
  saved: 'the guest is saved',
  stopped: 'the guest was ended by order',
  signal: 'ended by a signal',
  broken: 'the guest met a broken ring',
};

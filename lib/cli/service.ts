/** A process that runs a guest until it has left, is ended by order or by a signal. */
import { VhostError } from '../errors';
import type { Departure } from '../migration/control-desk';
import { ControlServer } from '../migration/control-server';
import { describeGuest, endMachine, type Machine } from './machine';

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

/** How a guest's time in this process ended. */
export type ServiceEnd = Departure | 'signal' | 'broken';

/** Serves orders, when there is a `control` path, until the guest's time here is over; then lets it go. `told` is called when all is set. */
export async function serveMachine(
  machine: Machine,
  control: string | undefined,
  stop: AbortSignal,
  told: () => void,
): Promise<ServiceEnd> {
  const { device, guest } = machine;
  let server: ControlServer | null = null;
  let watch: NodeJS.Timeout | undefined;
  try {
    const end = await new Promise<ServiceEnd>((resolve, reject) => {
      const onSignal = (): void => resolve('signal');
      if (stop.aborted) onSignal();
      else stop.addEventListener('abort', onSignal, { once: true });
      watch = setInterval(() => {
        if (guest.failure !== null) resolve('broken');
      }, WATCH_MS);
      const hooks = { describe: () => describeGuest(machine), onLeft: resolve };
      if (control === undefined) told();
      else {
        ControlServer.serve(control, { device, guest }, hooks).then((serving) => {
          server = serving;
          told();
        }, reject);
      }
    });
    return end;
  } finally {
    clearInterval(watch);
    await (server as ControlServer | null)?.close();
    await endMachine(machine);
  }
}

export const ENDINGS: Readonly<Record<ServiceEnd, string>> = {
  moved: 'the guest runs at its destination',
  saved: 'the guest is saved',
  stopped: 'the guest was ended by order',
  signal: 'ended by a signal',
  broken: 'the guest met a broken ring',
};

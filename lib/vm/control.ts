import type { Socket } from 'node:net';
import { createInterface } from 'node:readline';

/** What the guest says on the control port; see guest-init.ts. */
export type GuestEvent =
  | { readonly kind: 'booted' | 'running'; readonly uptime: number }
  | { readonly kind: 'exit'; readonly status: number }
  | { readonly kind: 'error'; readonly text: string };

/** Calls `handle` for each line that the guest sends. */
export function listen(port: Socket, handle: (event: GuestEvent) => void): void {
  port.on('error', () => {});
  createInterface({ input: port }).on('line', (line) => {
    const event = parse(line);
    if (event !== undefined) handle(event);
  });
}

function parse(line: string): GuestEvent | undefined {
  const space = line.indexOf(' ');
  const verb = line.slice(0, space);
  const rest = line.slice(space + 1);
  switch (verb) {
    case 'booted':
    case 'running':
      return { kind: verb, uptime: Number(rest) };
    case 'exit':
      return { kind: 'exit', status: Number(rest) };
    case 'error':
      return { kind: 'error', text: rest };
    default:
      return undefined;
  }
}

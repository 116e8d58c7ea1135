/** The contenders that print a line of JSON five times a second: the C program and ours. */
import type { ChildProcess } from 'node:child_process';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { Contender, type Direction, type Placement, type Sample } from './contender';

/** What both are told; testpmd has these built in or is told the same in its own words. */
export interface FloodOptions {
  readonly ring: number;
  readonly batch: number;
  /** Bytes of a frame without the virtio-net header. */
  readonly frame: number;
  /** Bytes of a receive buffer. */
  readonly buffer: number;
  readonly napi: boolean;
  readonly multiQueue: boolean;
}

export function floodArguments(direction: Direction, netdev: string, options: FloodOptions): string[] {
  const sizes = (['ring', 'batch', 'frame', 'buffer'] as const).flatMap((key) => [`--${key}`, String(options[key])]);
  const switches = [...(options.napi ? ['--napi'] : []), ...(options.multiQueue ? ['--multi-queue'] : [])];
  return [direction, '--tap', netdev, ...sizes, ...switches];
}

class Flooder extends Contender {
  readonly name: string;
  #next: ((sample: Sample) => void)[] = [];

  constructor(name: string, netdev: string, command: readonly string[], placement: Placement) {
    super(netdev, command, placement);
    this.name = name;
  }

  async sample(): Promise<Sample> {
    return await this.alive(new Promise<Sample>((resolve) => this.#next.push(resolve)));
  }

  protected listen(child: ChildProcess): void {
    createInterface({ input: child.stdout! }).on('line', (line) => {
      const sample = JSON.parse(line) as Sample;
      const waiting = this.#next;
      this.#next = [];
      for (const resolve of waiting) resolve(sample);
    });
  }
}

export const C_PROGRAM = 'C program';
export const OURS = 'vhost-net';

export function cProgram(
  program: string,
  direction: Direction,
  options: FloodOptions,
  placement: Placement,
): Contender {
  return new Flooder(C_PROGRAM, 'bench-c', [program, ...floodArguments(direction, 'bench-c', options)], placement);
}

export function ours(direction: Direction, options: FloodOptions, placement: Placement): Contender {
  const command = [process.execPath, join(__dirname, 'flood.js'), ...floodArguments(direction, 'bench-ts', options)];
  return new Flooder(OURS, 'bench-ts', command, placement);
}

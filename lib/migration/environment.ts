/** Where one side of a migration runs: what the other one compares, and what a report says. */
import { readFileSync } from 'node:fs';
import { freemem, hostname, release } from 'node:os';
import { join } from 'node:path';
import type { Backend } from '../backend/backend';
import type { Tap } from '../host/tap';
import { maxMemRegions } from '../memory/guest-memory';
import { native, packageRoot } from '../native';
import { isObject, type Json } from './json';

/** Drawn anew by every kernel that boots (Documentation/admin-guide/sysctl/kernel.rst). */
const BOOT_ID = '/proc/sys/kernel/random/boot_id';

export interface TapEnvironment {
  name: string;
  /** IFF_ bits of TUNGETFEATURES, hexadecimal. */
  features: string;
  multiQueue: boolean;
  mtu: number;
  /** Frames each queue holds. */
  txQueueLen: number;
}

export interface SideEnvironment {
  /** Name of the host. */
  host: string;
  /** Equal where both sides share a kernel. */
  bootId: string;
  kernel: string;
  node: string;
  /** Of this package. */
  version: string;
  backend: string;
  /** Feature bits that the data path carries, hexadecimal. */
  offered: string;
  /** Queue pairs it can serve; null where another process has the taps. */
  pairs: number | null;
  tap: TapEnvironment | null;
  /** Path of the tap's network namespace, or null for the process's own. */
  netns: string | null;
  maxRegions: number;
  /** Bytes. */
  freeMemory: number;
  /** Whether membarrier(MEMBARRIER_CMD_GLOBAL) works. */
  membarrier: boolean;
}

export async function describeSide(backend: Backend): Promise<SideEnvironment> {
  const tap = backend.taps?.[0] ?? null;
  return {
    host: hostname(),
    bootId: readFileSync(BOOT_ID, 'utf8').trim(),
    kernel: release(),
    node: process.version,
    version: packageVersion(),
    backend: backend.kind,
    offered: `0x${backend.offeredFeatures.toString(16)}`,
    pairs: backend.taps?.length ?? null,
    tap: tap === null ? null : await describeTap(tap),
    netns: tap?.netns ?? null,
    maxRegions: maxMemRegions(),
    freeMemory: availableMemory(),
    membarrier: (await native().membarrier()) === 0,
  };
}

async function describeTap(tap: Tap): Promise<TapEnvironment> {
  const [mtu, txQueueLen] = await Promise.all([tap.mtu(), tap.txQueueLen()]);
  const { name, features, multiQueue } = tap;
  return { name, features: `0x${features.toString(16)}`, multiQueue, mtu, txQueueLen };
}

function packageVersion(): string {
  const { version } = JSON.parse(readFileSync(join(packageRoot(), 'package.json'), 'utf8')) as { version: string };
  return version;
}

function availableMemory(): number {
  const found = /^MemAvailable:\s+(\d+) kB$/m.exec(readFileSync('/proc/meminfo', 'utf8'));
  return found === null ? freemem() : Number(found[1]) * 1024;
}

/** What a peer says of itself; what it does not say, or says in another way, is empty. It decides nothing but what people are told. */
export function readEnvironment(value: unknown): SideEnvironment {
  const side: Json = isObject(value) ? value : {};
  const tap: Json | null = isObject(side.tap) ? side.tap : null;
  return {
    host: text(side.host),
    bootId: text(side.bootId),
    kernel: text(side.kernel),
    node: text(side.node),
    version: text(side.version),
    backend: text(side.backend),
    offered: /^0x[0-9a-f]{1,32}$/.test(text(side.offered)) ? text(side.offered) : '0x0',
    pairs: typeof side.pairs === 'number' ? side.pairs : null,
    tap:
      tap === null
        ? null
        : {
            name: text(tap.name),
            features: text(tap.features),
            multiQueue: tap.multiQueue === true,
            mtu: number(tap.mtu),
            txQueueLen: number(tap.txQueueLen),
          },
    netns: typeof side.netns === 'string' ? text(side.netns) : null,
    maxRegions: number(side.maxRegions),
    freeMemory: number(side.freeMemory),
    membarrier: side.membarrier === true,
  };
}

const LONGEST = 256;

function text(value: unknown): string {
  return typeof value === 'string' ? value.slice(0, LONGEST) : '';
}

function number(value: unknown): number {
  return typeof value === 'number' && Number.isFinite(value) ? value : 0;
}

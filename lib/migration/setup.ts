/** Setup comparison: what the source runs, against what this side can run. */
import { readFileSync } from 'node:fs';
import { release } from 'node:os';
import { ProtocolError } from '../errors';
import { featureNames } from '../net/features';
import { VLANS } from '../net/receive-filter';
import type { Difference, SetupMessage } from './messages';

const MAX_REGIONS = 4096;

/** Checks a SETUP message as untrusted input and gives back nothing but what was checked. Throws ProtocolError. */
export function validateSetup(value: unknown, offset: number): SetupMessage {
  const refuse = (what: string, expected: string): never => {
    throw new ProtocolError(`SETUP: ${what}`, offset, expected);
  };
  if (typeof value !== 'object' || value === null) refuse('no object', 'an object');
  const setup = value as Record<string, unknown>;
  const size = (field: unknown, name: string): number => {
    if (typeof field !== 'number' || !Number.isSafeInteger(field) || field < 0)
      refuse(`${name} is ${field}`, 'a safe integer');
    return field as number;
  };
  if (!Array.isArray(setup.regions) || setup.regions.length === 0 || setup.regions.length > MAX_REGIONS) {
    refuse('regions', `a list of 1 to ${MAX_REGIONS}`);
  }
  const regions = (setup.regions as Record<string, unknown>[]).map((region) => ({
    gpa: size(region?.gpa, 'gpa of a region'),
    size: size(region?.size, 'size of a region'),
  }));
  if (typeof setup.features !== 'string' || !/^0x[0-9a-f]{1,32}$/.test(setup.features)) {
    refuse(`features is ${JSON.stringify(setup.features)}`, 'a hexadecimal string of up to 128 bits');
  }
  if (!Array.isArray(setup.queueSizes)) refuse('queueSizes', 'a list');
  return {
    regions,
    features: setup.features as string,
    queues: size(setup.queues, 'queues'),
    queueSizes: (setup.queueSizes as unknown[]).map((entry) => size(entry, 'a queue size')),
    mac: String(setup.mac),
    mtu: size(setup.mtu, 'mtu'),
    kernel: String(setup.kernel),
    host: String(setup.host),
    relay: setup.relay === true,
  };
}

/** What a destination can do, for `compareSetup`. */
export interface DestinationAbilities {
  /** Every bit that its backend, its tap and this library can carry. */
  features: bigint;
  /** Queues it can serve. */
  queues: number;
  maxRegions: number;
  mtu: number;
}

/** All differences in one list. */
export function compareSetup(setup: SetupMessage, here: DestinationAbilities): Difference[] {
  const differences: Difference[] = [];
  const missing = BigInt(setup.features) & ~here.features;
  if (missing !== 0n) {
    differences.push({
      what: 'features',
      source: featureNames(BigInt(setup.features)).join(' '),
      destination: `without ${featureNames(missing).join(' ')}`,
      severity: 'fatal',
    });
  }
  if (setup.queues > here.queues) {
    differences.push({ what: 'queues', source: `${setup.queues}`, destination: `${here.queues}`, severity: 'fatal' });
  }
  if (setup.regions.length > here.maxRegions) {
    differences.push({
      what: 'memory regions',
      source: `${setup.regions.length}`,
      destination: `${here.maxRegions}`,
      severity: 'fatal',
    });
  }
  if (setup.mtu > here.mtu) {
    differences.push({ what: 'mtu', source: `${setup.mtu}`, destination: `${here.mtu}`, severity: 'degraded' });
  }
  if (setup.kernel !== release()) {
    differences.push({ what: 'kernel', source: setup.kernel, destination: release(), severity: 'fine' });
  }
  return differences;
}

/** Drawn anew by every kernel that boots (Documentation/admin-guide/sysctl/kernel.rst). */
const BOOT_ID = '/proc/sys/kernel/random/boot_id';

export function hostIdentity(): string {
  return readFileSync(BOOT_ID, 'utf8').trim();
}

const MOST_ADDRESSES = 1024;

/** Unicast addresses with colons, at least one. Throws ProtocolError. */
export function validateAddresses(value: unknown, offset: number): string[] {
  const good = Array.isArray(value) && value.length > 0 && value.length <= MOST_ADDRESSES && value.every(isUnicast);
  if (!good) throw new ProtocolError('addresses of the guest', offset, `1 to ${MOST_ADDRESSES} unicast addresses`);
  return value as string[];
}

function isUnicast(value: unknown): boolean {
  return typeof value === 'string' && /^[0-9a-f][02468ace](:[0-9a-f]{2}){5}$/.test(value);
}

export function validateVlans(value: unknown, offset: number): number[] {
  const good =
    Array.isArray(value) &&
    value.length <= VLANS &&
    value.every((vlan) => Number.isInteger(vlan) && vlan >= 0 && vlan < VLANS);
  if (!good) throw new ProtocolError('VLANs of the guest', offset, `a list of numbers from 0 to ${VLANS - 1}`);
  return value as number[];
}

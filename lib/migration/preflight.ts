/** What the two sides do not have in common, found out before the first page: all of it in one list. */

import type { DeviceProperties } from '../device/device-properties';
import { VhostError } from '../errors';
import { featureNames } from '../net/features';
import type { SideEnvironment } from './environment';
import type { Difference, RegionMessage, SetupMessage } from './messages';

/**
 * As of SETUP, of guest memory that has grown: throws VHOST_ERR_INCOMPATIBLE. `here` as it was before there was any: memory that nobody has
 * written to yet counts as available still.
 */
export function requireRoom(regions: readonly RegionMessage[], more: RegionMessage, here: SideEnvironment): void {
  const bytes = regions.reduce((sum, { size }) => sum + size, more.size);
  const refused =
    bytes > here.freeMemory
      ? `bytes of memory: ${bytes} here, ${here.freeMemory} available`
      : regions.length >= here.maxRegions
        ? `memory regions: ${regions.length + 1} here, ${here.maxRegions}`
        : null;
  if (refused !== null) {
    throw new VhostError('VHOST_ERR_INCOMPATIBLE', `guest memory has grown beyond the destination: ${refused} there`);
  }
}

/** Of the device that is to run here, where its owner says what it is: a driver must not find another one. */
export function compareProperties(setup: SetupMessage, here: DeviceProperties): Difference[] {
  return Object.entries(here)
    .filter(([name, value]) => setup.properties[name] !== value)
    .map(([name, value]) => ({
      severity: 'fatal',
      what: `property ${name}`,
      source: String(setup.properties[name]),
      destination: String(value),
    }));
}

/** A fatal difference ends the migration; with a degraded one something is worse there; a fine one is only told. */
export function compareSides(setup: SetupMessage, here: SideEnvironment): Difference[] {
  const there = setup.environment;
  const found: Difference[] = [];
  const differs = (severity: Difference['severity'], what: string, source: unknown, destination: unknown): void => {
    found.push({ severity, what, source: String(source), destination: String(destination) });
  };
  const missing = BigInt(setup.features) & ~BigInt(here.offered);
  if (missing !== 0n) {
    differs(
      'fatal',
      'features',
      featureNames(BigInt(setup.features)).join(' '),
      `without ${featureNames(missing).join(' ')}`,
    );
  }
  const pairs = setup.pairs;
  if (here.pairs !== null && pairs > here.pairs) differs('fatal', 'queue pairs', pairs, here.pairs);
  if (here.tap !== null && pairs > 1 && !here.tap.multiQueue) differs('fatal', 'multiqueue tap', 'yes', 'no');
  if (setup.regions.length > here.maxRegions) differs('fatal', 'memory regions', setup.regions.length, here.maxRegions);
  const bytes = setup.regions.reduce((sum, { size }) => sum + size, 0);
  if (!setup.local && bytes > here.freeMemory)
    differs('fatal', 'bytes of memory', bytes, `${here.freeMemory} available`);
  if (here.tap !== null && setup.mtu > here.tap.mtu) differs('degraded', 'mtu', setup.mtu, here.tap.mtu);
  if (there.tap !== null && here.tap !== null && there.tap.txQueueLen > here.tap.txQueueLen) {
    differs('degraded', 'frames a tap queue holds', there.tap.txQueueLen, here.tap.txQueueLen);
  }
  if (setup.relay && here.tap === null)
    differs('degraded', 'frames that arrive meanwhile', 'handed over', 'lost: no tap of its own');
  for (const [side, other] of [
    [there, here],
    [here, there],
  ] as const) {
    if (!side.membarrier && other.membarrier) {
      differs('degraded', 'membarrier', there.membarrier ? 'yes' : 'no', here.membarrier ? 'yes' : 'no');
    }
  }
  for (const what of ['backend', 'kernel', 'node', 'version'] as const) {
    if (there[what] !== here[what]) differs('fine', what, there[what], here[what]);
  }
  return found;
}

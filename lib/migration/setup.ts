/** What the source says of itself and of its guest, as untrusted input. */
import type { VirtioNetDevice } from '../device/virtio-net-device';
import { ProtocolError } from '../errors';
import { VLANS } from '../net/receive-filter';
import { readEnvironment, type SideEnvironment } from './environment';
import { MOST_PAGE_CONNECTIONS } from './hello';
import { isObject } from './json';
import type { LayoutMessage, SetupMessage } from './messages';

const MAX_REGIONS = 4096;

/** What a source says first of its device. */
export function describeSetup(
  device: VirtioNetDevice,
  environment: SideEnvironment,
  wishes: Partial<Pick<SetupMessage, 'relay' | 'pageConnections' | 'local' | 'dryRun'>> = {},
): SetupMessage {
  const { memory, queues, features, mac, mtu } = device;
  return {
    regions: memory.regions.map(({ gpa, size }) => ({ gpa, size })),
    features: `0x${features.toString(16)}`,
    pairs: Math.max(1, Math.ceil((queues.findLastIndex(({ ready }) => ready) + 1) / 2)),
    mac,
    mtu,
    properties: { ...device.properties },
    environment,
    relay: false,
    pageConnections: 0,
    local: false,
    dryRun: false,
    ...wishes,
  };
}

/** Checks a SETUP message as untrusted input and gives back nothing but what was checked. Throws ProtocolError. */
export function validateSetup(value: unknown, offset: number): SetupMessage {
  const refuse = (what: string, expected: string): never => {
    throw new ProtocolError(`SETUP: ${what}`, offset, expected);
  };
  if (!isObject(value)) throw new ProtocolError('SETUP: no object', offset, 'an object');
  const setup = value;
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
  const { pageConnections = 0 } = setup;
  if (size(pageConnections, 'pageConnections') > MOST_PAGE_CONNECTIONS) {
    refuse(`pageConnections is ${pageConnections}`, `0 to ${MOST_PAGE_CONNECTIONS}`);
  }
  return {
    regions,
    features: setup.features as string,
    pairs: size(setup.pairs, 'pairs'),
    mac: String(setup.mac),
    mtu: size(setup.mtu, 'mtu'),
    properties: isObject(setup.properties) ? setup.properties : {},
    environment: readEnvironment(setup.environment),
    relay: setup.relay === true,
    pageConnections: pageConnections as number,
    local: setup.local === true,
    dryRun: setup.dryRun === true,
  };
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

export function validateLayout(value: unknown, offset: number): LayoutMessage {
  const change = isObject(value) ? value : {};
  const { kind, gpa, size } = change;
  if (kind !== 'add' && kind !== 'remove') {
    throw new ProtocolError(`LAYOUT of kind ${JSON.stringify(kind)}`, offset, 'add or remove');
  }
  for (const number of [gpa, size]) {
    if (!Number.isSafeInteger(number) || (number as number) < 0) {
      throw new ProtocolError(`LAYOUT with ${JSON.stringify(number)}`, offset, 'safe integers');
    }
  }
  return { kind, gpa: gpa as number, size: size as number };
}

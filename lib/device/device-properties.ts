/** What a device is before any driver has said a word: equal at both ends of a migration, or the driver would find another device. */
import { VIRTQUEUE_MAX_SIZE } from '../constants/virtio-ring';
import { invalidArgument } from '../errors';
import { DUPLEX_UNKNOWN, SPEED_UNKNOWN } from '../net/config-space';
import { parseMac } from '../net/ethernet';
import { isQueueSize } from '../virtqueue/layout';

/** VIRTIO_NET_CTRL_MQ_VQ_PAIRS_MAX is 0x8000; a tap has 256 queues, and this library serves 32. */
export const MAX_QUEUE_PAIRS = 32;
export const MIN_MTU = 68;
export const MAX_MTU = 65535;
const MAX_SPEED = 0x7fffffff;
const DUPLEX = [0, 1, DUPLEX_UNKNOWN];

export interface DeviceProperties {
  /** As the device was made; a driver may have set another since. Lower case, with colons. */
  mac: string;
  /** Queue pairs. */
  pairs: number;
  /** Largest size of every receive, transmit and control queue. */
  rxQueueSize: number;
  txQueueSize: number;
  ctrlQueueSize: number;
  mtu: number;
  /** Indirect descriptors are offered. */
  indirect: boolean;
  /** Mbit/s, or SPEED_UNKNOWN. */
  speed: number;
  /** DUPLEX_HALF, DUPLEX_FULL or DUPLEX_UNKNOWN. */
  duplex: number;
  /** Name of the feature profile that it was pinned to, or null. */
  profile: string | null;
}

export const DEFAULT_PROPERTIES: Omit<DeviceProperties, 'mac'> = {
  pairs: 1,
  rxQueueSize: 256,
  txQueueSize: 256,
  ctrlQueueSize: 64,
  mtu: 1500,
  indirect: true,
  speed: SPEED_UNKNOWN,
  duplex: DUPLEX_UNKNOWN,
  profile: null,
};

function integer(value: number, least: number, most: number): boolean {
  return Number.isInteger(value) && value >= least && value <= most;
}

export const isMtu = (mtu: number): boolean => integer(mtu, MIN_MTU, MAX_MTU);
export const isSpeed = (speed: number): boolean => speed === SPEED_UNKNOWN || integer(speed, 0, MAX_SPEED);
export const isDuplex = (duplex: number): boolean => DUPLEX.includes(duplex);
export const isPairs = (pairs: number): boolean => integer(pairs, 1, MAX_QUEUE_PAIRS);

/** Defaults filled in, everything checked. Throws VHOST_ERR_INVALID_ARGUMENT. */
export function deviceProperties(given: Partial<DeviceProperties> & { mac: string }): DeviceProperties {
  const properties = { ...DEFAULT_PROPERTIES, ...given };
  const { pairs, mtu, speed, duplex } = properties;
  parseMac(properties.mac);
  properties.mac = properties.mac.toLowerCase();
  if (!isPairs(pairs)) throw invalidArgument(`${pairs} queue pairs`, `1 to ${MAX_QUEUE_PAIRS}`);
  for (const name of ['rxQueueSize', 'txQueueSize', 'ctrlQueueSize'] as const) {
    if (!isQueueSize(properties[name]))
      throw invalidArgument(`${name} ${properties[name]}`, `a power of two from 1 to ${VIRTQUEUE_MAX_SIZE}`);
  }
  if (!isMtu(mtu)) throw invalidArgument(`mtu ${mtu}`, `${MIN_MTU} to ${MAX_MTU}`);
  if (!isSpeed(speed)) throw invalidArgument(`speed ${speed}`, `0 to ${MAX_SPEED} Mbit/s, or SPEED_UNKNOWN`);
  if (!isDuplex(duplex)) throw invalidArgument(`duplex ${duplex}`, DUPLEX.join(', '));
  return properties;
}

/** Every property in which two devices differ, in words. */
export function differingProperties(saved: DeviceProperties, here: DeviceProperties): string[] {
  return (Object.keys(here) as (keyof DeviceProperties)[])
    .filter((name) => saved[name] !== here[name])
    .map((name) => `${name} ${saved[name]} there, ${here[name]} here`);
}

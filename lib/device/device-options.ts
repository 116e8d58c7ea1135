/** What a device is made of: from nothing, for a driver to find, or from what a driver and a device have agreed on already. */
import type { Backend } from '../backend/backend';
import { VhostError } from '../errors';
import type { GuestMemory } from '../memory/guest-memory';
import type { FeatureProfile } from '../net/feature-rules';
import type { Trace } from '../trace/trace';
import type { QueueState } from '../virtqueue/queue-state';
import { type DeviceProperties, deviceProperties } from './device-properties';

export interface VirtioNetDeviceParts {
  memory: GuestMemory;
  backend: Backend;
  trace?: Trace | undefined;
}

/** A device that a driver is to find: everything but the address has a default (DEFAULT_PROPERTIES). */
export interface OfferOptions extends VirtioNetDeviceParts, Partial<Omit<DeviceProperties, 'profile'>> {
  mac: string;
  /** Offers nothing beyond it, so that the guest may move wherever the profile can be carried. */
  profile?: FeatureProfile | undefined;
  /** Bits not to be offered. */
  without?: bigint | undefined;
}

/** A device whose driver has finished with it already, without any transport. */
export interface VirtioNetDeviceOptions extends VirtioNetDeviceParts {
  /** Bits the driver acked. */
  features: bigint;
  /** Receive 2n, transmit 2n + 1. */
  queues: readonly QueueState[];
  controlQueue?: QueueState | undefined;
  /** Pairs in use at first. Default: all that are there. */
  activePairs?: number | undefined;
  /** Lower case, with colons. */
  mac: string;
  mtu?: number | undefined;
}

export interface DeviceEvents {
  /** The driver must be told to read the configuration space and the status again. */
  configChange: [];
  /** The device is broken until its driver resets it. */
  needsReset: [reason: string];
  /** A driver did what the specification forbids; the device went on as if it had not. */
  violation: [what: string];
}

/** What a transport keeps for itself and a migration carries for it. */
export interface DeviceTransport {
  save(): Record<string, unknown>;
}

/** Properties and offered features of a device, however it is made. */
export interface Made {
  properties: DeviceProperties;
  offered: bigint;
}

/** The device that somebody has negotiated with already has what it needs and no more. */
export function negotiated(options: VirtioNetDeviceParts | VirtioNetDeviceOptions): Made {
  if (!('features' in options)) throw new VhostError('VHOST_ERR_INVALID_ARGUMENT', 'features and queues are missing');
  const { features, queues, mac, mtu } = options;
  const sizes = { rxQueueSize: queues[0]?.size, txQueueSize: queues[1]?.size };
  const properties = deviceProperties({ mac, pairs: queues.length / 2, ...(mtu === undefined ? {} : { mtu }) });
  return { properties: { ...properties, ...sizes } as DeviceProperties, offered: features };
}

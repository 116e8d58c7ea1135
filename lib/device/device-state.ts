/**
 * The device's state as readable, named fields: what a migration carries beside guest memory (docs/migration-stream.md lists them). What
 * is saved is plain JSON; what is read back is untrusted until `validateDeviceState` has passed it. Addresses are held against guest memory
 * by the backend that is started with them.
 */
import { VIRTIO_F_RING_PACKED } from '../constants/virtio-config';
import {
  VIRTIO_CONFIG_S_ACKNOWLEDGE as ACKNOWLEDGE,
  VIRTIO_CONFIG_S_DRIVER as DRIVER,
  VIRTIO_CONFIG_S_DRIVER_OK as DRIVER_OK,
  VIRTIO_CONFIG_S_FAILED as FAILED,
  VIRTIO_CONFIG_S_FEATURES_OK as FEATURES_OK,
  VIRTIO_CONFIG_S_NEEDS_RESET as NEEDS_RESET,
} from '../constants/virtio-status';
import { hasBit } from '../net/features';
import { copyQueueState, type QueueState } from '../virtqueue/queue-state';
import type { ControlState } from './control-state';
import { decodeControl, encodeControl, type SavedControl } from './control-state-record';
import type { ConfigState } from './device-config';
import { DEFAULT_PROPERTIES, type DeviceProperties, MAX_QUEUE_PAIRS } from './device-properties';
import { decodeProperties } from './device-properties-record';
import { decodeQueue } from './queue-state-record';
import { fields, plainCopy, Reader, shown } from './state-reader';

export const DEVICE_STATE_VERSION = 2;

/** As it is used in this process. */
export interface DeviceParts {
  status: number;
  features: bigint;
  offered: bigint;
  /** What the driver has written to the feature registers, accepted or not. */
  driverFeatures: bigint;
  properties: DeviceProperties;
  queues: readonly QueueState[];
  /** Numbers of the queues that the driver has reset since DRIVER_OK and may set up again. */
  resetQueues: readonly number[];
  controlQueue: QueueState;
  control: ControlState;
  config: ConfigState;
  transport: Record<string, unknown> | null;
}

/** As it is written. */
export interface DeviceState {
  version: number;
  /** Fields that a reader must know to go on; a name it does not know is refused. */
  mandatory: string[];
  /** Device status register. */
  status: number;
  /** Bits the driver acked, and bits it was offered, hexadecimal. */
  features: string;
  offered: string;
  /** Bits the driver has written so far, hexadecimal. */
  driverFeatures: string;
  properties: DeviceProperties;
  queues: QueueState[];
  resetQueues: number[];
  controlQueue: QueueState;
  control: SavedControl;
  config: ConfigState;
  /** The transport's own registers, null without a transport. */
  transport: Record<string, unknown> | null;
}

const KNOWN = new Set([
  'status',
  'features',
  'offered',
  'driverFeatures',
  'properties',
  'queues',
  'resetQueues',
  'controlQueue',
  'control',
  'config',
  'transport',
  'mac',
  'mtu',
]);
/** Fields without which the driver would meet another device. */
const MANDATORY = ['status', 'features', 'properties', 'queues', 'controlQueue', 'control', 'config'];
/** What version 1 was always saved in. */
const STATUS_OF_VERSION_1 = ACKNOWLEDGE | DRIVER | FEATURES_OK | DRIVER_OK;
const EVERY_STATUS = STATUS_OF_VERSION_1 | NEEDS_RESET | FAILED;
const UNUSED_QUEUE = { size: 64, ready: false, descTable: 0, availRing: 0, usedRing: 0, nextAvail: 0 };

export function encodeDeviceState(parts: DeviceParts): DeviceState {
  return {
    version: DEVICE_STATE_VERSION,
    mandatory: parts.transport === null ? [...MANDATORY] : [...MANDATORY, 'transport'],
    status: parts.status,
    features: hex(parts.features),
    offered: hex(parts.offered),
    driverFeatures: hex(parts.driverFeatures),
    properties: { ...parts.properties },
    queues: parts.queues.map(copyQueueState),
    resetQueues: [...parts.resetQueues],
    controlQueue: copyQueueState(parts.controlQueue),
    control: encodeControl(parts.control),
    config: { ...parts.config },
    transport: structuredClone(parts.transport),
  };
}

const hex = (features: bigint): string => `0x${features.toString(16)}`;

/** Gives back a state with nothing in it but what was checked. Throws ProtocolError. */
export function validateDeviceState(value: unknown): DeviceParts {
  const reader = new Reader('device state');
  const state = fields(reader, value, 'state');
  const version = reader.integer(state.version, 'version', 1, DEVICE_STATE_VERSION);
  for (const name of reader.list(state.mandatory ?? [], 'mandatory', 0, 256)) {
    if (typeof name !== 'string' || !KNOWN.has(name)) {
      reader.refuse(`mandatory field ${shown(name)}`, `one of ${[...KNOWN].join(', ')}`);
    }
  }
  const features = reader.features(state.features, 'features');
  const offered = state.offered === undefined ? features : reader.features(state.offered, 'offered');
  if ((features & ~offered) !== 0n) reader.refuse('features that were not offered', 'a subset of what was offered');
  const queues = reader
    .list(state.queues, 'queues', 2, 2 * MAX_QUEUE_PAIRS)
    .map((queue, index) => decodeQueue(reader, queue, `queue ${index}`));
  if (queues.length % 2 !== 0) reader.refuse(`${queues.length} queues`, 'two a pair');
  const properties =
    version === 1
      ? propertiesOfVersion1(reader, state, queues)
      : decodeProperties(reader, fields(reader, state.properties, 'properties'));
  if (queues.length !== 2 * properties.pairs)
    reader.refuse(`${queues.length} queues of ${properties.pairs} pairs`, 'two a pair');
  const controlQueue = decodeQueue(reader, state.controlQueue ?? UNUSED_QUEUE, 'control queue');
  const packed = hasBit(features, VIRTIO_F_RING_PACKED);
  if ([...queues, controlQueue].some((queue) => queue.ready && (queue.packed !== undefined) !== packed)) {
    reader.refuse('a queue in a format that was not acked', packed ? 'packed positions' : 'no packed positions');
  }
  const control = decodeControl(reader, state.control ?? {}, {
    features,
    mac: properties.mac,
    pairs: properties.pairs,
    // Version 1 knew no pairs at rest.
    activePairs: version === 1 ? properties.pairs : 1,
  });
  return {
    status: decodeStatus(reader, state.status ?? STATUS_OF_VERSION_1),
    features,
    offered,
    driverFeatures:
      state.driverFeatures === undefined ? features : reader.features(state.driverFeatures, 'driverFeatures'),
    properties,
    queues,
    resetQueues: reader
      .list(state.resetQueues ?? [], 'resetQueues', 0, queues.length + 1)
      .map((number) => reader.integer(number, 'a number of resetQueues', 0, queues.length)),
    controlQueue,
    control,
    config: decodeConfig(reader, fields(reader, state.config ?? {}, 'config'), properties),
    transport:
      state.transport == null ? null : plainCopy(reader, fields(reader, state.transport, 'transport'), 'transport'),
  };
}

/** Only what bits that are ever added in order can have come to. */
function decodeStatus(reader: Reader, value: unknown): number {
  const status = reader.integer(value, 'status', 0, 255);
  const foreign = (status & ~EVERY_STATUS) !== 0;
  const negotiated = (status & FEATURES_OK) !== 0;
  if (foreign || (negotiated ? (status & DRIVER) === 0 : (status & DRIVER_OK) !== 0)) {
    reader.refuse(`status is 0x${status.toString(16)}`, 'a status that a driver can bring a device to');
  }
  return status;
}

function decodeConfig(reader: Reader, config: Record<string, unknown>, properties: DeviceProperties): ConfigState {
  return {
    linkUp: reader.boolean(config.linkUp ?? true, 'config linkUp'),
    mtu: reader.mtu(config.mtu ?? properties.mtu, 'config mtu'),
    speed: reader.speed(config.speed ?? properties.speed, 'config speed'),
    duplex: reader.duplex(config.duplex ?? properties.duplex, 'config duplex'),
    generation: reader.integer(config.generation ?? 0, 'config generation', 0, 0xffffffff),
  };
}

/** Version 1 had `mac`, `mtu` and queues; the rest was what defaults are now. */
function propertiesOfVersion1(
  reader: Reader,
  state: Record<string, unknown>,
  queues: readonly QueueState[],
): DeviceProperties {
  return decodeProperties(reader, {
    mac: state.mac,
    mtu: state.mtu ?? DEFAULT_PROPERTIES.mtu,
    pairs: queues.length / 2,
    rxQueueSize: queues[0]!.size,
    txQueueSize: queues[1]!.size,
  });
}

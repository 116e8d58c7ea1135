/** The property record as it is read back: fields that an older source did not know have the values that it had. */
import { VIRTQUEUE_MAX_SIZE } from '../constants/virtio-ring';
import { isQueueSize } from '../virtqueue/layout';
import { DEFAULT_PROPERTIES, type DeviceProperties, MAX_QUEUE_PAIRS } from './device-properties';
import type { Reader } from './state-reader';

export function decodeProperties(reader: Reader, saved: Record<string, unknown>): DeviceProperties {
  const found = { ...DEFAULT_PROPERTIES, ...saved } as Record<string, unknown>;
  const size = (name: string): number => {
    const entries = reader.integer(found[name], name, 1, VIRTQUEUE_MAX_SIZE);
    if (!isQueueSize(entries)) reader.refuse(`${name} is ${entries}`, 'a power of two');
    return entries;
  };
  return {
    mac: reader.mac(found.mac, 'property mac'),
    pairs: reader.integer(found.pairs, 'property pairs', 1, MAX_QUEUE_PAIRS),
    rxQueueSize: size('rxQueueSize'),
    txQueueSize: size('txQueueSize'),
    ctrlQueueSize: size('ctrlQueueSize'),
    mtu: reader.mtu(found.mtu, 'property mtu'),
    indirect: reader.boolean(found.indirect, 'property indirect'),
    speed: reader.speed(found.speed, 'property speed'),
    duplex: reader.duplex(found.duplex, 'property duplex'),
    profile: found.profile === null ? null : reader.string(found.profile, 'property profile', 64),
  };
}

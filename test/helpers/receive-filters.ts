/** Receive filters and frames for tests: frames that collide with what a filter lists, or just miss it. */
import { formatMac, parseMac } from '../../lib/net/ethernet';
import { initialReceiveFilter, type ReceiveFilter, VLAN_TABLE_BYTES } from '../../lib/net/receive-filter';
import type { MetadataTag } from './bpf-interpreter';

export const DEVICE_MAC = '02:00:00:00:00:01';

/** A filter that does filter: nothing but what `changes` say, the device's address and broadcast. */
export function receiveFilter(changes: Partial<ReceiveFilter> = {}): ReceiveFilter {
  return { ...initialReceiveFilter(DEVICE_MAC, false), promiscuous: false, ...changes };
}

export function vlanTable(vids: Iterable<number>): Uint8Array {
  const table = new Uint8Array(VLAN_TABLE_BYTES);
  for (const vid of vids) table[vid >> 3]! |= 1 << (vid & 7);
  return table;
}

/** No two neighbouring words are alike, none is all zeros or ones: the most that a program must tell apart. */
export const WORST_VLANS = vlanTable(
  Array.from({ length: 4096 }, (_, vid) => vid).filter(
    (vid) => (vid + (vid >> 5)) % 2 === 0 && vid % 32 !== (vid >> 5) % 32,
  ),
);

/** The first `count` addresses of a series that shares neither the low 32 nor the high 16 bits. */
export function distinctMacs(count: number, firstByte: number): string[] {
  return Array.from({ length: count }, (_, index) =>
    formatMac(Uint8Array.of(firstByte, index + 1, 0xff - index, index * 5, index * 3, index)),
  );
}

export interface Sent {
  frame: Uint8Array;
  tag: MetadataTag | null;
}

/** 60 bytes, from 02:00:00:00:00:fe. */
export function frameTo(destination: string, ...afterAddresses: number[]): Uint8Array {
  const frame = new Uint8Array(60);
  frame.set(parseMac(destination));
  frame.set(parseMac('02:00:00:00:00:fe'), 6);
  frame.set(afterAddresses.length === 0 ? [0x88, 0xb5] : afterAddresses, 12);
  return frame;
}

/** Every listed address, each with one bit changed in turn, halves of two put together, and some that are not listed. */
export function destinationsNear(filter: ReceiveFilter): string[] {
  const bases = [filter.mac, ...filter.unicast, ...filter.multicast, 'ff:ff:ff:ff:ff:ff', '00:00:00:00:00:00'];
  const near = new Set(bases);
  for (const base of bases) {
    for (let bit = 0; bit < 48; bit++) {
      const bytes = parseMac(base);
      bytes[bit >> 3]! ^= 1 << (bit & 7);
      near.add(formatMac(bytes));
    }
  }
  for (const [index, high] of bases.entries()) {
    const others = bases.length <= 25 ? bases : bases.slice(index + 1, index + 2);
    for (const low of others) near.add(high.slice(0, 6) + low.slice(6));
  }
  return [...near];
}

/** Destinations without a tag and with several; every vid, in metadata and in the frame; odd tags and short frames. */
export function framesNear(filter: ReceiveFilter): Sent[] {
  const frames: Sent[] = destinationsNear(filter).flatMap((destination) => [
    { frame: frameTo(destination), tag: null },
    { frame: frameTo(destination), tag: { tci: 5, tpid: 0x8100 } },
    { frame: frameTo(destination), tag: { tci: 5, tpid: 0x88a8 } },
    { frame: frameTo(destination, 0x81, 0x00, 0x00, 0x05, 0x08, 0x00), tag: null },
  ]);
  const { mac } = filter;
  for (let vid = 0; vid < 4096; vid++) {
    const tci = (((vid * 7) << 13) & 0xf000) | vid;
    frames.push({ frame: frameTo(mac), tag: { tci, tpid: 0x8100 } });
    frames.push({ frame: frameTo(mac, 0x81, 0x00, tci >> 8, tci & 0xff, 0x08, 0x00), tag: null });
  }
  for (const vid of [0, 1, 5, 31, 32, 4095]) {
    const inner = frameTo(mac, 0x81, 0x00, 0, 1, 0x08, 0x00);
    for (const tpid of [0x8100, 0x88a8]) frames.push({ frame: inner, tag: { tci: vid, tpid } });
    for (const outer of [0x88a8, 0x9100, 0x8101, 0x0081]) {
      frames.push({ frame: frameTo(mac, outer >> 8, outer & 0xff, vid >> 8, vid & 0xff, 0x81, 0x00, 0, 1), tag: null });
    }
  }
  for (const whole of [frameTo(mac), frameTo(mac, 0x81, 0x00, 0, 1)]) {
    for (let length = 0; length <= 18; length++) {
      frames.push({ frame: whole.slice(0, length), tag: null });
      frames.push({ frame: whole.slice(0, length), tag: { tci: 1, tpid: 0x8100 } });
    }
  }
  return frames;
}

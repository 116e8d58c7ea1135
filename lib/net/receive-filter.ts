/**
 * Which frames a driver wants (virtio 1.4 section 5.1.6.5.1 to 5.1.6.5.3), as plain data: what its control commands add up to, and what
 * a data path turns into a filter. Addresses are lower case with colons.
 */

/** VLAN identifiers of a 12-bit tag field. */
export const VLANS = 4096;
/** One bit a VLAN identifier: bit (vid & 7) of byte (vid >> 3). */
export const VLAN_TABLE_BYTES = VLANS / 8;
/** Addresses of both kinds that a table holds; a larger one lets everything of its kind through. */
export const MAC_TABLE_ENTRIES = 64;

export interface ReceiveFilter {
  /** Everything, whatever the rest says. */
  promiscuous: boolean;
  allMulticast: boolean;
  allUnicast: boolean;
  /** Stronger than `allMulticast`. Broadcast is not meant. */
  noMulticast: boolean;
  /** Stronger than `allUnicast`. */
  noUnicast: boolean;
  noBroadcast: boolean;
  /** The device's own address. */
  mac: string;
  /** The MAC table. */
  unicast: readonly string[];
  multicast: readonly string[];
  /** The driver named more than the table holds: all of the kind are let through. */
  unicastOverflow: boolean;
  multicastOverflow: boolean;
  /** VLAN_TABLE_BYTES of tagged frames to let through; null where VLANs are not filtered. Untagged frames always pass it. */
  vlans: Readonly<Uint8Array> | null;
}

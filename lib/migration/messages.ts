/** Payloads of the migration's control frames, as plain data. Integers above 2^53 travel as hexadecimal strings. */
import type { DeviceState } from '../device/device-state';
import type { SideEnvironment } from './environment';
import type { DestinationAccount, SourceAccount } from './handover/account';

/** One region of guest memory. Bytes. */
export interface RegionMessage {
  gpa: number;
  size: number;
}

/** What the source runs, for the destination to compare with what it can run. */
export interface SetupMessage {
  regions: RegionMessage[];
  /** Bits the driver acked, hexadecimal. */
  features: string;
  /** Queue pairs that the driver has set up. */
  pairs: number;
  mac: string;
  mtu: number;
  /** What the device is before any driver, as a saved device state has it. Only compared and told. */
  properties: Readonly<Record<string, unknown>>;
  environment: SideEnvironment;
  /** Frames can be handed over: the source reads its taps itself. */
  relay: boolean;
  /** Page connections that are to come. */
  pageConnections: number;
  /** Guest memory is not copied: its memfds come over a connection for descriptors, and the taps' own with them. */
  local: boolean;
  /** Nothing is to be moved: the answer is all that is asked for. */
  dryRun: boolean;
}

/** One thing the two sides do not have in common. */
export interface Difference {
  what: string;
  source: string;
  destination: string;
  /** `fatal` ends the migration before the first page. */
  severity: 'fatal' | 'degraded' | 'fine';
}

export interface SetupAckMessage {
  differences: Difference[];
  environment: SideEnvironment;
  relay: boolean;
}

/** What descriptors are, in their order: one for each region, one for each queue pair's tap. */
export interface DescriptorsMessage {
  regions: RegionMessage[];
  taps: TapMessage[];
}

/** What of a tap the kernel does not tell; null: not known. */
export interface TapMessage {
  offload: number | null;
  /** Classic BPF, base64; null for none. */
  filter: string | null;
  carrier: boolean | null;
}

/** The source's guest is about to stop: the destination is to keep what comes to its tap. */
export interface OpenMessage {
  /** As the device is now; where its rings stand means nothing. */
  device: DeviceState;
  addresses: string[];
}

export interface OpenedMessage {
  /** Of the announcement to come, hexadecimal. */
  nonce: string;
}

/** A region has come or gone at the source. */
export interface LayoutMessage extends RegionMessage {
  kind: 'add' | 'remove';
}

export interface RoundEndMessage {
  round: number;
  pages: number;
  /** The source has stopped: no page comes after this round. */
  final: boolean;
}

export interface StateMessage {
  device: DeviceState;
  /** Opaque to the device: where the guest's own state begins, and whatever else its owner needs to go on. */
  guest: Record<string, unknown>;
  /** The guest's unicast addresses, its device's own first, and the VLANs in which it was seen: to be announced. */
  addresses: string[];
  vlans: number[];
}

/** The source has sent every frame it had for the guest. */
export interface DrainedMessage {
  account: SourceAccount;
}

/** The destination reads its tap directly. */
export interface SettledMessage {
  account: DestinationAccount;
}

/** What the source's stop found, and what the destination's start took. Milliseconds. */
export interface RunningMessage {
  startMs: number;
}

/** One hash of 64 bits per page and region follows in the frame's payload. */
export interface AuditResult {
  total: number;
  differing: number;
  /** GPAs of the first few differing pages. */
  pages: number[];
}

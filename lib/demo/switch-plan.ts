/** What the processes of the switch demo agree on. */
import type { SwitchReceipt } from '../device/switch-backend';
import type { LedgerReport } from '../observe/frame-ledger';

export interface SwitchPlan {
  /** Path of the network namespace with the bridge. */
  netns: string;
  /** Queue pairs. */
  pairs: number;
  /** Frames a second each way, over all flows. */
  rate: number;
  frameSize: number;
  /** Bytes of guest memory. */
  memory: number;
}

export type SwitchOrders = {
  /** Opens the tap. */
  open: { order: SwitchPlan; word: { tap: string } };
  /** A driver finds the device, with the emulated data path, and boots a guest. */
  boot: { order: null; word: { features: string; vhostFeatures: string } };
  /** Goes over to the other data path. */
  switch: { order: null; word: SwitchReceipt };
  /** The guest sends no more: what it had sent, by flow. */
  hush: { order: null; word: { sent: number[] } };
  /** What the guest received, held against what was sent to it, by flow. */
  report: { order: { sent: number[] }; word: { frames: LedgerReport[] } };
  /** Stops everything and ends. */
  end: { order: null; word: null };
};

/** Flows to the guest are numbered behind those from it, one each way for a queue pair. */
export const firstFlowToGuest = (pairs: number): number => 1 + pairs;

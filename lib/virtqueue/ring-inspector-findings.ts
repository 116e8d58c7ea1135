/** What was read of a virtqueue, before anything is said about it. */
import type { Indexes, InspectedUsed, Suppression } from './ring-inspection';
import type { ChainInspection } from './ring-inspector-chain';
import type { Violations } from './ring-inspector-rules';

export interface Findings {
  indexes: Indexes;
  suppression: { kick: Suppression; call: Suppression };
  /** Available ones, oldest first. */
  chains: readonly ChainInspection[];
  used: InspectedUsed[];
  /** Of the rings themselves, not of chains. */
  violations: Violations;
  /** False when a part of the queue lies outside guest memory. */
  readable: boolean;
  moving: boolean;
}

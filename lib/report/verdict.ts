/** What the account of a hand-over proves. */
import type { HandoverAccount } from '../migration/record';
import { count } from './units';

/** Every reason why it proves nothing, in words: those the sides gave, and those that the figures show. Empty: proven. */
export function doubts({ source, destination, ambiguous, unproven }: HandoverAccount): string[] {
  const reasons = [...unproven];
  const atSource = source.given + source.own + source.groupAfterCut;
  if (source.read !== atSource) {
    reasons.push(`The source read ${count(source.read)} frames and accounts for ${count(atSource)}.`);
  }
  const atDestination = destination.given + destination.matched + destination.own;
  if (destination.read !== atDestination) {
    reasons.push(`The destination read ${count(destination.read)} frames and accounts for ${count(atDestination)}.`);
  }
  if (source.dropped > 0) reasons.push(`The source's tap dropped ${count(source.dropped)} frames: its queue was full.`);
  if (ambiguous > 0) reasons.push(`Joins of flooded frames that fit in more than one way: ${count(ambiguous)}.`);
  return reasons;
}

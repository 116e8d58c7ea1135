/** What the account of a hand-over proves. */
import { compareAccounts, type HandoverAccount } from '../migration/handover/account';

/** Every reason why it proves nothing, in words: those the sides gave, and those that the figures show. Empty: proven. */
export function doubts({ source, destination, unproven }: HandoverAccount): string[] {
  return [...new Set([...unproven, ...compareAccounts(source, destination).unproven])];
}

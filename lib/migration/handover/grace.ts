/**
 * A grace period of the tap's host: whatever forwards a frame at its beginning has finished at its end. membarrier(MEMBARRIER_CMD_GLOBAL) waits
 * for one of RCU, under which bridges and taps work (net/bridge, drivers/net/tun.c). A kernel with nohz_full refuses it; then time has to do.
 */
import { constants } from 'node:os';
import { setTimeout as sleep } from 'node:timers/promises';
import { systemError } from '../../errors';
import { native } from '../../native';

const INSTEAD_MS = 100;
/** Two hosts have more between them than two queues. */
const PATH_SKEW_MS = 50;

/** Answers false where only time has passed. Runs on the thread pool. */
export type Grace = () => Promise<boolean>;

/** Grace periods between taps of one host, or of two. */
export function gracePeriods(sameHost: boolean): Grace {
  return async () => {
    const [result] = await Promise.all([native().membarrier(), sameHost ? undefined : sleep(PATH_SKEW_MS)]);
    if (result === 0) return true;
    if (result !== -constants.errno.EINVAL && result !== -constants.errno.ENOSYS)
      throw systemError(result, 'membarrier');
    await sleep(INSTEAD_MS);
    return false;
  };
}

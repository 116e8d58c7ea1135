/** Says in words why a queue does not move. Shared by both formats: it knows findings, not rings. */
import { counted, type InspectOptions, type Verdict } from './ring-inspection';
import type { Findings } from './ring-inspector-findings';
import { CONSEQUENCE_WORDS, consequenceOf } from './ring-inspector-rules';

export interface Diagnosis {
  verdict: Verdict;
  /** Most important first. */
  words: string[];
}

type Options = InspectOptions & { ready: boolean };

export function diagnose(findings: Findings, options: Options): Diagnosis {
  const words: string[] = [];
  let stands = false;
  const stand = (...lines: string[]): void => {
    stands ||= lines.length > 0;
    words.push(...lines);
  };
  const broken = findings.violations.count > 0 || findings.chains.some(({ violations }) => violations.count > 0);
  if (!options.ready) stand('the queue is not ready: the driver has not enabled it, and no device looks at it');
  const trouble = [...ringTrouble(findings), ...blockedBy(findings)];
  stand(...trouble);
  if (broken && trouble.length === 0) words.push(otherViolation(findings));
  if (options.running === false) stand('no device runs: nothing is taken from the queue or called');
  if (findings.moving) words.push('the queue moves: its indexes changed while it was read');
  else if (findings.readable) {
    stand(...waitingForDevice(findings, options));
    stand(...waitingForDriver(findings, options));
  }
  if (stands || findings.moving) return { verdict: broken ? 'broken' : stands ? 'stands' : 'moves', words };
  words.push(sound(findings, options));
  return { verdict: broken ? 'broken' : 'moves', words };
}

function ringTrouble({ violations }: Findings): string[] {
  const outside = violations.list.find(({ rule }) => rule === 'ring-outside-memory');
  if (outside !== undefined) {
    return [`${outside.where} at ${outside.found} lies outside guest memory: no device can serve the queue`];
  }
  const refused = violations.list.find(({ rule }) => rule === 'alignment' || rule === 'queue-size');
  if (refused !== undefined) {
    const { where, found, expected } = refused;
    return [`${where}: ${found}; expected ${expected}: vhost refuses the queue with EINVAL`];
  }
  const indexes = violations.list.find(({ rule }) => ['index-distance', 'used-ahead', 'position'].includes(rule));
  if (indexes !== undefined) {
    return [`${indexes.where} make no sense (${indexes.found}; expected ${indexes.expected}): no chain can be taken`];
  }
  return violations.list
    .filter(({ rule }) => rule === 'used-id-range')
    .slice(0, 1)
    .map(
      ({ where, found }) => `${where} has ${found}, which the driver never made available: it will give the queue up`,
    );
}

/** One that no device stops at. */
function otherViolation({ violations, chains }: Findings): string {
  const [first] = [...violations.list, ...chains.flatMap((chain) => chain.violations.list)];
  return `a rule is broken, though a device may pass over it: ${first!.where}: ${first!.found}`;
}

/** The first chain that a device does not pass over. */
function blockedBy({ chains }: Findings): string[] {
  const at = chains.findIndex(({ blocking }) => blocking !== null);
  if (at < 0) return [];
  const { rule, words } = chains[at]!.blocking!;
  const behind = chains.length - at - 1;
  const consequence = consequenceOf(rule);
  const queue =
    behind > 0 && consequence !== 'swallows'
      ? `; ${counted(behind, 'chain')} ${behind === 1 ? 'waits' : 'wait'} behind it`
      : '';
  return [`${words}: ${CONSEQUENCE_WORDS[consequence]}${queue}`];
}

function waitingForDevice({ indexes, suppression: { kick } }: Findings, options: Options): string[] {
  const { pending, inFlight } = indexes;
  if (pending === null) return [];
  if (options.role === 'receive') {
    if (pending === 0 && inFlight === 0) {
      return ['the driver has made nothing available: a receive queue needs buffers'];
    }
    if (pending > 0 && kick.wants === 'at' && indexes.availIdx !== undefined && kick.event === indexes.availIdx) {
      const left = `the device left ${counted(pending, 'chain')} untaken and asks for a kick when more come`;
      return [`${left}: a frame waits that needs more buffers than there are`];
    }
    return [];
  }
  const lines: string[] = [];
  if (pending > 0) {
    const chains = `${counted(pending, 'chain')} ${pending === 1 ? 'waits' : 'wait'}`;
    lines.push(`${chains} and the device has not taken ${pending === 1 ? 'it' : 'them'}: ${kickWords(kick)}`);
    const { kicks } = options;
    if (kicks !== undefined) {
      lines.push(
        kicks === 0
          ? 'the kick eventfd counts 0: no kick waits to be read'
          : `the kick eventfd counts ${kicks}: a device in a process has not read it; vhost in the kernel never does`,
      );
    }
  } else if (inFlight !== null && inFlight > 0 && options.running === false) {
    lines.push(`${inFlight} taken and never used: the driver does not get them back`);
  }
  return lines;
}

function kickWords(kick: Findings['suppression']['kick']): string {
  const at = kick.event;
  switch (kick.wants) {
    case 'never':
      return 'the device asked for no kicks, so none came; if it does not poll, it sleeps';
    case 'always':
      return 'it asks for every kick, so one was due: the driver did not kick, or the device did not wake';
    case 'at':
      if (kick.reached === 'reached') {
        return `the driver passed event ${at}, so a kick was due: the driver did not kick, or the device did not wake`;
      }
      return kick.reached === 'behind'
        ? `it was told not to expect a kick (event ${at} is behind), so the device should be polling`
        : `the driver published without reaching event ${at}, so no kick was due; the device should be polling`;
    default:
      return 'what it asked of the driver cannot be read';
  }
}

function waitingForDriver({ indexes, suppression: { call } }: Findings, options: Options): string[] {
  const { usedWaiting, usedWaitingFrom, pending, inFlight } = indexes;
  const { calls = 0 } = options;
  const unread = calls > 0 ? [`the call eventfd counts ${calls}: the driver was called and has not read it`] : [];
  if (usedWaiting === 0) return [];
  if (usedWaitingFrom === 'driver') {
    const has = `the driver has ${counted(usedWaiting!, 'used chain')} to take back`;
    if (call.wants === 'never' || call.reached === 'behind') {
      return [`${has} and asked not to be called: it must look by itself`];
    }
    if (call.reached === 'ahead') {
      return [`${has} and asked to be called only at used index ${call.event}`];
    }
    return [`${has}, and a call was due`, ...unread];
  }
  // Without the driver's own word only an empty queue says that it may have something to take back.
  if (pending === 0 && inFlight === 0) {
    if (usedWaiting !== null) {
      const line = `all chains were used, of which the driver has up to ${usedWaiting} to take back`;
      return unread.length > 0 || options.role === 'receive'
        ? [`${line}: used_event ${call.event} is passed`, ...unread]
        : [];
    }
    if (call.wants === 'never' && options.role === 'receive') {
      return ['all chains were used and the driver asked not to be called: it must look by itself', ...unread];
    }
  }
  return unread;
}

function sound({ indexes }: Findings, { role }: Options): string {
  const { pending, inFlight } = indexes;
  if (role === 'receive' && (pending ?? 0) + (inFlight ?? 0) > 0) return 'moves: its buffers wait for frames';
  if (pending === 0 && (inFlight ?? 0) > 0) return 'moves: the device is at work on what it has taken';
  return 'moves: nothing waits';
}

/** The demo of `--switch`: the data path of a running device is changed again and again under traffic, and every frame accounted for. */
import { writeFileSync } from 'node:fs';
import { release } from 'node:os';
import { setTimeout as sleep } from 'node:timers/promises';
import type { SwitchReceipt } from '../device/switch-backend';
import { Netns } from '../host/netns';
import type { LedgerReport } from '../observe/frame-ledger';
import { sumReports } from '../observe/ledger-set';
import { Station } from '../observe/station';
import { BRIDGE, DRAIN_MS, GUEST_MAC, GUEST_TO_NETWORK_FLOW, LEDGER_CAPACITY, STATION_MAC } from './plan';
import { SideProcess } from './side-process';
import { frameTable } from './summary';
import { firstFlowToGuest, type SwitchOrders, type SwitchPlan } from './switch-plan';

export interface SwitchDemoOptions {
  vm: boolean;
  /** File for the summary, or null. */
  json: string | null;
  switches: number;
  pairs: number;
  rate: number;
  frameSize: number;
  memory: number;
}

/** What --json writes. */
export interface SwitchSummary {
  switches: { from: string; to: string; microseconds: number; framesMoved: number }[];
  frames: { guestToNetwork: LedgerReport; networkToGuest: LedgerReport };
}

/** Traffic on each data path before the next switch. Milliseconds. */
const STAY_MS = 300;
/** Frames of a flow that show where it comes from now. */
const HEARD = 3;
/** Longest wait for the first frames. */
const PATIENCE_MS = 30_000;

/** Runs it all. Answers the exit status: 0 when no frame was lost, doubled, reordered or corrupted. */
export async function runSwitchDemo(options: SwitchDemoOptions): Promise<number> {
  const { pairs, rate, frameSize, memory } = options;
  const netns = await Netns.create();
  const side = new SideProcess<SwitchOrders>('switch-side.js', 'device');
  let station: Station | null = null;
  try {
    const plan: SwitchPlan = { netns: netns.path, pairs, rate, frameSize, memory };
    await netns.addBridge(BRIDGE);
    station = await Station.open({
      netns: netns.path,
      name: 'station',
      mac: STATION_MAC,
      peerMac: GUEST_MAC,
      sends: firstFlowToGuest(pairs),
      receives: GUEST_TO_NETWORK_FLOW,
      flows: pairs,
      rate,
      frameSize,
      capacity: Math.ceil(LEDGER_CAPACITY / pairs),
    });
    await netns.attach(BRIDGE, station.name);
    await netns.attach(BRIDGE, (await side.ask('open', plan)).tap);
    const { features, vhostFeatures } = await side.ask('boot', null);
    say(`kernel ${release()}${options.vm ? ' in the test VM' : ''}, vhost-net features ${vhostFeatures}`);
    say(`driver acked ${features}, ${pairs} queue pair${pairs > 1 ? 's' : ''}, ${rate} frames a second each way\n`);
    await heard(station);
    station.start();
    const receipts = await switchInARow(side, options.switches);
    station.hush();
    const { sent } = await side.ask('hush', null);
    const summary: SwitchSummary = {
      switches: receipts.map(({ from, to, microseconds, framesMoved }) => ({ from, to, microseconds, framesMoved })),
      frames: await drained(side, station, sent),
    };
    await side.ask('end', null);
    say(`\n${frameTable(summary.frames)}\n`);
    if (options.json !== null) writeFileSync(options.json, `${JSON.stringify(summary, null, 2)}\n`);
    return isClean(summary) ? 0 : 1;
  } finally {
    side.kill();
    await station?.close();
    await netns.delete();
  }
}

function say(text: string): void {
  process.stdout.write(`${text}\n`);
}

/** The network answers when it has heard every flow anew: a multiqueue tap learns from it which queue a flow's frames go to. */
async function heard(station: Station): Promise<void> {
  const deadline = Date.now() + PATIENCE_MS;
  const before = station.ledgers.map(({ received }) => received);
  while (station.ledgers.some(({ received }, flow) => received < before[flow]! + HEARD)) {
    if (Date.now() > deadline) throw new Error('the guest was not heard');
    await sleep(10);
  }
}

async function switchInARow(side: SideProcess<SwitchOrders>, switches: number): Promise<SwitchReceipt[]> {
  const receipts: SwitchReceipt[] = [];
  say('switch  from           to              stopped us   frames moved   vring: base before > after');
  for (let count = 1; count <= switches; count++) {
    await sleep(STAY_MS);
    const receipt = await side.ask('switch', null);
    receipts.push(receipt);
    const { from, to, microseconds, framesMoved, vrings } = receipt;
    const indexes = vrings.map(({ queue, before, after }) => `${queue}: ${before.base} > ${after.base}`).join('  ');
    say(
      `${String(count).padStart(6)}  ${from.padEnd(13)}  ${to.padEnd(13)}${String(microseconds).padStart(13)}` +
        `${String(framesMoved).padStart(15)}   ${indexes}`,
    );
  }
  await sleep(STAY_MS);
  return receipts;
}

/** Both accounts when nothing is under way any more: everything has come, or nothing has for a while. */
async function drained(
  side: SideProcess<SwitchOrders>,
  station: Station,
  sentByGuest: readonly number[],
): Promise<SwitchSummary['frames']> {
  const sentToGuest = station.ledgers.map((_, flow) => station.sentOf(flow));
  let seen = -1;
  for (;;) {
    await sleep(DRAIN_MS);
    const { frames } = await side.ask('report', { sent: sentToGuest });
    const guestToNetwork = sumReports(station.ledgers.map((ledger, flow) => ledger.report(sentByGuest[flow]!)));
    const networkToGuest = sumReports(frames);
    const received = guestToNetwork.received + networkToGuest.received;
    if (received === seen || guestToNetwork.lost + networkToGuest.lost === 0) return { guestToNetwork, networkToGuest };
    seen = received;
  }
}

function isClean({ frames }: SwitchSummary): boolean {
  return Object.values(frames).every(
    ({ lost, duplicated, reordered, corrupted }) => lost + duplicated + reordered + corrupted === 0,
  );
}

/**
 * The demo: a station and two sides on one bridge, in a network namespace made for it. A guest runs on the source and talks with the
 * station; the source gives it to the destination; everything that was sent is accounted for.
 */
import { writeFileSync } from 'node:fs';
import { release } from 'node:os';
import { setTimeout as sleep } from 'node:timers/promises';
import { Netns } from '../host/netns';
import type { LedgerGap } from '../observe/frame-ledger';
import { Station } from '../observe/station';
import {
  BRIDGE,
  type DemoPlan,
  DRAIN_MS,
  GUEST_MAC,
  GUEST_TO_NETWORK_FLOW,
  LEDGER_CAPACITY,
  NETWORK_TO_GUEST_FLOW,
  type Orders,
  STATION_MAC,
} from './plan';
import { SideProcess } from './side-process';
import { blackout, type DemoSummary, summaryText } from './summary';

export interface DemoOptions {
  /** Whether this runs in the test VM. */
  vm: boolean;
  /** File for the summary, or null. */
  json: string | null;
  rate: number;
  frameSize: number;
  memory: number;
  seconds: number;
  downtimeLimitMs: number;
}

/** Runs it all. Answers the exit status: 0 when the guest moved, no page differs and no frame was lost, doubled, reordered or damaged. */
export async function runDemo(options: DemoOptions): Promise<number> {
  const netns = await Netns.create();
  const moments: { stopped: number | null; started: number | null } = { stopped: null, started: null };
  const sides = (['source', 'destination'] as const).map(
    (name) =>
      new SideProcess<Orders>('side.js', name, {
        event: (text) => say(`${name.padEnd(12)}${text}`),
        moment: (moment, at) => {
          moments[moment] = at;
        },
      }),
  );
  const [source, destination] = sides as [SideProcess<Orders>, SideProcess<Orders>];
  let station: Station | null = null;
  try {
    const plan: DemoPlan = {
      netns: netns.path,
      rate: options.rate,
      frameSize: options.frameSize,
      memory: options.memory,
      ringSize: 256,
      guestMac: GUEST_MAC,
      stationMac: STATION_MAC,
      downtimeLimitMs: options.downtimeLimitMs,
    };
    await netns.addBridge(BRIDGE);
    station = await Station.open({
      netns: netns.path,
      name: 'station',
      mac: STATION_MAC,
      peerMac: GUEST_MAC,
      sends: NETWORK_TO_GUEST_FLOW,
      receives: GUEST_TO_NETWORK_FLOW,
      rate: options.rate,
      frameSize: options.frameSize,
      capacity: LEDGER_CAPACITY,
    });
    await netns.attach(BRIDGE, station.name);
    await netns.attach(BRIDGE, (await source.ask('open', plan)).tap);
    const { vhostFeatures } = await source.ask('boot', null);
    station.start();
    await watchTraffic(station, options.seconds);
    // The destination joins when the bridge has learned where the guest is: frames for it do not go to both.
    await netns.attach(BRIDGE, (await destination.ask('open', plan)).tap);
    const { address } = await destination.ask('listen', null);
    const received = destination.ask('received', null);
    const [{ result }] = await Promise.all([source.ask('migrate', { address }), received]);
    await watchTraffic(station, options.seconds);
    const sentToGuest = station.hush();
    const { sent: sentByGuest } = await destination.ask('hush', null);
    await sleep(DRAIN_MS);
    const guest = await destination.ask('report', { sent: sentToGuest });
    const network = station.ledger;
    await Promise.all(sides.map((side) => side.ask('end', null)));
    const gap = (gaps: readonly LedgerGap[]): number | null =>
      moments.stopped === null || moments.started === null ? null : blackout(gaps, moments.stopped, moments.started);
    const summary: DemoSummary = {
      kernel: release(),
      vm: options.vm,
      vhostFeatures,
      migration: {
        rounds: result.rounds.map(({ round, pages, bytes, ms, dirtyAfter }) => ({
          round,
          pages,
          bytes,
          ms,
          dirtyAfter,
        })),
        totalMs: result.totalMs,
        downtimeMs: result.downtimeMs,
        downtimeParts: result.downtimeParts,
        bytes: result.bytes,
      },
      frames: { guestToNetwork: network.report(sentByGuest), networkToGuest: guest.frames },
      blackoutMs: { guestToNetwork: gap(network.gaps()), networkToGuest: gap(guest.gaps) },
      pages:
        result.audit === null
          ? { total: null, differing: null }
          : { total: result.audit.total, differing: result.audit.differing },
      vrings: result.vrings,
      handover: result.handover,
    };
    process.stdout.write(summaryText(summary));
    if (options.json !== null) writeFileSync(options.json, `${JSON.stringify(summary, null, 2)}\n`);
    const ways = Object.values(summary.frames);
    const whole = ways.every(
      ({ lost, duplicated, reordered, corrupted }) => lost + duplicated + reordered + corrupted === 0,
    );
    return result.audit?.differing === 0 && whole ? 0 : 1;
  } finally {
    for (const side of sides) side.kill();
    await station?.close();
    await netns.delete();
  }
}

function say(text: string): void {
  process.stdout.write(`${text}\n`);
}

/** A line a second while traffic runs. */
async function watchTraffic(station: Station, seconds: number): Promise<void> {
  for (let left = seconds; left > 0; left--) {
    const { received } = station.ledger;
    const { sent } = station;
    await sleep(1000 * Math.min(1, left));
    say(
      `${'traffic'.padEnd(12)}guest to network ${station.ledger.received - received} frames, ` +
        `network to guest ${station.sent - sent} frames`,
    );
  }
}

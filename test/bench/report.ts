/** What a benchmark prints, and the one row per comparison that it answers. */
import type { BenchResult } from './settings';
import { interquartileRange, median } from './statistics';
import type { Window } from './window';

type Windows = ReadonlyMap<string, readonly Window[]>;

const whole = new Intl.NumberFormat('en-US', { maximumFractionDigits: 0 });
const number = (value: number): string => (Number.isNaN(value) ? '-' : whole.format(value));
const percent = (share: number): string => (Number.isNaN(share) ? '-' : `${(share * 100).toFixed(1)}%`);

/** The rates of one round, every contender's newest window. */
export function roundLine(round: number, windows: Windows): string {
  const cells = [...windows].map(([name, taken]) => `${name} ${number(taken.at(-1)!.rate)}`);
  return `  pair ${round}: ${cells.join(', ')}`;
}

/** Medians by contender: the rate, and who was the limit. */
export function summary(windows: Windows): string {
  let text = `  ${'median'.padEnd(14)}${'frames/s'.padStart(12)}${'worker'.padStart(9)}${'driver'.padStart(9)}`;
  text += `${'idle looks'.padStart(12)}${'kicks/s'.padStart(10)}\n`;
  for (const [name, taken] of windows) {
    const of = (pick: (window: Window) => number): number => median(taken.map(pick));
    text += `  ${name.padEnd(14)}${number(of(({ rate }) => rate)).padStart(12)}`;
    text += percent(of(({ worker }) => worker)).padStart(9);
    text += percent(of(({ driver }) => driver)).padStart(9);
    text += percent(of(({ idle }) => idle)).padStart(12);
    text += `${number(of(({ kicksPerSecond }) => kicksPerSecond)).padStart(10)}\n`;
  }
  return text;
}

/** Ratios are taken pair by pair, so that what slows the whole machine down for a while slows both down. */
export function comparison(name: string, ours: string, peerName: string, windows: Windows, goal: number): BenchResult {
  const own = windows.get(ours)!.map(({ rate }) => rate);
  const peer = windows.get(peerName)!.map(({ rate }) => rate);
  const ratios = own.map((rate, pair) => rate / peer[pair]!);
  const ratio = median(ratios);
  return {
    name,
    ours: Math.round(median(own)),
    peer: Math.round(median(peer)),
    peerName,
    ratio: Number(ratio.toFixed(4)),
    spread: Number(interquartileRange(ratios).toFixed(4)),
    goal,
    met: ratio >= goal,
  };
}

/** A figure that has to stay below a limit. */
export function limited(name: string, ours: number, limit: number, spread = 0): BenchResult {
  const ratio = limit / ours;
  return { name, ours, peer: limit, peerName: 'limit', ratio, spread, goal: 1, met: ours <= limit };
}

export function resultLine(result: BenchResult): string {
  const verdict = result.met ? 'met' : 'MISSED';
  if (result.peerName === 'limit') {
    return `  ${result.name} ${result.ours.toFixed(2)} of at most ${result.peer.toFixed(2)}: ${verdict}`;
  }
  const figure = `${result.ratio.toFixed(3)} (spread ${result.spread.toFixed(3)})`;
  const sides = result.less === true ? `${result.peerName} / ours` : `ours / ${result.peerName}`;
  return `  ${result.name} ${sides}: ${figure}, goal ${result.goal.toFixed(2)} ${verdict}`;
}

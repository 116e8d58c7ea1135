/** Feature bits by name. */
import * as virtioNet from '../constants/virtio-net';

const NAMES = new Map<number, string>(
  Object.entries(virtioNet)
    .filter(([name]) => /^VIRTIO_(NET|RING)?_?F_/.test(name))
    .map(([name, bit]) => [bit, name]),
);

/** The mask of a bit number. */
export function bit(number: number): bigint {
  return 1n << BigInt(number);
}

/** The mask of several bit numbers. */
export function bits(...numbers: number[]): bigint {
  return numbers.reduce((mask, number) => mask | bit(number), 0n);
}

export function hasBit(features: bigint, number: number): boolean {
  return (features & bit(number)) !== 0n;
}

/** Names of the bits that are set, ascending; a bit without a name is `bit N`. */
export function featureNames(features: bigint): string[] {
  const names: string[] = [];
  for (let number = 0; features >> BigInt(number) !== 0n; number++) {
    if (hasBit(features, number)) names.push(NAMES.get(number) ?? `bit ${number}`);
  }
  return names;
}

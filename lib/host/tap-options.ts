/** What a tap can be set to: combinations of offloads, and receive filters that do what they say. */
import {
  FLT_EXACT_COUNT,
  TUN_F_CSUM,
  TUN_F_TSO_ECN,
  TUN_F_TSO4,
  TUN_F_TSO6,
  TUN_F_UDP_TUNNEL_GSO,
  TUN_F_UDP_TUNNEL_GSO_CSUM,
  TUN_F_UFO,
  TUN_F_USO4,
  TUN_F_USO6,
} from '../constants/if-tun';
import { invalidArgument } from '../errors';

/** What kernels learned last comes first: a kernel that refuses a combination is offered the next, which has less. */
const NEWEST_FIRST = [
  TUN_F_UDP_TUNNEL_GSO_CSUM,
  TUN_F_UDP_TUNNEL_GSO | TUN_F_UDP_TUNNEL_GSO_CSUM,
  TUN_F_USO4 | TUN_F_USO6,
  TUN_F_UFO,
  TUN_F_TSO_ECN,
  TUN_F_TSO6,
  TUN_F_TSO4 | TUN_F_TSO6 | TUN_F_TSO_ECN,
];

/**
 * Combinations of TUN_F_ bits to try, richest first, ending with 0. Bits whose company is missing (anything without TUN_F_CSUM, one
 * USO bit without the other, ECN without TSO) are left out from the start.
 */
export function offloadChoices(wanted: number): number[] {
  if (!Number.isInteger(wanted) || wanted < 0) throw invalidArgument(`offload is ${wanted}`);
  let offload = wanted;
  if ((offload & TUN_F_CSUM) === 0) offload = 0;
  const uso = TUN_F_USO4 | TUN_F_USO6;
  if ((offload & uso) !== uso) offload &= ~uso;
  if ((offload & (TUN_F_TSO4 | TUN_F_TSO6)) === 0) offload &= ~TUN_F_TSO_ECN;
  const choices = [offload];
  for (const bits of NEWEST_FIRST) {
    const less = offload & ~bits;
    if (less !== offload) choices.push(less);
    offload = less;
  }
  if (offload !== 0) choices.push(0);
  return choices;
}

/** Refuses a list of addresses that TUNSETTXFILTER would take and not obey. */
export function checkTxFilter(macs: Uint8Array): void {
  if (macs.length % 6 !== 0) throw invalidArgument(`${macs.length} bytes of addresses, 6 each`);
  for (let entry = FLT_EXACT_COUNT; entry < macs.length / 6; entry++) {
    if (((macs[entry * 6] ?? 0) & 1) === 0) {
      throw invalidArgument(
        `address ${entry + 1} of the filter is unicast`,
        `the kernel compares ${FLT_EXACT_COUNT} addresses exactly and would let everything through: use a BPF filter`,
      );
    }
  }
}

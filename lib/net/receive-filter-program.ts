/**
 * A receive filter as a classic BPF program for a tap (TUNATTACHFILTER), where it holds for frames that vhost takes past this process.
 *
 * What a device must know of the kernel; test/unit/host/tap-filter.test.ts shows each:
 * - Every queue of a multiqueue tap gets the program, except those that are parked. A parked queue that returns gets the program of that
 *   time. TUNDETACHFILTER does not reach a parked queue, which then returns with what it had: to filter no longer, attach ACCEPT_ALL and
 *   do not detach.
 * - A queue that is opened after a program was attached begins without one where it is opened with IFF_NO_PI, which is IFF_NOFILTER
 *   there: attach again.
 * - The kernel reads the program of a returning queue from the memory it was attached from. It must be the same Tap that attaches each
 *   time, and it must be closed last.
 * - Replacing a program loses no frame that both let through.
 * - Two programs count against net.core.optmem_max of a socket while one replaces the other, 20,480 bytes before Linux 6.8. This, and not
 *   the 4,096 instructions, is why the size is bounded: two largest ones fit.
 */
import {
  BPF_ABS,
  BPF_H,
  BPF_JEQ,
  BPF_JSET,
  BPF_K,
  BPF_LD,
  BPF_MISC,
  BPF_RET,
  BPF_TAX,
  BPF_TXA,
  BPF_W,
  SKF_AD_OFF,
  SKF_AD_VLAN_TAG,
  SKF_AD_VLAN_TAG_PRESENT,
  SKF_AD_VLAN_TPID,
} from '../constants/bpf';
import { ETH_P_8021Q } from '../constants/if-ether';
import { invalidArgument } from '../errors';
import { addressLookup } from './bpf-address-lookup';
import { BpfAssembler, type BpfLabel } from './bpf-assembler';
import { vlanLookup } from './bpf-vlan-lookup';
import { ETHER_DESTINATION, ETHER_PAYLOAD, ETHER_TYPE } from './ethernet';
import {
  anyMulticast,
  anyUnicast,
  BROADCAST,
  filtersNothing,
  type ReceiveFilter,
  VLAN_TABLE_BYTES,
} from './receive-filter';

/** The answer is the bytes to keep: more than any frame has. */
const WHOLE_FRAME = 0xffffffff;
/** The group bit of an address, in its first 16 bits. */
const GROUP = 0x0100;

function answer(bytes: number): Uint8Array {
  const asm = new BpfAssembler();
  asm.statement(BPF_RET | BPF_K, bytes);
  return asm.assemble();
}

/** What is attached where nothing is filtered, instead of detaching. */
export const ACCEPT_ALL: Uint8Array = answer(WHOLE_FRAME);
export const DROP_ALL: Uint8Array = answer(0);

/**
 * The program, 8 bytes an instruction, that lets through exactly what `acceptsFrame` does. Below 1,000 instructions for any filter whose
 * MAC table has MAC_TABLE_ENTRIES or fewer.
 */
export function receiveFilterProgram(filter: ReceiveFilter): Uint8Array {
  if (filter.vlans !== null && filter.vlans.length !== VLAN_TABLE_BYTES) {
    throw invalidArgument(`a VLAN table of ${filter.vlans.length} bytes`, `${VLAN_TABLE_BYTES}`);
  }
  if (filtersNothing(filter)) return ACCEPT_ALL;
  if (filter.noBroadcast && filter.noMulticast && filter.noUnicast) return DROP_ALL;
  const asm = new BpfAssembler();
  const [accept, drop, destination] = [asm.label(), asm.label(), asm.label()];
  // A load beyond the end drops the frame: none that is shorter than its header comes further.
  asm.statement(BPF_LD | BPF_H | BPF_ABS, ETHER_TYPE);
  if (filter.vlans !== null) vlanStep(asm, filter.vlans, destination, drop);
  asm.place(destination);
  destinationStep(asm, filter, accept, drop);
  asm.place(accept);
  asm.statement(BPF_RET | BPF_K, WHOLE_FRAME);
  asm.place(drop);
  asm.statement(BPF_RET | BPF_K, 0);
  return asm.assemble();
}

/** Begins with the EtherType in A. A tag is in the frame's metadata, or else in the frame. */
function vlanStep(asm: BpfAssembler, vlans: Readonly<Uint8Array>, pass: BpfLabel, drop: BpfLabel): void {
  const [inFrame, lookup] = [asm.label(), asm.label()];
  const none = vlans.every((byte) => byte === 0);
  const tagged = none ? drop : null;
  asm.statement(BPF_MISC | BPF_TAX);
  asm.statement(BPF_LD | BPF_W | BPF_ABS, SKF_AD_OFF + SKF_AD_VLAN_TAG_PRESENT);
  asm.jump(BPF_JEQ, 0, inFrame, null);
  asm.statement(BPF_LD | BPF_W | BPF_ABS, SKF_AD_OFF + SKF_AD_VLAN_TPID);
  asm.jump(BPF_JEQ, ETH_P_8021Q, tagged, pass);
  if (!none) {
    asm.statement(BPF_LD | BPF_W | BPF_ABS, SKF_AD_OFF + SKF_AD_VLAN_TAG);
    asm.goto(lookup);
  }
  asm.place(inFrame);
  asm.statement(BPF_MISC | BPF_TXA);
  asm.jump(BPF_JEQ, ETH_P_8021Q, tagged, pass);
  if (none) return;
  asm.statement(BPF_LD | BPF_H | BPF_ABS, ETHER_PAYLOAD);
  asm.place(lookup);
  vlanLookup(asm, vlans, pass, drop);
}

/** What one kind of address does: those that are listed go to `found`, the others to `otherwise`. */
interface Decision {
  readonly addresses: readonly string[];
  readonly found: BpfLabel;
  readonly otherwise: BpfLabel;
}

function destinationStep(asm: BpfAssembler, filter: ReceiveFilter, accept: BpfLabel, drop: BpfLabel): void {
  const unicast = unicastDecision(filter, accept, drop);
  const group = groupDecision(filter, accept, drop);
  const toUnicast = unicast.addresses.length === 0 ? unicast.otherwise : asm.label();
  const toGroup = group.addresses.length === 0 ? group.otherwise : asm.label();
  asm.statement(BPF_LD | BPF_H | BPF_ABS, ETHER_DESTINATION);
  asm.statement(BPF_MISC | BPF_TAX);
  asm.jump(BPF_JSET, GROUP, toGroup, toUnicast);
  for (const [label, { addresses, found, otherwise }] of [
    [toUnicast, unicast],
    [toGroup, group],
  ] as const) {
    if (addresses.length === 0) continue;
    asm.place(label);
    addressLookup(asm, addresses, found, otherwise);
  }
}

function unicastDecision(filter: ReceiveFilter, accept: BpfLabel, drop: BpfLabel): Decision {
  if (filter.noUnicast) return { addresses: [], found: accept, otherwise: drop };
  if (anyUnicast(filter)) return { addresses: [], found: accept, otherwise: accept };
  return { addresses: [filter.mac, ...filter.unicast], found: accept, otherwise: drop };
}

function groupDecision(filter: ReceiveFilter, accept: BpfLabel, drop: BpfLabel): Decision {
  const { noBroadcast, noMulticast, multicast } = filter;
  if (!noMulticast && anyMulticast(filter)) {
    return { addresses: noBroadcast ? [BROADCAST] : [], found: drop, otherwise: accept };
  }
  const listed = noMulticast ? [] : multicast.filter((address) => address.toLowerCase() !== BROADCAST);
  return { addresses: noBroadcast ? listed : [BROADCAST, ...listed], found: accept, otherwise: drop };
}

/**
 * A receive filter as a classic BPF program for a tap (TUNATTACHFILTER), where it holds for frames that vhost takes past this process.
 *
 * What its user must know of the kernel (drivers/net/tun.c; test/unit/host/tap-filter-queues.test.ts shows nearly all of it):
 * - Every queue of a multiqueue tap gets the program, except those that are parked; and those keep theirs when it is detached.
 * - While a program is attached no parked queue returns: TUNSETQUEUE answers 0, gives the queue the program, and leaves it parked (tun_attach
 *   ends when the program is on). Attaching a program that is refused, such as an empty one, ends that and leaves programs where they are. So
 *   a queue returns without a gap by: setQueue('attach'), which gives it the program; attaching an empty program, EINVAL; setQueue('attach')
 *   again; attaching the program again. A kernel that does it right answers EINVAL to the second, which then means done.
 * - A queue opened later begins without a program when its flags have IFF_NO_PI, which means IFF_NOFILTER there: attach again.
 * - Attaching ACCEPT_ALL instead of detaching reaches returning queues too, as detaching does not.
 * - Replacing a program loses no frame that both let through.
 * - While one program replaces another both count against net.core.optmem_max, 20,480 bytes before Linux 6.8. Two of the largest fit: this
 *   is what bounds the size, long before BPF_MAXINSNS does. An attach that fails takes the program away from queues it had reached.
 * - The program of a returning queue is read from the memory it was attached from: attach through one Tap, and close it last.
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
 * The program, 8 bytes an instruction, that lets through exactly what `acceptsFrame` does. At most 640 instructions when the MAC
 * table has MAC_TABLE_ENTRIES, and 840 when it has as many of each kind.
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
  verdicts(asm, accept, drop);
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

function destinationStep(asm: BpfAssembler, filter: ReceiveFilter, accept: BpfLabel, drop: BpfLabel): void {
  const group = groupDecision(filter, accept, drop);
  const toGroup = group.addresses.length === 0 ? group.otherwise : asm.label();
  const toUnicast = filter.noUnicast ? drop : anyUnicast(filter) ? accept : asm.label();
  asm.statement(BPF_LD | BPF_H | BPF_ABS, ETHER_DESTINATION);
  asm.statement(BPF_MISC | BPF_TAX);
  asm.jump(BPF_JSET, GROUP, toGroup, toUnicast);
  if (toUnicast !== drop && toUnicast !== accept) {
    asm.place(toUnicast);
    // Returns of its own, within reach of a long list: those at the end may be behind another long one.
    const [found, otherwise] = [asm.label(), asm.label()];
    addressLookup(asm, [filter.mac, ...filter.unicast], found, otherwise);
    verdicts(asm, found, otherwise);
  }
  if (group.addresses.length === 0) return;
  asm.place(toGroup);
  addressLookup(asm, group.addresses, group.found, group.otherwise);
}

function verdicts(asm: BpfAssembler, accept: BpfLabel, drop: BpfLabel): void {
  asm.place(accept);
  asm.statement(BPF_RET | BPF_K, WHOLE_FRAME);
  asm.place(drop);
  asm.statement(BPF_RET | BPF_K, 0);
}

/** Group addresses that are listed go to `found`, others to `otherwise`. */
interface Decision {
  readonly addresses: readonly string[];
  readonly found: BpfLabel;
  readonly otherwise: BpfLabel;
}

function groupDecision(filter: ReceiveFilter, accept: BpfLabel, drop: BpfLabel): Decision {
  const { noBroadcast, noMulticast, multicast } = filter;
  if (!noMulticast && anyMulticast(filter)) {
    return { addresses: noBroadcast ? [BROADCAST] : [], found: drop, otherwise: accept };
  }
  const listed = noMulticast ? [] : multicast.filter((address) => address.toLowerCase() !== BROADCAST);
  return { addresses: noBroadcast ? listed : [BROADCAST, ...listed], found: accept, otherwise: drop };
}

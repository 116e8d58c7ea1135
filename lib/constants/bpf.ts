/** include/uapi/linux/bpf_common.h and filter.h: classic BPF, struct sock_filter. */

/** Instruction classes. */
export const BPF_LD = 0x00;
export const BPF_LDX = 0x01;
export const BPF_ST = 0x02;
export const BPF_STX = 0x03;
export const BPF_ALU = 0x04;
export const BPF_JMP = 0x05;
export const BPF_RET = 0x06;
export const BPF_MISC = 0x07;
/** The bits of a code that are its class: BPF_CLASS(). */
export const BPF_CLASS_MASK = 0x07;

/** Sizes of a load. */
export const BPF_W = 0x00;
export const BPF_H = 0x08;
export const BPF_B = 0x10;

/** Where a load is from. */
export const BPF_IMM = 0x00;
export const BPF_ABS = 0x20;
export const BPF_IND = 0x40;
export const BPF_MEM = 0x60;
export const BPF_LEN = 0x80;
export const BPF_MSH = 0xa0;

/** Arithmetic. */
export const BPF_ADD = 0x00;
export const BPF_SUB = 0x10;
export const BPF_MUL = 0x20;
export const BPF_DIV = 0x30;
export const BPF_OR = 0x40;
export const BPF_AND = 0x50;
export const BPF_LSH = 0x60;
export const BPF_RSH = 0x70;
export const BPF_NEG = 0x80;
export const BPF_MOD = 0x90;
export const BPF_XOR = 0xa0;

/** Jumps; comparisons are unsigned. */
export const BPF_JA = 0x00;
export const BPF_JEQ = 0x10;
export const BPF_JGT = 0x20;
export const BPF_JGE = 0x30;
export const BPF_JSET = 0x40;

/** The second operand: the instruction's own number, or register X; BPF_A is for BPF_RET only. */
export const BPF_K = 0x00;
export const BPF_X = 0x08;
export const BPF_A = 0x10;

/** Register to register. */
export const BPF_TAX = 0x00;
export const BPF_TXA = 0x80;

/** Instructions of a program at most. */
export const BPF_MAXINSNS = 4096;
/** 32-bit words of scratch memory. */
export const BPF_MEMWORDS = 16;
/** sizeof(struct sock_filter): u16 code, u8 jt, u8 jf, u32 k, in the byte order of the host. */
export const SOCK_FILTER_SIZE = 8;

/** Absolute loads from here on read what the kernel knows of a frame beside its bytes; as the u32 that k is. */
export const SKF_AD_OFF = -0x1000 >>> 0;
/** The tag control information (priority, DEI and vid) of a tag in metadata. */
export const SKF_AD_VLAN_TAG = 44;
/** 1 when there is a tag in metadata, otherwise 0. */
export const SKF_AD_VLAN_TAG_PRESENT = 48;
/** Its EtherType, in host byte order: 0x8100 or 0x88a8. */
export const SKF_AD_VLAN_TPID = 60;

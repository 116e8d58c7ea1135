/**
 * The two address words, which are never mixed: a guest physical address (GPA) and a host virtual address (HVA) of this process.
 * Both are safe integers; x86-64 user addresses have 47 bits.
 */
declare const word: unique symbol;

export type GuestAddress = number & { readonly [word]: 'gpa' };
export type HostAddress = number & { readonly [word]: 'hva' };

/** Names a number a guest physical address. */
export const gpa = (address: number): GuestAddress => address as GuestAddress;
/** Names a number a host virtual address. */
export const hva = (address: number): HostAddress => address as HostAddress;

/** Granularity of every dirty log: VHOST_PAGE_SIZE of drivers/vhost/vhost.c, on every host. */
export const PAGE_SIZE = 4096;
export const PAGE_SHIFT = 12;

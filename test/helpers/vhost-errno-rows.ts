/** What the kernel refuses, ioctl by ioctl. */
import * as vhost from '../../lib/constants/vhost';
import type { VhostIoctls } from '../../lib/host/vhost-ioctls';
import type { BenchDevice, Stage, VhostBench } from './vhost-bench';
import { errorOf } from './vhost-wait';

/** An address no user mapping can have. */
const KERNEL = 0xffff_8880_0000_0000n;
/** A user address that nothing is mapped at. */
const UNMAPPED = 0x10000;
const LOG_ALL = 1n << 26n;
const VERSION_1 = 1n << 32n;

/** Descriptors of the kinds that the kernel may be handed. */
export interface Fds {
  file: number;
  pipe: number;
  udp: number;
  closed: number;
  tun: number;
}

type Call = (ioctls: VhostIoctls, bench: VhostBench, fds: Fds, device: BenchDevice) => Promise<unknown>;
/** Stage, what is done, result ('ok' or a code), the ioctl the error names, words of the hint. */
type Row = [stage: Stage, what: string, call: Call, result: string, syscall?: string, hint?: RegExp];

/** struct vhost_memory as bytes. */
function tableBytes(
  regions: readonly { gpa: number | bigint; size: number | bigint; hva: number | bigint; flags?: number }[],
  padding = 0,
): Uint8Array {
  const view = new DataView(new ArrayBuffer(8 + 32 * regions.length));
  view.setUint32(0, regions.length, true);
  view.setUint32(4, padding, true);
  for (const [index, { gpa, size, hva, flags = 0 }] of regions.entries()) {
    const at = 8 + 32 * index;
    view.setBigUint64(at, BigInt(gpa), true);
    view.setBigUint64(at + 8, BigInt(size), true);
    view.setBigUint64(at + 16, BigInt(hva), true);
    view.setBigUint64(at + 24, BigInt(flags), true);
  }
  return new Uint8Array(view.buffer);
}

const regionsOf = (bench: VhostBench, count: number): number[] => {
  const [gpa = 0, , hva = 0] = bench.table.table;
  return Array.from({ length: count }, (_, index) => [gpa + index * 4096, 4096, hva + index * 4096]).flat();
};

/** Before somebody is the owner. */
const before: [string, string, Call][] = [
  ['SET_MEM_TABLE', 'VHOST_SET_MEM_TABLE', (v, b) => v.setMemTable(b.table.table, b.table.mappings)],
  ['SET_LOG_BASE', 'VHOST_SET_LOG_BASE', (v) => v.setLogBase(0, null)],
  ['SET_LOG_FD', 'VHOST_SET_LOG_FD', (v) => v.setLogFd(-1)],
  ['SET_VRING_NUM', 'VHOST_SET_VRING_NUM', (v) => v.setVringNum(0, 256)],
  ['SET_VRING_NUM index 2', 'VHOST_SET_VRING_NUM', (v) => v.setVringNum(2, 256)],
  ['SET_VRING_BASE', 'VHOST_SET_VRING_BASE', (v) => v.setVringBase(0, 0)],
  ['GET_VRING_BASE', 'VHOST_GET_VRING_BASE', (v) => v.getVringBase(0)],
  ['SET_VRING_ADDR', 'VHOST_SET_VRING_ADDR', (v, b) => v.setVringAddr(0, b.addresses(0))],
  ['SET_VRING_KICK', 'VHOST_SET_VRING_KICK', (v) => v.setVringKick(0, -1)],
  ['SET_VRING_CALL', 'VHOST_SET_VRING_CALL', (v) => v.setVringCall(0, -1)],
  ['SET_VRING_ERR', 'VHOST_SET_VRING_ERR', (v) => v.setVringErr(0, -1)],
  ['SET_VRING_BUSYLOOP_TIMEOUT', 'VHOST_SET_VRING_BUSYLOOP_TIMEOUT', (v) => v.setVringBusyloopTimeout(0, 50)],
  ['GET_VRING_BUSYLOOP_TIMEOUT', 'VHOST_GET_VRING_BUSYLOOP_TIMEOUT', (v) => v.getVringBusyloopTimeout(0)],
  ['NET_SET_BACKEND', 'VHOST_NET_SET_BACKEND', (v, b) => v.setBackend(0, b.tap.fd)],
  ['NET_SET_BACKEND index 2', 'VHOST_NET_SET_BACKEND', (v, b) => v.setBackend(2, b.tap.fd)],
  ['RESET_OWNER', 'VHOST_RESET_OWNER', (v) => v.resetOwner()],
  ['NEW_WORKER, which vhost-net does not have', 'VHOST_NEW_WORKER', (v) => v.newWorker()],
];

export const ERRNO_ROWS: readonly Row[] = [
  ...before.map(([what, syscall, call]): Row => ['open', what, call, 'EPERM', syscall, /not the owner/]),
  ['owned', 'SET_OWNER again', (v) => v.setOwner(), 'EBUSY', 'VHOST_SET_OWNER', /has an owner/],

  ['owned', 'NUM index 2', (v) => v.setVringNum(2, 256), 'ENOBUFS', 'VHOST_SET_VRING_NUM', /rings 0 .* and 1/],
  ['owned', 'NUM without an argument', (v) => v.ioctl(vhost.VHOST_SET_VRING_NUM, null), 'EFAULT'],
  ...[0, 3, 65535, 65536, 2 ** 31].map(
    (num): Row => [
      'owned',
      `NUM ${num}`,
      (v) => v.setVringNum(0, num),
      'EINVAL',
      'VHOST_SET_VRING_NUM',
      /power of two/,
    ],
  ),
  ...[1, 2, 256, 1024, 32768].map((num): Row => ['owned', `NUM ${num}`, (v) => v.setVringNum(0, num), 'ok']),
  ...[65536, 0xffffffff].map(
    (base): Row => [
      'owned',
      `BASE ${base}`,
      (v) => v.setVringBase(0, base),
      'EINVAL',
      'VHOST_SET_VRING_BASE',
      /0 to 65535/,
    ],
  ),
  ['owned', 'BASE 65535', (v) => v.setVringBase(0, 65535), 'ok'],
  ['attached', 'NUM while attached', (v) => v.setVringNum(0, 256), 'EBUSY', 'VHOST_SET_VRING_NUM', /detach/],
  ['attached', 'BASE while attached', (v) => v.setVringBase(0, 0), 'EBUSY', 'VHOST_SET_VRING_BASE', /detach/],
  [
    'attached',
    'NUM after a failed SET_BACKEND: the old one is kept',
    async (v, _b, fds) => {
      expect((await errorOf(v.setBackend(0, fds.file))).code).toBe('ENOTSOCK');
      await v.setVringNum(0, 256);
    },
    'EBUSY',
    'VHOST_SET_VRING_NUM',
  ],
  ['attached', 'GET_VRING_BASE while attached', (v) => v.getVringBase(0), 'ok'],

  ...[2, 3].map(
    (flags): Row => [
      'table',
      `ADDR flags ${flags}`,
      (v, b) => v.setVringAddr(0, b.addresses(0, { flags })),
      'ENOTSUP',
      'VHOST_SET_VRING_ADDR',
      /VHOST_VRING_F_LOG/,
    ],
  ),
  ...(['avail', 'used', 'logGuestAddr'] as const).map(
    (part): Row => [
      'table',
      `ADDR ${part} misaligned`,
      (v, b) =>
        v.setVringAddr(0, b.addresses(0, { [part]: Number(b.addresses(0)[part]) + (part === 'avail' ? 1 : 2) })),
      'EINVAL',
      'VHOST_SET_VRING_ADDR',
      /misaligned/,
    ],
  ),
  [
    'table',
    'ADDR desc misaligned, which the kernel does not check',
    (v, b) => v.setVringAddr(0, b.addresses(0, { desc: Number(b.addresses(0).desc) + 1 })),
    'ok',
  ],
  ['rings', 'ADDR in the kernel, detached', (v, b) => v.setVringAddr(0, b.addresses(0, { used: KERNEL })), 'ok'],
  [
    'rings',
    'ADDR in the kernel, then attach',
    async (v, b) => {
      await v.setVringAddr(0, b.addresses(0, { used: KERNEL }));
      await v.setBackend(0, b.tap.fd);
    },
    'EFAULT',
    'VHOST_NET_SET_BACKEND',
    /not mapped/,
  ],
  [
    'attached',
    'ADDR in the kernel, attached',
    (v, b) => v.setVringAddr(0, b.addresses(0, { used: KERNEL })),
    'EINVAL',
    'VHOST_SET_VRING_ADDR',
  ],
  ['attached', 'ADDR unmapped, attached', (v, b) => v.setVringAddr(0, b.addresses(0, { desc: UNMAPPED })), 'ok'],

  [
    'owned',
    'MEM padding 1',
    (v, b) => v.setMemTable(b.table.table, b.table.mappings, 1),
    'ENOTSUP',
    'VHOST_SET_MEM_TABLE',
    /padding/,
  ],
  [
    'owned',
    'MEM flags_padding 5',
    (v, b) => {
      const [gpa = 0, size = 0, hva = 0] = b.table.table;
      return v.ioctl(vhost.VHOST_SET_MEM_TABLE, tableBytes([{ gpa, size, hva, flags: 5 }]));
    },
    'ok',
  ],
  ['owned', '64 regions', (v, b) => v.setMemTable(regionsOf(b, 64), b.table.mappings), 'ok'],
  [
    'owned',
    '65 regions',
    (v, b) => v.setMemTable(regionsOf(b, 65), b.table.mappings),
    'E2BIG',
    'VHOST_SET_MEM_TABLE',
    /max_mem_regions/,
  ],
  ['attached', '65 regions, attached', (v, b) => v.setMemTable(regionsOf(b, 65), []), 'E2BIG', 'VHOST_SET_MEM_TABLE'],
  ['owned', '0 regions', (v) => v.setMemTable([], []), 'ok'],
  [
    'owned',
    'region of size 0',
    (v, b) => v.setMemTable([4096, 0, b.table.table[2]!], []),
    'EFAULT',
    'VHOST_SET_MEM_TABLE',
    /empty/,
  ],
  [
    'owned',
    'region that wraps around',
    (v, b) => v.setMemTable([0xffff_ffff_ffff_f000n, 8192, b.table.table[2]!], []),
    'EFAULT',
    'VHOST_SET_MEM_TABLE',
    /wraps/,
  ],
  [
    'owned',
    'regions that overlap, which the kernel takes',
    (v, b) => v.setMemTable([0, 8192, b.table.table[2]!, 4096, 8192, b.table.table[2]!], b.table.mappings),
    'ok',
  ],
  [
    'owned',
    'region not page-aligned',
    (v, b) => v.setMemTable([1, 4097, b.table.table[2]! + 3], b.table.mappings),
    'ok',
  ],
  ['rings', 'region in the kernel, detached', (v) => v.setMemTable([0, 4096, KERNEL], []), 'ok'],
  [
    'rings',
    'region in the kernel, then attach',
    async (v, b) => {
      await v.setMemTable([0, 4096, KERNEL], []);
      await v.setBackend(0, b.tap.fd);
    },
    'EFAULT',
    'VHOST_NET_SET_BACKEND',
  ],
  [
    'attached',
    'region in the kernel, attached',
    (v) => v.setMemTable([0, 4096, KERNEL], []),
    'EFAULT',
    'VHOST_SET_MEM_TABLE',
  ],
  ['attached', 'region unmapped, attached', (v) => v.setMemTable([0, 4096, UNMAPPED], []), 'ok'],

  ...(['file', 'pipe', 'udp', 'closed'] as const).map(
    (kind): Row => [
      'rings',
      `SET_BACKEND ${kind}`,
      (v, _b, fds) => v.setBackend(0, fds[kind]),
      'ENOTSOCK',
      'VHOST_NET_SET_BACKEND',
      /no tap/,
    ],
  ),
  ['rings', 'SET_BACKEND eventfd', (v, _b, _f, d) => v.setBackend(0, d.event.fd), 'ENOTSOCK'],
  ['rings', 'SET_BACKEND -2', (v) => v.setBackend(0, -2), 'ENOTSOCK'],
  [
    'rings',
    'SET_BACKEND tun without interface',
    (v, _b, fds) => v.setBackend(0, fds.tun),
    'EINVAL',
    'VHOST_NET_SET_BACKEND',
    /TUNSETIFF/,
  ],
  ['rings', 'SET_BACKEND index 2', (v, b) => v.setBackend(2, b.tap.fd), 'ENOBUFS', 'VHOST_NET_SET_BACKEND'],
  [
    'owned',
    'SET_BACKEND before the table',
    (v, b) => v.setBackend(0, b.tap.fd),
    'EFAULT',
    'VHOST_NET_SET_BACKEND',
    /memory table/,
  ],
  ['owned', 'SET_BACKEND -1 before the table', (v) => v.setBackend(0, -1), 'EFAULT', 'VHOST_NET_SET_BACKEND'],
  [
    'table',
    'SET_BACKEND without ring addresses',
    (v, b) => v.setBackend(0, b.tap.fd),
    'EFAULT',
    'VHOST_NET_SET_BACKEND',
  ],
  ['attached', 'SET_BACKEND same tap again', (v, b) => v.setBackend(0, b.tap.fd), 'ok'],
  [
    'attached',
    'SET_BACKEND -1 twice',
    async (v) => {
      await v.setBackend(0, -1);
      await v.setBackend(0, -1);
    },
    'ok',
  ],

  [
    'open',
    'SET_FEATURES bit 34',
    (v) => v.setFeatures(1n << 34n),
    'ENOTSUP',
    'VHOST_SET_FEATURES',
    /VHOST_GET_FEATURES/,
  ],
  ['open', 'SET_FEATURES without an argument', (v) => v.ioctl(vhost.VHOST_SET_FEATURES, null), 'EFAULT'],
  ['open', 'SET_BACKEND_FEATURES 1', (v) => v.setBackendFeatures(1n), 'ENOTSUP', 'VHOST_SET_BACKEND_FEATURES'],
  ['open', 'SET_BACKEND_FEATURES 2', (v) => v.setBackendFeatures(2n), 'ok'],

  ...(['Kick', 'Call', 'Err'] as const).flatMap((which): Row[] => {
    const name = `VHOST_SET_VRING_${which.toUpperCase()}`;
    const set = (v: VhostIoctls, fd: number): Promise<number> => v[`setVring${which}`](0, fd);
    return [
      ['owned', `${which} pipe`, (v, _b, fds) => set(v, fds.pipe), 'EINVAL', name],
      ['owned', `${which} closed`, (v, _b, fds) => set(v, fds.closed), 'EBADF', name],
      ['owned', `${which} -2`, (v) => set(v, -2), 'EBADF', name],
      ['owned', `${which} -1`, (v) => set(v, -1), 'ok'],
      ['owned', `${which} eventfd`, (v, _b, _f, d) => set(v, d.event.fd), 'ok'],
    ];
  }),
  ['owned', 'LOG_FD pipe', (v, _b, fds) => v.setLogFd(fds.pipe), 'EINVAL', 'VHOST_SET_LOG_FD'],
  ['owned', 'LOG_FD closed', (v, _b, fds) => v.setLogFd(fds.closed), 'EBADF', 'VHOST_SET_LOG_FD'],
  ['owned', 'LOG_FD -2', (v) => v.setLogFd(-2), 'EBADF', 'VHOST_SET_LOG_FD'],
  ['owned', 'LOG_FD -1', (v) => v.setLogFd(-1), 'ok'],

  ['attached', 'LOG_BASE in the kernel, logging off', (v) => v.setLogBase(KERNEL, null), 'ok'],
  [
    'attached',
    'LOG_BASE in the kernel, LOG_ALL on',
    async (v) => {
      await v.setFeatures(VERSION_1 | LOG_ALL);
      await v.setLogBase(KERNEL, null);
    },
    'EFAULT',
    'VHOST_SET_LOG_BASE',
    /user address space/,
  ],
  [
    'attached',
    'LOG_BASE in the kernel, used ring logged',
    async (v, b) => {
      await v.setVringAddr(0, b.addresses(0, { flags: 1 }));
      await v.setLogBase(KERNEL, null);
    },
    'EFAULT',
    'VHOST_SET_LOG_BASE',
  ],
  [
    'attached',
    'LOG_ALL on a base in the kernel',
    async (v) => {
      await v.setLogBase(KERNEL, null);
      await v.setFeatures(VERSION_1 | LOG_ALL);
    },
    'EFAULT',
    'VHOST_SET_FEATURES',
    /dirty log/,
  ],
  [
    'attached',
    'ADDR with log on a base in the kernel',
    async (v, b) => {
      await v.setLogBase(KERNEL, null);
      await v.setVringAddr(0, b.addresses(0, { flags: 1 }));
    },
    'EINVAL',
    'VHOST_SET_VRING_ADDR',
  ],
  ['attached', 'LOG_BASE 0', (v) => v.setLogBase(0, null), 'ok'],
  ['attached', 'LOG_BASE unmapped', (v) => v.setLogBase(UNMAPPED, null), 'ok'],

  ['owned', 'unknown ioctl, owned', (v) => v.ioctl(0x4008af7f, new Uint8Array(8)), 'ENOTTY'],
  [
    'owned',
    'unknown ioctl, first word 2',
    (v) => v.ioctl(0x4008af7f, Uint8Array.of(2, 0, 0, 0, 0, 0, 0, 0)),
    'ENOBUFS',
  ],
  ['owned', 'unknown ioctl, no argument', (v) => v.ioctl(0x4008af7f, null), 'EFAULT'],
  [
    'owned',
    'ATTACH_VRING_WORKER',
    (v) => v.attachVringWorker(0, 0),
    'ENOTTY',
    'VHOST_ATTACH_VRING_WORKER',
    /does not have/,
  ],
  ['owned', 'GET_VRING_WORKER', (v) => v.getVringWorker(0), 'ENOTTY', 'VHOST_GET_VRING_WORKER'],
];

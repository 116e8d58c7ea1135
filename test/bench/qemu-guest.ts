/** The smallest Linux that keeps a virtio-net device at work in QEMU: the test VM's kernel, busybox, and an interface that answers echo requests. */
import { execFileSync } from 'node:child_process';
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { cacheFolder } from '../../lib/vm/cache';
import { cpioArchive, S_IFDIR, S_IFREG } from '../../lib/vm/cpio';
import { ensureKernel } from '../../lib/vm/kernel';
import { findModules, loadOrder } from '../../lib/vm/kernel-modules';
import { STATION_MAC } from './move-plan';
import { GUEST_ADDRESS, PINGER_ADDRESS } from './pinger';

/** No console, no timer calibration that an emulated processor fails, no frames of the guest's own. */
const APPEND = 'console=ttyS0 quiet panic=-1 no_timer_check lpj=10000000 ipv6.disable=1';
const INIT = `#!/bin/busybox sh
B=/bin/busybox
$B mount -t proc proc /proc
while read -r name; do $B insmod "/modules/$name.ko"; done </modules/list
$B ip link set dev eth0 up
$B ip addr add ${GUEST_ADDRESS}/24 dev eth0
$B arp -s ${PINGER_ADDRESS} ${STATION_MAC}
while :; do $B sleep 1000; done
`;

/** QEMU's arguments that boot it; its initramfs is written to `folder`. */
export async function qemuGuest(folder: string): Promise<string[]> {
  const kernel = await ensureKernel(cacheFolder(), '6.12', false, () => undefined);
  const modules = await loadOrder(findModules(kernel.moduleTree), ['virtio_pci', 'virtio_net'], new Set());
  const busybox = execFileSync('which', ['busybox'], { encoding: 'utf8' }).trim();
  const file = (name: string, mode: number, data: Uint8Array) => ({ name, mode: S_IFREG | mode, data });
  const archive = cpioArchive([
    ...['bin', 'modules', 'proc'].map((name) => ({ name, mode: S_IFDIR | 0o755 })),
    file('bin/busybox', 0o755, readFileSync(busybox)),
    file('init', 0o755, Buffer.from(INIT)),
    ...modules.map(({ name, image }) => file(`modules/${name}.ko`, 0o644, image)),
    file('modules/list', 0o644, Buffer.from(modules.map(({ name }) => `${name}\n`).join(''))),
  ]);
  const initrd = join(folder, 'initrd.cpio');
  writeFileSync(initrd, archive);
  return ['-kernel', kernel.image, '-initrd', initrd, '-append', APPEND];
}

import { createHash } from 'node:crypto';
import { existsSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { cpus, loadavg } from 'node:os';
import { join } from 'node:path';
import { ensureVmPrepared } from '../../lib/vm';
import { capture, scratchFolder } from './launch';

jest.setTimeout(120_000);

beforeAll(async () => {
  await ensureVmPrepared();
}, 300_000);

/** Prints one line per check; a check that fails is named. */
const CHECKS = `
shared=$1
check() { if eval "$2"; then echo "ok $1"; else echo "FAIL $1"; fi; }
check vhost-net '[ -c /dev/vhost-net ] && exec 3<>/dev/vhost-net'
check tun 'exec 3<>/dev/net/tun'
check kvm 'exec 3<>/dev/kvm'
check userfaultfd '[ -c /dev/userfaultfd ]'
check tap 'ip tuntap add dev tap0 mode tap'
check netns 'ip netns add test-ns'
check veth 'ip link add veth0 type veth peer name veth1'
check macvtap 'ip link add link veth0 name macvtap0 type macvtap'
check bridge 'ip link add br0 type bridge && ip link set tap0 master br0'
check ingress 'tc qdisc add dev veth0 clsact'
check mirred 'tc filter add dev veth0 ingress matchall action mirred egress redirect dev veth1'
check modprobe 'modprobe dummy numdummies=0 && ip link add dummy0 type dummy'
check pktgen '[ -w /proc/net/pktgen/pgctrl ]'
check loopback 'ping -c 1 -W 5 127.0.0.1 >/dev/null 2>&1 || ip addr show lo | grep -q 127.0.0.1'
check hostname '[ "$(cat /proc/sys/kernel/hostname)" = vhost-net-vm ]'
check cgroup '[ -e /sys/fs/cgroup/cgroup.procs ]'
check processors '[ "$(nproc)" = 2 ]'
check hugepages '[ "$(cat /proc/sys/vm/nr_hugepages)" = 8 ] && [ -d /dev/hugepages ]'
check memory '[ "$(sed -n "s/MemTotal: *\\([0-9]*\\) kB/\\1/p" /proc/meminfo)" -lt 1048576 ]'
check appended 'grep -qw vm_test_word /proc/cmdline'
check shared-memory 'echo x >/dev/shm/x'
check pseudo-terminal '[ -c /dev/ptmx ] && [ -d /dev/pts ]'
check user-namespace 'unshare --user --map-root-user true'
check stdin '! read -r line'
check host-file '[ "$(cat "$shared/host-file")" = host ]'
check overlay 'echo guest >"$shared/host-file" && echo guest >/etc/hostname && touch "$shared/new"'
check no-way-out 'mkdir /mnt/way && mount -t virtiofs root /mnt/way && ! touch "/mnt/way$shared/escaped" 2>/dev/null'
check out 'echo out >"$shared/out/file" && dd if=/dev/urandom of="$shared/out/random" bs=1M count=4 2>/dev/null'
sha256sum <"$shared/out/random"
exit 9
`;

test('the guest has the devices and modules, sees the host’s files and can change only the output folder', async () => {
  const scratch = scratchFolder();
  const hostname = readFileSync('/etc/hostname', 'utf8');
  writeFileSync(join(scratch, 'host-file'), 'host');
  try {
    const result = await capture({
      command: 'bash',
      args: ['-c', CHECKS, 'bash', scratch],
      out: join(scratch, 'out'),
      memory: 1024 * 1024 * 1024,
      hugepages: 8,
      cpus: 2,
      kernelAppend: 'vm_test_word',
    });
    const output = result.stdout.toString();
    expect(output).not.toContain('FAIL');
    expect(output.match(/^ok /gm)).toHaveLength(CHECKS.match(/^check /gm)!.length);
    expect(result.exitCode).toBe(9);

    expect(readFileSync(join(scratch, 'host-file'), 'utf8')).toBe('host');
    expect(readFileSync('/etc/hostname', 'utf8')).toBe(hostname);
    expect(existsSync(join(scratch, 'new'))).toBe(false);
    expect(existsSync(join(scratch, 'escaped'))).toBe(false);
    expect(readFileSync(join(scratch, 'out', 'file'), 'utf8')).toBe('out\n');
    const digest = createHash('sha256')
      .update(readFileSync(join(scratch, 'out', 'random')))
      .digest('hex');
    expect(output).toContain(digest);
  } finally {
    rmSync(scratch, { recursive: true });
  }
});

test('power-on to power-off takes less than 10 s, times the load of the machine', async () => {
  const { seconds } = await capture({ command: 'true' });
  expect(seconds).toBeLessThan(10 * Math.max(1, loadavg()[0]! / cpus().length));
});

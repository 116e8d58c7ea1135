/**
 * The two shell scripts that are process 1 of the guest, run by a static busybox.
 *
 * Ports of the one virtio-serial device: 1 standard output, 2 standard error, 3 control. Lines on the control port,
 * guest to host: `booted SECONDS`, `running SECONDS`, `exit STATUS`, `error TEXT`; host to guest: `signal NAME`, `finish`.
 * A port carries the command's bytes unchanged and after its last byte a trailer that the host chose at random: only
 * that tells the host that nothing is still under way in the guest or in QEMU.
 */

/** Where the second stage lives inside the final root. */
export const GUEST_FOLDER = '/run/vhost-net-vm';

/** The busybox applets that the scripts use and the shell does not have built in. */
export const APPLETS = [
  'cat',
  'chroot',
  'cp',
  'find',
  'grep',
  'hostname',
  'insmod',
  'ip',
  'ln',
  'mkdir',
  'mkfifo',
  'mknod',
  'mount',
  'poweroff',
  'sh',
  'sleep',
  'sync',
  'umount',
] as const;

/** From power-on in the initramfs to the machine's own file system as root. */
export const STAGE_1 = `#!/bin/busybox sh
export PATH=/bin
mkdir -p /proc /sys /dev /host /over /root /view
mount -t proc proc /proc
mount -t devtmpfs devtmpfs /dev
mount -t sysfs sysfs /sys
. /job
load() {
  while read -r name; do insmod "/modules/$name.ko"; done <"/modules/$1"
}
load mount
until [ -c /dev/vport0p3 ]; do sleep 0.01; done
exec 8<>/dev/vport0p3
say() { echo "$*" >&8; }
fail() { say "error $*"; sleep 10; poweroff -f; }
read -r up rest </proc/uptime
say "booted $up"

load command &
mount -t virtiofs -o ro root /host || fail 'cannot mount the file system of the host'
mount -t tmpfs -o mode=755 tmpfs /over
mkdir /over/upper /over/work
mount -t overlay -o lowerdir=/host,upperdir=/over/upper,workdir=/over/work overlay /root || fail 'cannot mount the overlay'
# A second look at the same tree, for folders of the host below what is covered next.
mount --bind /root /view
mkdir -p /root/proc /root/sys /root/dev /root/run /root/tmp
mount --move /proc /root/proc
mount --move /sys /root/sys
mount --move /dev /root/dev
mount -t tmpfs -o mode=755 tmpfs /root/run
mkdir -p /root/dev/pts /root/dev/shm /root/dev/mqueue /root/run/lock
mount -t devpts -o gid=5,mode=620,ptmxmode=666 devpts /root/dev/pts
mount -t tmpfs -o mode=1777 tmpfs /root/dev/shm
case "$JOB_CWD/" in
  /run/*|/dev/shm/*) mkdir -p "/root$JOB_CWD" && mount --bind "/view$JOB_CWD" "/root$JOB_CWD" ;;
esac
umount /view
mkdir -p /root${GUEST_FOLDER}
cp -a /bin /stage2 /job /root${GUEST_FOLDER}/
wait
# Only now: QEMU before 8.1 can translate kernel code on one processor while another patches it, and keep the breakpoint that
# was there for a moment (an int3 oops). Nearly all patching happens while the kernel boots and modules load.
for file in /root/sys/devices/system/cpu/cpu*/online; do echo 1 >"$file"; done
cd /root || fail 'no root'
mount --move . /
exec chroot . ${GUEST_FOLDER}/bin/busybox sh ${GUEST_FOLDER}/stage2
`;

/** From the final root to the end of the command. */
export const STAGE_2 = `#!/bin/busybox sh
D=${GUEST_FOLDER}
export PATH=$D/bin
. $D/job
say() { echo "$*" >&8; }
fail() { say "error $*"; sleep 10; poweroff -f; }
umask 022
ulimit -c 0
ulimit -Hn 1048576 2>/dev/null
ulimit -Sn 65536 2>/dev/null
ulimit -l unlimited

hostname vhost-net-vm
ip link set lo up
for link in fd:fd stdin:fd/0 stdout:fd/1 stderr:fd/2; do ln -sf "/proc/self/\${link#*:}" "/dev/\${link%%:*}"; done
mount -t cgroup2 cgroup2 /sys/fs/cgroup && mkdir /sys/fs/cgroup/command
mount -t debugfs debugfs /sys/kernel/debug
mount -t tracefs tracefs /sys/kernel/tracing
mount -t mqueue mqueue /dev/mqueue
if [ "$JOB_HUGEPAGES" != 0 ]; then mkdir -p /dev/hugepages && mount -t hugetlbfs hugetlbfs /dev/hugepages; fi
if mkdir -p "/lib/modules/$JOB_RELEASE"; then mount --bind "$JOB_MODULE_TREE" "/lib/modules/$JOB_RELEASE"; fi
# KVM takes a second to load under emulation, so it is left to the first open of /dev/kvm (misc_open() asks for the module).
kvm=
grep -qw svm /proc/cpuinfo && kvm=kvm-amd
grep -qw vmx /proc/cpuinfo && kvm=kvm-intel
if [ -n "$kvm" ] && [ ! -e /dev/kvm ]; then
  mkdir -p /run/modprobe.d
  printf 'alias char-major-10-232 kvm\\nsoftdep kvm post: %s\\n' $kvm >/run/modprobe.d/vhost-net-vm.conf
  mknod -m 600 /dev/kvm c 10 232
fi
if [ -n "$JOB_OUT" ]; then
  mkdir -p "$JOB_OUT" && mount -t virtiofs out "$JOB_OUT" || fail "cannot mount the output folder $JOB_OUT"
fi

mkfifo $D/out $D/err
exec 6<>$D/out 7<>$D/err 4>/dev/vport0p1 5>/dev/vport0p2
cat <$D/out >&4 4>&- 5>&- 6>&- 7>&- 8>&- &
relay_out=$!
cat <$D/err >&5 4>&- 5>&- 6>&- 7>&- 8>&- &
relay_err=$!

end_everything() {
  find /sys/fs/cgroup -name cgroup.kill | while read -r file; do echo 1 >"$file"; done
}
# The command becomes a group leader a moment after it has told its number.
send() {
  until kill "-$1" "-$pid" 2>/dev/null; do
    [ -d "/proc/$pid" ] || return
    sleep 0.02
  done
}
(
  exec 4>&- 5>&- 6>&- 7>&-
  while read -r verb name <&8; do
    read -r pid <$D/pid
    case $verb in
      signal) send "$name" ;;
      finish) send TERM; sleep 2; end_everything ;;
    esac
  done
  # The host is gone.
  poweroff -f
) &

# The full path, because busybox's own env takes a bare name for one of its applets where it can. A path without slash is
# looked up in the folders of the command's PATH, as execvp(3) does.
program_path() {
  case $1 in */*) program=$1; return ;; esac
  rest=$JOB_PATH:
  while [ -n "$rest" ]; do
    program=\${rest%%:*}
    rest=\${rest#*:}
    program=\${program:-.}/$1
    [ -f "$program" ] && [ -x "$program" ] && return
  done
  echo "vhost-net vm: $1: not found" >&2
  exit 127
}

# In the foreground: what a shell starts in the background ignores SIGINT and SIGQUIT, and could not undo that.
(
  read -r pid rest </proc/self/stat
  echo "$pid" >$D/pid
  [ -d /sys/fs/cgroup/command ] && echo 0 >/sys/fs/cgroup/command/cgroup.procs
  read -r up rest </proc/uptime
  say "running $up"
  exec 4>&- 5>&- 8>&-
  cd "$JOB_CWD" || exit 126
  program_path "$JOB_COMMAND"
  start_command
) </dev/null >$D/out 2>$D/err 6>&- 7>&-
status=$?

end_everything
[ -n "$JOB_OUT" ] && sync -f "$JOB_OUT"
say "exit $status"
exec 6>&- 7>&-
wait $relay_out
printf %s "$JOB_TRAILER" >&4
wait $relay_err
printf %s "$JOB_TRAILER" >&5
# The host switches the machine off once it has everything.
sleep 30
poweroff -f
`;

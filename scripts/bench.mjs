// The benchmarks. Those that need /dev/vhost-net are measured here where it can be opened, else in the test VM, all of one run in one boot; the
// others always here.
import { spawn, spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { tmpdir } from 'node:os';
import { dirname, join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { Command, InvalidArgumentError } from 'commander';
import { canOpen } from './devices.mjs';

const ROOT = dirname(dirname(fileURLToPath(import.meta.url)));
const { BENCHMARKS } = createRequire(import.meta.url)('../dist/test/bench/catalogue.js');
const DPDK_DRIVERS = '/usr/lib/x86_64-linux-gnu/dpdk/pmds-23.0';
/** 2 MiB pages in the VM, for testpmd. */
const HUGE_PAGES = 96;
const WARM_UP_SECONDS = 1;

/** Debian packages by the command or file that shows they are there. */
const NATIVE_PACKAGES = [
  ['qemu-system-x86_64', 'qemu-system-x86'],
  ['cc', 'gcc'],
  ['ip', 'iproute2'],
  ['setpriv', 'util-linux'],
];
const VHOST_PACKAGES = [
  ['dpdk-testpmd', 'dpdk-dev'],
  [`${DPDK_DRIVERS}/librte_net_virtio.so`, 'librte-net-virtio23'],
  [`${DPDK_DRIVERS}/librte_mempool_ring.so`, 'librte-mempool-ring23'],
  [`${DPDK_DRIVERS}/librte_bus_vdev.so`, 'librte-bus-vdev23'],
  ['cc', 'gcc'],
  ['/usr/include/linux/vhost.h', 'linux-libc-dev'],
  ['qemu-system-x86_64', 'qemu-system-x86'],
  ['busybox', 'busybox-static'],
  ['ip', 'iproute2'],
  ['setpriv', 'util-linux'],
];

const program = new Command('bench')
  .description('measures what the project promises about its speed, each against a named peer in the same run')
  .option('--only <list>', 'benchmarks to run, with commas between them (default: all)', names)
  .option('--pairs <n>', 'rounds in which every contender has one window', wholeNumber, 7)
  .option('--migrations <n>', 'migrations of `downtime`', wholeNumber, 300)
  .option('--seconds <s>', 'length of a window, after 1 s of warm-up', wholeNumber, 3)
  .option('--json <file>', 'write the results there')
  .option('--enforce', 'exit status 1 when a goal is missed')
  .option('--list', 'name the benchmarks and do nothing else');
const options = program.parse().opts();

if (options.list) {
  for (const { name, about, where } of BENCHMARKS) {
    process.stdout.write(`${name.padEnd(14)} ${where.padEnd(8)} ${about}\n`);
  }
} else {
  process.exitCode = await main();
}

async function main() {
  const chosen = BENCHMARKS.filter(({ name }) => (options.only ?? [name]).includes(name));
  const names = (where) => chosen.filter((one) => one.where === where).map(({ name }) => name);
  const [native, vhost] = [names('native'), names('vhost')];
  if (native.length > 0 && process.getuid() !== 0) {
    process.stderr.write(`bench: ${native.join(', ')} make network namespaces: run this as root\n`);
    return 1;
  }
  const packages = [...(native.length > 0 ? NATIVE_PACKAGES : []), ...(vhost.length > 0 ? VHOST_PACKAGES : [])];
  if (!packagesAreThere(packages)) return 1;
  const vhostFlood = vhost.length > 0 ? buildPeer() : '';
  if (vhostFlood === null) return 1;
  const out = mkdtempSync(join(tmpdir(), 'vhost-net-bench-'));
  try {
    const resultFile = join(out, 'results.json');
    const { pairs, seconds, migrations } = options;
    const settings = { pairs, seconds, migrations, warmUpSeconds: WARM_UP_SECONDS, vhostFlood, resultFile };
    const results = [];
    for (const [names, vm] of [
      [native, false],
      [vhost, !canOpen('/dev/vhost-net') || process.getuid() !== 0],
    ]) {
      if (names.length === 0) continue;
      const status = await measure({ ...settings, names }, out, vm);
      if (status !== 0) return status;
      results.push(...JSON.parse(readFileSync(resultFile, 'utf8')));
    }
    if (options.json !== undefined) writeFileSync(resolve(options.json), `${JSON.stringify(results, null, 2)}\n`);
    const missed = results.filter(({ met }) => !met).length;
    process.stdout.write(`${results.length - missed} of ${results.length} goals met\n`);
    return missed > 0 && options.enforce ? 1 : 0;
  } finally {
    rmSync(out, { recursive: true, force: true });
  }
}

/** In namespaces of its own, which go with it: nothing it makes is seen outside. */
function measure(settings, out, vm) {
  const inside = [
    'unshare',
    '--net',
    '--mount',
    process.execPath,
    join(ROOT, 'dist/test/bench/main.js'),
    JSON.stringify(settings),
  ];
  if (!vm) {
    process.stderr.write('bench: on this machine\n');
    return run('setpriv', ['--pdeathsig', 'KILL', ...inside]);
  }
  process.stderr.write('bench: in the test VM\n');
  const boot = ['vm', '--hugepages', String(HUGE_PAGES), '--out', out, '--', ...inside];
  return run(join(ROOT, 'bin/vhost-net'), boot);
}

function run(file, args) {
  return new Promise((settle) => {
    const child = spawn(file, args, { stdio: ['ignore', 'inherit', 'inherit'] });
    const passOn = (signal) => child.kill(signal);
    for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP']) process.on(signal, passOn);
    child.once('error', (error) => {
      process.stderr.write(`bench: ${error.message}\n`);
      settle(1);
    });
    child.once('exit', (code) => settle(code ?? 1));
  });
}

function packagesAreThere(packages) {
  const missing = packages.filter(([probe]) => !isThere(probe)).map(([, name]) => name);
  if (missing.length === 0) return true;
  const install = ['apt-get', 'install', '-y', '--no-install-recommends', ...missing];
  if (process.getuid() !== 0) {
    process.stderr.write(`bench: missing packages; type: sudo ${install.join(' ')}\n`);
    return false;
  }
  process.stderr.write(`bench: installing Debian packages: ${missing.join(' ')}\n`);
  const env = { ...process.env, DEBIAN_FRONTEND: 'noninteractive' };
  for (const [file, ...args] of [['apt-get', 'update'], install]) {
    const { status, stderr } = spawnSync(file, args, { env, encoding: 'utf8' });
    if (status === 0) continue;
    process.stderr.write(`bench: ${[file, ...args].join(' ')} failed\n${stderr}`);
    return false;
  }
  return true;
}

function isThere(probe) {
  if (probe.startsWith('/')) return existsSync(probe);
  return (process.env.PATH ?? '').split(':').some((folder) => existsSync(join(folder, probe)));
}

/** Built here, because in the VM that would take longer. */
function buildPeer() {
  const target = join(ROOT, 'dist/test/bench/peers/vhost_flood');
  mkdirSync(dirname(target), { recursive: true });
  const source = join(ROOT, 'test/bench/peers/vhost_flood.c');
  const { status } = spawnSync('cc', ['-std=c11', '-O2', '-Wall', '-Wextra', '-o', target, source], {
    stdio: 'inherit',
  });
  return status === 0 ? target : null;
}

function names(text) {
  const chosen = text.split(',').filter((name) => name !== '');
  const known = BENCHMARKS.map(({ name }) => name);
  const unknown = chosen.filter((name) => !known.includes(name));
  if (chosen.length === 0 || unknown.length > 0) {
    throw new InvalidArgumentError(`Known are ${known.join(', ')}.`);
  }
  return chosen;
}

function wholeNumber(text) {
  if (!/^[1-9]\d*$/.test(text)) throw new InvalidArgumentError('Give a whole number above 0.');
  return Number(text);
}

/** The devices themselves: /dev/vhost-net and /dev/net/tun, their modules and parameters. */
import { accessSync, constants, existsSync, readFileSync, statSync } from 'node:fs';
import { release } from 'node:os';
import {
  TUN_F_CSUM,
  TUN_F_TSO_ECN,
  TUN_F_TSO4,
  TUN_F_TSO6,
  TUN_F_USO4,
  TUN_F_USO6,
  TUN_FEATURE_NAMES,
} from '../constants/if-tun';
import { VHOST_NET_FEATURE_NAMES } from '../constants/vhost';
import { hintFor, VhostError } from '../errors';
import { type FdHandle, native } from '../native';
import { adviceOf, type Finding, finding, messageOf } from './finding';
import { Netns } from './netns';
import { Tap, TUN_DEVICE } from './tap';
import { DEFAULT_VHOST_PATH, VhostNet } from './vhost-net';

const O_RDWR_NONBLOCK = constants.O_RDWR | constants.O_NONBLOCK;

function permissions(path: string): string {
  const { mode, uid, gid } = statSync(path);
  return `mode 0${(mode & 0o777).toString(8)}, owner ${uid}:${gid}`;
}

/** A device node: there, and open to this process. */
function nodeFinding(path: string): Finding {
  if (!existsSync(path)) return finding('vhost-net', path, false, 'not there', hintFor('ENOENT', 'open', path));
  const value = permissions(path);
  try {
    accessSync(path, constants.R_OK | constants.W_OK);
    return finding('vhost-net', path, true, value);
  } catch {
    return finding('vhost-net', path, false, `${value}: not permitted`, hintFor('EACCES', 'open', path));
  }
}

function featureNames(bits: bigint, names: Readonly<Record<number, string>>): string {
  const found: string[] = [];
  for (let bit = 0; bit < 64; bit++) {
    if ((bits >> BigInt(bit)) & 1n) found.push(names[bit] ?? `bit ${bit}`);
  }
  return found.join(' ');
}

/** What the worker ioctls and the like answer is no finding: vhost-net has none of them. */
export async function vhostFindings(): Promise<Finding[]> {
  const node = nodeFinding(DEFAULT_VHOST_PATH);
  if (!node.found) return [node];
  let vhost: VhostNet;
  try {
    vhost = await VhostNet.open();
  } catch (error) {
    return [node, finding('vhost-net', 'vhost-net opens', false, messageOf(error), adviceOf(error))];
  }
  const findings = [node, finding('vhost-net', 'vhost-net opens', true, 'yes')];
  try {
    const features = await vhost.getFeatures();
    findings.push(
      finding(
        'optional',
        'vhost-net features',
        true,
        `0x${features.toString(16)}: ${featureNames(features, VHOST_NET_FEATURE_NAMES)}`,
      ),
    );
    findings.push(
      finding(
        'vhost-net',
        'dirty logging (VHOST_F_LOG_ALL)',
        (features & (1n << 26n)) !== 0n,
        (features & (1n << 26n)) !== 0n ? 'offered' : 'not offered',
        'migration needs a kernel whose vhost-net logs',
      ),
    );
    findings.push(await forkFinding(vhost));
    await vhost.setOwner();
    findings.push(finding('vhost-net', 'vhost-net can be owned', true, 'yes'));
  } catch (error) {
    findings.push(
      finding('vhost-net', 'vhost-net answers', false, `${messageOf(error)} ${syscallOf(error)}`, adviceOf(error)),
    );
  } finally {
    await vhost.close();
  }
  return findings;
}

function syscallOf(error: unknown): string {
  return error instanceof VhostError ? (error.syscall ?? '') : '';
}

async function forkFinding(vhost: VhostNet): Promise<Finding> {
  try {
    const value = await vhost.getForkFromOwner();
    return finding(
      'optional',
      'worker kind can be chosen',
      true,
      value === 1 ? 'default: thread of this process' : 'default: kernel thread',
    );
  } catch (error) {
    return finding(
      'optional',
      'worker kind can be chosen',
      false,
      messageOf(error),
      'not needed: only newer kernels have the choice',
    );
  }
}

function builtIn(): string {
  try {
    return readFileSync(`/lib/modules/${release()}/modules.builtin`, 'utf8');
  } catch {
    return '';
  }
}

export function moduleFindings(): Finding[] {
  const built = builtIn();
  return ['vhost', 'vhost_net', 'tun'].map((name) => {
    const loaded = existsSync(`/sys/module/${name}`);
    // Not every kernel lists what is built in, but its devices show.
    const fixed =
      built.includes(`/${name}.ko`) ||
      existsSync(`/sys/class/misc/${name === 'vhost' ? 'vhost-net' : name.replace('_', '-')}`);
    const value = loaded ? 'loaded' : fixed ? 'built in' : 'not loaded';
    return finding(
      'optional',
      `module ${name}`,
      loaded || fixed,
      value,
      `"modprobe ${name}" as root, where the kernel has it`,
    );
  });
}

const PARAMETERS: readonly [module: string, parameter: string, meaning: string][] = [
  ['vhost', 'max_mem_regions', 'memory regions a device may have'],
  ['vhost', 'max_iotlb_entries', 'no more regions than this'],
  ['vhost', 'fork_from_owner_default', 'Y: the worker is a thread of this process'],
  ['vhost_net', 'experimental_zcopytx', 'with 1, stopping a device waits for its frames in the host to be freed'],
];

export function parameterFindings(): Finding[] {
  return PARAMETERS.map(([module, parameter, meaning]) => {
    try {
      const value = readFileSync(`/sys/module/${module}/parameters/${parameter}`, 'utf8').trim();
      return finding('optional', `${module}.${parameter}`, true, `${value} (${meaning})`);
    } catch {
      return finding('optional', `${module}.${parameter}`, false, `not known here (${meaning})`);
    }
  });
}

export async function tunFindings(): Promise<Finding[]> {
  const node = nodeFinding(TUN_DEVICE);
  if (!node.found) return [node];
  const addon = native();
  const fd = addon.fdOpen(TUN_DEVICE, O_RDWR_NONBLOCK);
  if (typeof fd === 'number')
    return [node, finding('vhost-net', 'tun opens', false, String(fd), hintFor('ENODEV', 'open', TUN_DEVICE))];
  const features = addon.tunGetFeatures(fd as FdHandle);
  addon.fdClose(fd as FdHandle);
  const names = Object.entries(TUN_FEATURE_NAMES).flatMap(([bit, name]) =>
    (features & Number(bit)) === 0 ? [] : [name],
  );
  return [
    node,
    finding('optional', 'tap features', true, `0x${features.toString(16)}: ${names.join(' ')}`),
    await tapFinding(),
  ];
}

/** Opens a tap, in a namespace of its own that is gone afterwards. */
async function tapFinding(): Promise<Finding> {
  const name = 'a tap can be made';
  if (process.getuid?.() !== 0) {
    return finding(
      'optional',
      name,
      false,
      'not tried without root',
      'root or CAP_NET_ADMIN, or a persistent tap owned by this user',
    );
  }
  try {
    await using netns = await Netns.create(Netns.uniqueName('vhost-doctor'));
    await using tap = await Tap.open({ netns: netns.path });
    const offload = await tap.setBestOffload(
      TUN_F_CSUM | TUN_F_TSO4 | TUN_F_TSO6 | TUN_F_TSO_ECN | TUN_F_USO4 | TUN_F_USO6,
    );
    return finding('optional', name, true, `yes, with offloads 0x${offload.toString(16)}`);
  } catch (error) {
    return finding('optional', name, false, messageOf(error), adviceOf(error));
  }
}

/** Requirements on the process: platform, Node, addon. */
import { release } from 'node:os';
import { native } from '../native';
import { type Finding, finding, messageOf } from './finding';

const LEAST_NODE = [20, 19] as const;

export function platformFinding(): Finding {
  return finding(
    'everything',
    'Linux',
    process.platform === 'linux',
    `${process.platform} ${release()}`,
    'vhost-net is a device of Linux',
  );
}

export function archFinding(): Finding {
  const known = process.arch === 'x64' || process.arch === 'arm64';
  return finding(
    'everything',
    'architecture',
    known,
    process.arch,
    'use a 64-bit little-endian machine: x86-64 or arm64',
  );
}

export function nodeFinding(version = process.versions.node): Finding {
  const [major = 0, minor = 0] = version.split('.').map(Number);
  const enough = major > LEAST_NODE[0] || (major === LEAST_NODE[0] && minor >= LEAST_NODE[1]);
  return finding('everything', 'Node', enough, version, `install Node ${LEAST_NODE.join('.')} or newer`);
}

export function addonFinding(): Finding {
  try {
    native();
    return finding('everything', 'native addon', true, 'loaded');
  } catch (error) {
    return finding(
      'everything',
      'native addon',
      false,
      messageOf(error),
      'build it: "npm rebuild vhost-net", or "scripts/dev build"',
    );
  }
}

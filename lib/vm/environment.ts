const KEPT = ['PATH', 'HOME', 'LANG', 'LC_ALL', 'TERM', 'TZ', 'CI', 'NO_COLOR', 'FORCE_COLOR'];
const FALLBACK: Readonly<Record<string, string>> = {
  PATH: '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin',
  HOME: '/root',
  LANG: 'C.UTF-8',
  TERM: 'dumb',
};
/** These name descriptors of this process, which do not exist in the VM. */
const NEVER = new Set(['NODE_CHANNEL_FD', 'NODE_CHANNEL_SERIALIZATION_MODE', 'NODE_UNIQUE_ID']);

/** Set in the VM, so that a command can tell where it runs. */
export const VM_MARK = 'VHOST_NET_VM';

/**
 * The environment a command gets when none is given: PATH, HOME, LANG, LC_ALL, TERM, TZ, CI, NO_COLOR, FORCE_COLOR and all
 * NODE_* of `from`, sound values where the first four are missing, and VHOST_NET_VM=1. Nothing else crosses over.
 */
export function defaultEnvironment(from: NodeJS.ProcessEnv): Record<string, string> {
  const env: Record<string, string> = { ...FALLBACK };
  for (const [name, value] of Object.entries(from)) {
    const kept = KEPT.includes(name) || (name.startsWith('NODE_') && !NEVER.has(name));
    if (kept && value !== undefined) env[name] = value;
  }
  env[VM_MARK] = '1';
  return env;
}

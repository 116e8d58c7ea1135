/** Runs in a Worker: a device with everything open and traffic under way, until its thread is ended from outside. */
import { parentPort } from 'node:worker_threads';
import { DirtyLog } from '../../lib/memory/dirty-log';
import { VhostLab } from './vhost-lab';
import { Traffic } from './vhost-traffic';

async function main(): Promise<void> {
  const lab = await VhostLab.create();
  const log = DirtyLog.create(lab.memory.end);
  await lab.backend.setDirtyLog(log);
  await lab.start();
  lab.notifiers[0]!.call.onSignal(() => undefined);
  const traffic = new Traffic(lab);
  traffic.start();
  await traffic.pass(50);
  parentPort?.postMessage({ netns: lab.netns.name, fd: lab.backend.vhosts[0]!.fd });
  for (;;) await traffic.pass(1000);
}

main().catch((error: unknown) => {
  parentPort?.postMessage({ error: String(error) });
});

/** `vhost-net announce`: tells the network once more where a guest is. */
import { Command } from 'commander';
import { plural } from '../report/units';
import { order } from './order';

export function announceCommand(): Command {
  return new Command('announce')
    .description('tells the network where a guest is, as after a migration')
    .argument('<control>', 'control socket of the process that runs the guest')
    .action(async (control: string) => {
      const { rounds } = await order(control, 'announce', {});
      process.stdout.write(`announced in ${plural(rounds, 'round')}\n`);
    });
}

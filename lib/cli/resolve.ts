/** `vhost-net resolve`: says where a guest is, of which its source does not know. */
import { Argument, Command } from 'commander';
import { order } from './order';

const HELP = `
"there": the guest runs at the destination, and the process here ends. "here": it certainly does not run there and never will, so it goes on
here. An order that is wrong makes two guests of one: look at the destination first.
Exit status: 0 done, 1 there is nothing to resolve, or the guest could not go on.`;

export function resolveCommand(): Command {
  return new Command('resolve')
    .description('says where a guest is after a migration whose end is uncertain')
    .argument('<control>', 'control socket of the process that it was migrated from')
    .addArgument(new Argument('<where>', 'here or there').choices(['here', 'there']))
    .addHelpText('after', HELP)
    .action(async (control: string, where: 'here' | 'there') => {
      await order(control, 'resolve', { where });
      process.stdout.write(where === 'here' ? 'the guest runs here again\n' : 'the guest is at the destination\n');
    });
}

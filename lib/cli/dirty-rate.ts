/** `vhost-net dirty-rate`: how fast a guest's memory gets dirty, and how a migration of it would go. */
import { Command } from 'commander';
import { type MigrationRule, type Prediction, predictMeasured } from '../migration/what-if';
import type { DirtyRate } from '../observe/dirty-rate';
import { dirtyRateJson, dirtyRateText } from '../observe/dirty-rate-text';
import { numberFrom } from './arguments';
import { order } from './order';

interface Flags {
  seconds: number;
  interval: number;
  bandwidth: number;
  downtimeLimit: number;
  json?: boolean;
}

const RULES: readonly MigrationRule[] = ['ours', 'qemu', 'cloud-hypervisor'];

export function dirtyRateCommand(): Command {
  return new Command('dirty-rate')
    .description("measures how fast a guest's memory gets dirty, and predicts rounds and downtime of a migration")
    .argument('<control>', 'control socket of the process that runs the guest')
    .option('--seconds <s>', 'how long to measure', numberFrom(0.001, 3600), 1)
    .option('--interval <ms>', 'between two looks', numberFrom(1, 3_600_000), 100)
    .option('--bandwidth <MB/s>', 'of the link that it would go over', numberFrom(0.001, 1_000_000), 125)
    .option('--downtime-limit <ms>', 'longest downtime wanted', numberFrom(0, 86_400_000), 300)
    .option('--json', 'figures as JSON')
    .action(async (control: string, flags: Flags) => {
      const { seconds, interval: intervalMs, json } = flags;
      const rate = await order(control, 'dirty-rate', { seconds, intervalMs });
      const predictions = predict(rate, flags);
      process.stdout.write(`${json === true ? dirtyRateJson(rate, predictions) : dirtyRateText(rate, predictions)}\n`);
    });
}

/** By this package's rule and by others'. */
function predict(rate: DirtyRate, { bandwidth, downtimeLimit: downtimeLimitMs }: Flags): Prediction[] {
  return RULES.map((rule) => predictMeasured(rate, { rule, bandwidth: bandwidth * 1_000_000, downtimeLimitMs }));
}

/** The whole: two machines, their processes and the network, as something that can be explored. */
import { destinationSuccessors } from './destination-process';
import { type Environment, RULES, type Rules } from './environment';
import { type Exploration, explore, type Model } from './explorer';
import { networkSuccessors } from './network';
import { brokenIn, quiet } from './properties';
import { sourceSuccessors } from './source-process';
import { newConnection, newDestination, newSource, type World, worldKey } from './world';

export function migrationModel(env: Environment, rules: Rules = RULES): Model<World> {
  return {
    initial: {
      source: newSource('1'),
      destinations: Array.from({ length: Math.max(...env.attempts) + 1 }, newDestination),
      connections: [newConnection(env.attempts[0]!)],
      ghost: '',
    },
    key: worldKey,
    broken: brokenIn,
    ended: quiet,
    successors(world, emit) {
      sourceSuccessors(world, env, rules, emit);
      for (const at of world.destinations.keys()) destinationSuccessors(world, at, env, rules, emit);
      networkSuccessors(world, env, rules, emit);
    },
  };
}

export const exploreMigration = (env: Environment, rules?: Rules): Exploration<World> =>
  explore(migrationModel(env, rules));

/** As the tests print it. */
export function inWords(name: string, { states, transitions, failures }: Exploration<World>): string {
  const lines = [`${name}: ${states} states, ${transitions} transitions`];
  for (const [property, { trace }] of failures) {
    lines.push(`  broken: ${property}`, ...trace.map((words, at) => `    ${at + 1}. ${words}`));
  }
  return lines.join('\n');
}

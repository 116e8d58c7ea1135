/**
 * Has V8 compile what is loaded from now on when it is loaded, not when it is called first: the first migration of a process is otherwise the
 * one in which everything is compiled while a guest stands still. Takes effect by being loaded, so it is loaded first. Node 20 to 24 know the
 * flags; one that does not goes on without.
 */
import { setFlagsFromString } from 'node:v8';

for (const flag of ['--no-lazy', '--always-sparkplug', '--no-lazy-feedback-allocation']) setFlagsFromString(flag);

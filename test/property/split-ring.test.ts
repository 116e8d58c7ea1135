import * as fc from 'fast-check';
import { SPLIT } from '../helpers/ring-formats';
import { ringProperties } from '../helpers/ring-properties';

ringProperties(SPLIT, {
  any: fc.oneof(
    { weight: 8, arbitrary: fc.integer({ min: 0, max: 6 }).map((power) => 2 ** power) },
    { weight: 1, arbitrary: fc.constantFrom(256, 1024, 32768) },
  ),
  wrapping: Array.from({ length: 16 }, (_, power) => 2 ** power),
});

import * as fc from 'fast-check';
import { PACKED } from '../helpers/ring-formats';
import { RingModel } from '../helpers/ring-model';
import { anySetup, anySteps, ringProperties, runModel } from '../helpers/ring-properties';

const anySize = fc.oneof(
  { weight: 8, arbitrary: fc.integer({ min: 1, max: 64 }) },
  { weight: 1, arbitrary: fc.constantFrom(256, 1000, 32767, 32768) },
);

ringProperties(PACKED, {
  any: anySize,
  wrapping: [1, 2, 3, 5, 7, 16, 63, 64, 100, 255, 1000, 4096, 32767, 32768],
});

describe('the model finds', () => {
  const faults: [string, (model: RingModel) => void][] = [
    [
      'a device that never calls',
      ({ device }) => {
        const publish = device.publish.bind(device);
        device.publish = () => publish() && false;
      },
    ],
    [
      'a driver that never kicks',
      ({ driver }) => {
        const publish = driver.publish.bind(driver);
        driver.publish = () => publish() && false;
      },
    ],
    [
      'a mark that is lost',
      ({ log }) => {
        const mark = log.mark.bind(log);
        let marks = 0;
        log.mark = (gpa, length) => {
          if (++marks !== 3) mark(gpa, length);
        };
      },
    ],
    [
      'a used descriptor that is not written',
      (model) => {
        const push = model.device.push.bind(model.device);
        let pushed = 0;
        model.device.push = (id, length) => {
          if (++pushed !== 2) push(id, length);
        };
      },
    ],
    [
      'a chain used with the length of another',
      (model) => {
        const push = model.device.push.bind(model.device);
        model.device.push = (id, length) => push(id, length & ~1);
      },
    ],
  ];

  test.each(faults)('%s', (_, plant) => {
    const small = fc.integer({ min: 1, max: 8 });
    const property = fc.property(anySetup(PACKED, small), anySteps, (parameters, steps) => {
      const model = new RingModel(parameters);
      plant(model);
      runModel(model, steps);
    });
    expect(fc.check(property, { numRuns: 200, endOnFailure: true })).toMatchObject({ failed: true });
  });
});

import { join } from 'node:path';
import { inChild } from './support';

/** Runs `script` in `count` workers of a child process; `main` sees them as `workers` once each has posted 'ready'. */
function inWorkers(count: number, script: string, main: string) {
  const setup = `
    const { parentPort } = require('worker_threads');
    const n = require(${JSON.stringify(join(__dirname, '../../lib/native.js'))}).native();
    const ok = (result) => { if (typeof result === 'number' && result < 0) throw new Error('errno ' + result); return result; };
    (async () => {${script}; parentPort.postMessage('ready');})();`;
  return inChild(`
    const { Worker } = require('worker_threads');
    const workers = Array.from({ length: ${count} }, () => new Worker(${JSON.stringify(setup)}, { eval: true }));
    const exits = workers.map((worker) => new Promise((resolve) => worker.once('exit', resolve)));
    await Promise.all(workers.map((worker) => new Promise((resolve, reject) => {
      worker.once('message', resolve); worker.once('error', reject);
    })));
    ${main}`);
}

describe('workers', () => {
  test('each loads the addon; terminate with live polls closes them', () => {
    const result = inWorkers(
      3,
      `
      const busy = ok(n.eventFdCreate(1, 0));
      const idle = ok(n.eventFdCreate(0, 0));
      for (let i = 0; i < 5; i++) ok(n.pollStart(idle, 1, () => {}));
      ok(n.pollStart(busy, 3, () => {}));`,
      `await sleep(10);
      console.log(...await Promise.all(workers.map((worker) => worker.terminate())));`,
    );
    expect(result).toMatchObject({ status: 0, signal: null, stdout: '1 1 1' });
  });

  test('terminate in the middle of busy callbacks, many times', () => {
    const result = inWorkers(
      1,
      '',
      `
      const path = ${JSON.stringify(join(__dirname, '../../lib/native.js'))};
      const code = \`
        const n = require('\${path}').native();
        const fd = n.eventFdCreate(1, 0);
        n.pollStart(fd, 1, () => { for (let i = 0; i < 1000; i++) n.eventFdSignal(fd); });
        n.pollStart(fd, 1, () => { n.pageHashes(n.memfdCreate('m', 4096, 0), 0, 4096, new BigUint64Array(1)); });
        require('worker_threads').parentPort.postMessage('ready');\`;
      for (let i = 0; i < 15; i++) {
        const worker = new Worker(code, { eval: true });
        await new Promise((resolve) => worker.once('message', resolve));
        await sleep(i);
        await worker.terminate();
      }
      console.log('done');
      await workers[0].terminate();`,
    );
    expect(result).toMatchObject({ status: 0, signal: null, stdout: 'done' });
  });

  test('terminate with calls under way and every kind of handle open', () => {
    const result = inWorkers(
      2,
      `
      const fd = ok(n.memfdCreate('m', 64 << 20, 0));
      const mapping = ok(n.mappingCreate(fd, 0, 64 << 20, 0, 3));
      new Uint8Array(ok(n.mappingBuffer(mapping))).fill(1);
      const vhost = ok(n.vhostAdopt(n.fdNumber(ok(n.fdDup(ok(n.eventFdCreate(0, 0)))))));
      n.vhostSetLogBase(vhost, n.mappingAddress(mapping), mapping);
      for (let i = 0; i < 8; i++) n.pageHashes(fd, 0, 64 << 20, new BigUint64Array(16384));
      n.vhostClose(vhost);`,
      `await Promise.all(workers.map((worker) => worker.terminate()));
      console.log(n.mappingsLive());`,
    );
    expect(result).toMatchObject({ status: 0, signal: null, stdout: '0' });
  });

  test('a worker that ends by itself leaves no mapping and no descriptor', () => {
    const result = inWorkers(
      2,
      `
      const fd = ok(n.memfdCreate('m', 4096, 0));
      ok(n.mappingBuffer(ok(n.mappingCreate(fd, 0, 4096, 0, 3))));`,
      `const { readdirSync, readlinkSync } = require('fs');
      await Promise.all(exits);
      const open = readdirSync('/proc/self/fd').filter((fd) => { try { return readlinkSync('/proc/self/fd/' + fd).includes('memfd'); } catch { return false; } });
      console.log(n.mappingsLive(), open.length);`,
    );
    expect(result).toMatchObject({ status: 0, signal: null, stdout: '0 0' });
  });
});

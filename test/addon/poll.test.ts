import type { FdHandle, PollHandle } from '../../lib/native';
import { native } from '../../lib/native';
import { inChild, ok, until } from './support';

const READABLE = 1;
const WRITABLE = 2;

describe('poll', () => {
  const polls: PollHandle[] = [];
  const start = (fd: FdHandle, events: number, callback: (status: number, events: number) => void): PollHandle => {
    const poll = ok(native().pollStart(fd, events, callback));
    polls.push(poll);
    return poll;
  };
  afterEach(() => {
    for (const poll of polls.splice(0)) native().pollStop(poll);
  });

  test('calls back on every signal', async () => {
    const fd = ok(native().eventFdCreate(0, 0));
    const seen: number[][] = [];
    start(fd, READABLE, (status, events) => seen.push([status, events, native().eventFdDrain(fd)]));
    native().eventFdSignal(fd);
    await until(() => seen.length === 1);
    native().eventFdSignal(fd);
    native().eventFdSignal(fd);
    await until(() => seen.length === 2);
    expect(seen).toEqual([
      [0, READABLE, 1],
      [0, READABLE, 2],
    ]);
  });

  test('says nothing after it was stopped, also inside the callback', async () => {
    const fd = ok(native().eventFdCreate(0, 0));
    let calls = 0;
    const poll = start(fd, READABLE, () => {
      calls++;
      native().pollStop(poll);
      native().pollStop(poll);
    });
    native().eventFdSignal(fd);
    await until(() => calls === 1);
    native().eventFdSignal(fd);
    await new Promise((resolve) => setTimeout(resolve, 20));
    expect(calls).toBe(1);
    native().pollRef(poll, true);
  });

  test('two watches on one descriptor both hear', async () => {
    const fd = ok(native().eventFdCreate(0, 0));
    const heard = new Set<string>();
    start(fd, READABLE, () => heard.add('a'));
    start(fd, READABLE, () => heard.add('b'));
    start(fd, WRITABLE, () => heard.add('c'));
    native().eventFdSignal(fd);
    await until(() => heard.size === 3);
  });

  test('holds its descriptor open', async () => {
    const fd = ok(native().eventFdCreate(0, 0));
    const other = ok(native().fdDup(fd));
    let calls = 0;
    start(fd, READABLE, () => {
      calls++;
      native().eventFdDrain(other);
    });
    native().fdClose(fd);
    native().eventFdSignal(other);
    await until(() => calls === 1);
  });
});

describe('poll and the process', () => {
  const run = (script: string) => inChild(`const fd = ok(n.eventFdCreate(0, 0)); ${script}`);

  test('keeps the loop alive until unref', () => {
    const result = run(`
      const poll = ok(n.pollStart(fd, 1, () => {}));
      setTimeout(() => { console.log('unref'); n.pollRef(poll, false); }, 30);`);
    expect(result).toMatchObject({ status: 0, stdout: 'unref', stderr: '' });
  });

  test('goes on when its handle is forgotten', () => {
    const result = run(`
      (() => ok(n.pollStart(fd, 1, () => { n.eventFdDrain(fd); console.log('heard'); process.exit(0); })))();
      await collect();
      n.eventFdSignal(fd);`);
    expect(result).toMatchObject({ status: 0, stdout: 'heard' });
  });

  test('a stopped one is collected together with what its callback held', () => {
    const result = run(`
      let dead = false;
      const registry = new FinalizationRegistry(() => { dead = true; });
      (() => {
        const held = {};
        registry.register(held, 1);
        n.pollStop(ok(n.pollStart(fd, 1, () => held)));
      })();
      await collect();
      console.log(dead);`);
    expect(result).toMatchObject({ status: 0, stdout: 'true' });
  });

  test('an exception in the callback is an uncaught exception', () => {
    const result = run(`
      process.on('uncaughtException', (error) => { console.log(error.message); process.exit(7); });
      ok(n.pollStart(fd, 1, () => { n.eventFdDrain(fd); throw new Error('from the callback'); }));
      n.eventFdSignal(fd);`);
    expect(result).toMatchObject({ status: 7, stdout: 'from the callback' });
  });

  test('start and stop 1000 times leaks no descriptor', () => {
    const result = run(`
      const twin = ok(n.pollStart(fd, 1, () => {}));
      const before = fds();
      for (let i = 0; i < 1000; i++) n.pollStop(ok(n.pollStart(fd, 1, () => {})));
      await sleep(20);
      console.log(fds() - before);
      n.pollStop(twin);`);
    expect(result).toMatchObject({ status: 0, stdout: '0' });
  });

  test('process.exit and a natural end with a live poll are clean', () => {
    expect(run('ok(n.pollStart(fd, 1, () => {})); process.exit(0);')).toMatchObject({ status: 0, stderr: '' });
    expect(run('n.pollRef(ok(n.pollStart(fd, 1, () => {})), false);')).toMatchObject({ status: 0, stderr: '' });
  });
});

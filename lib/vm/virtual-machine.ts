import { randomBytes } from 'node:crypto';
import { appendFileSync, copyFileSync, readFileSync, rmSync } from 'node:fs';
import { constants as osConstants } from 'node:os';
import { join } from 'node:path';
import { type GuestEvent, listen } from './control';
import { Deferred } from './deferred';
import { VmError } from './errors';
import { jobArchive } from './job';
import type { CheckedOptions } from './options';
import type { PreparedVm } from './prepare';
import { type Accelerator, type Machine, startMachine } from './qemu';
import { type Relay, relay } from './relay';
import { makeTempFolder } from './temp';
import { type Share, shareOut, shareRoot } from './virtiofsd';

export interface VmResult {
  /** Of the command: 0 to 255; 128 + number after a death by signal, 127 not found, 126 not runnable, 124 out of time. */
  readonly exitCode: number;
  /** The signal that an `exitCode` above 128 stands for, as a shell would read it; else null. */
  readonly signal: NodeJS.Signals | null;
  readonly timedOut: boolean;
  /** From power-on to power-off. */
  readonly seconds: number;
}

export interface RunningVm {
  /**
   * Sends a signal to the command's process group. While the guest still boots it ends the VM instead, and so does the
   * third of the same kind that the command withstands.
   */
  kill(signal: NodeJS.Signals): void;
  /** Process ids on this host: the machine's, then its file servers'. */
  readonly pids: readonly number[];
  readonly finished: Promise<VmResult>;
}

const EXIT_TIMED_OUT = 124;
/** Where hardware virtualisation works at all, the first process speaks after one second. */
const BOOT_LIMIT_MS = { kvm: 15_000, tcg: 120_000 } as const;
/** After its time limit a command has 2 s to end on SIGTERM, and then the rest of this until its output is out. */
const FINISH_LIMIT_MS = 10_000;
const DRAIN_IDLE_LIMIT_MS = 5_000;
const CONSOLE_TAIL = 8 * 1024;
const SIGNALS_UNTIL_POWER_OFF = 3;
/** setTimeout() takes no longer wait (signed 32 bits). */
const TIMER_MAX_MS = 2 ** 31 - 1;
/**
 * A panic reboots at once, which ends the machine (-no-reboot) instead of hanging it, and every oops is one: a kernel that has
 * gone wrong must not look like a failing command. The other processors are started by the guest's init, see there.
 */
const KERNEL_ARGUMENTS = 'console=ttyS0 panic=-1 oops=panic maxcpus=1 no_timer_check';

/**
 * Boots with one accelerator after the other until the command starts; naming one again is a second try. Resolves at the
 * command's start, or when time limit or abort came before it.
 */
export async function powerOn(
  options: CheckedOptions,
  prepared: PreparedVm,
  accelerators: readonly Accelerator[],
): Promise<RunningVm> {
  const deadline = performance.now() + options.timeoutMs;
  for (const [index, accelerator] of accelerators.entries()) {
    const vm = await VirtualMachine.start(options, prepared, { accelerator, deadline });
    const failure = await vm.bootFailure();
    if (failure === undefined) return vm;
    if (index === accelerators.length - 1) throw failure;
    options.log(`trying again with ${accelerators[index + 1]}: ${failure.message}`);
  }
  throw new VmError('boot', 'no accelerator to boot with');
}

interface Boot {
  readonly accelerator: Accelerator;
  /** When the time is up, performance.now(). */
  readonly deadline: number;
}

type Ending = Omit<VmResult, 'seconds'>;

class VirtualMachine implements RunningVm {
  readonly finished: Promise<VmResult>;
  readonly #startedAt = performance.now();
  /** Undefined: the command has started, or was called off. */
  readonly #booted = new Deferred<VmError | undefined>();
  readonly #ending = new Deferred<Ending>();
  readonly #signals = new Map<NodeJS.Signals, number>();
  #relays: readonly Relay[] = [];
  #timers: NodeJS.Timeout[] = [];
  #bootTimer: NodeJS.Timeout | undefined;
  #running = false;
  #timedOut = false;
  #consoleTail = '';

  private constructor(
    readonly options: CheckedOptions,
    readonly boot: Boot,
    /** Temporary folder with the sockets; removed at the end. */
    readonly folder: string,
    /** Ends both output streams. */
    readonly trailer: string,
    readonly machine: Machine,
    readonly shares: readonly Share[],
  ) {
    process.once('exit', this.#killNow);
    this.#ending.promise.catch(() => {});
    machine.console.on('error', () => {});
    machine.console.on('data', (chunk: Buffer) => {
      this.#consoleTail = (this.#consoleTail + chunk.toString()).slice(-CONSOLE_TAIL);
      options.console?.write(chunk);
    });
    listen(machine.control, (event) => this.#heard(event));
    void machine.child.ended.then((how) => this.#lost(`the machine ended: ${how}`));
    for (const share of shares) void share.server.ended.then((how) => this.#shareEnded(how));
    options.log(`process ids: ${this.pids.join(' ')}`);
    this.#setLimits();
    this.finished = this.#runToEnd();
    this.finished.catch((error: Error) => {
      const worthAnotherTry = error instanceof VmError && error.reason === 'lost';
      this.#booted.resolve(worthAnotherTry ? error : undefined);
    });
    void this.finished.then(
      () => this.#booted.resolve(undefined),
      () => {},
    );
  }

  static async start(options: CheckedOptions, prepared: PreparedVm, boot: Boot): Promise<VirtualMachine> {
    const folder = makeTempFolder();
    const shares: Share[] = [];
    try {
      const trailer = randomBytes(16).toString('hex');
      const initrd = join(folder, 'initrd.cpio');
      copyFileSync(prepared.initrd, initrd);
      appendFileSync(initrd, jobArchive({ ...options, ...prepared.kernel, trailer }));
      shares.push(await shareRoot(folder, options.log));
      if (options.out !== '') shares.push(await shareOut(folder, options.out));
      const machine = startMachine({
        accelerator: boot.accelerator,
        kernel: prepared.kernel.image,
        initrd,
        append: kernelCommandLine(options, boot.accelerator),
        memoryBytes: options.memory,
        cpus: options.cpus,
        shares,
      });
      return new VirtualMachine(options, boot, folder, trailer, machine, shares);
    } catch (error) {
      for (const share of shares) share.server.process.kill('SIGKILL');
      rmSync(folder, { recursive: true, force: true });
      throw error;
    }
  }

  get pids(): readonly number[] {
    return [this.machine.child.pid, ...this.shares.map((share) => share.server.pid)];
  }

  /** Resolves at the command's start, or with what kept the machine from getting there when another try may help. */
  bootFailure(): Promise<VmError | undefined> {
    return this.#booted.promise;
  }

  kill(signal: NodeJS.Signals): void {
    const number = osConstants.signals[signal];
    const count = (this.#signals.get(signal) ?? 0) + 1;
    this.#signals.set(signal, count);
    if (this.#running && count < SIGNALS_UNTIL_POWER_OFF)
      this.machine.control.write(`signal ${signal.slice('SIG'.length)}\n`);
    else this.#end(128 + number);
  }

  #heard(event: GuestEvent): void {
    switch (event.kind) {
      case 'booted':
        clearTimeout(this.#bootTimer);
        this.#report('guest kernel up');
        break;
      case 'running':
        this.#running = true;
        this.#handOutputOn();
        this.#booted.resolve(undefined);
        this.#report('command started');
        break;
      case 'exit':
        this.#report(`command ended with ${event.status}`);
        void this.#drained().then(() => this.#end(this.#timedOut ? EXIT_TIMED_OUT : event.status));
        break;
      case 'error':
        this.#ending.reject(new VmError('boot', `the guest cannot start: ${event.text}${this.#evidence()}`));
    }
  }

  #setLimits(): void {
    const { options, boot } = this;
    const bootLimit = BOOT_LIMIT_MS[boot.accelerator];
    const left = Math.max(0, boot.deadline - performance.now());
    this.#bootTimer = setTimeout(
      () => this.#lost(`no sign of life from the guest in ${bootLimit / 1000} s`),
      bootLimit,
    );
    this.#timers = [
      this.#bootTimer,
      setTimeout(() => this.#timeOut(), left),
      setTimeout(() => this.#end(EXIT_TIMED_OUT), Math.min(left + FINISH_LIMIT_MS, TIMER_MAX_MS)),
    ];
    options.signal?.addEventListener('abort', this.#abort);
    if (options.signal?.aborted) this.#abort();
  }

  #handOutputOn(): void {
    const { options, machine, trailer } = this;
    this.#relays = [
      relay(machine.stdout, trailer, options.stdout, () => this.kill('SIGPIPE')),
      relay(machine.stderr, trailer, options.stderr, () => this.kill('SIGPIPE')),
    ];
  }

  /** All output is handed on, or nothing has come for a while: a process has kept its output open past the end. */
  async #drained(): Promise<void> {
    let stalled: NodeJS.Timeout | undefined;
    const stall = new Promise<void>((resolve) => {
      stalled = setInterval(() => {
        if (this.#relays.every((relay) => relay.idleMs() > DRAIN_IDLE_LIMIT_MS)) resolve();
      }, 100);
    });
    await Promise.race([Promise.all(this.#relays.map((relay) => relay.finished)), stall]);
    clearInterval(stalled);
  }

  #timeOut(): void {
    this.#timedOut = true;
    this.#report(`time limit of ${this.options.timeoutMs / 1000} s reached`);
    if (this.#running) this.machine.control.write('finish\n');
    else this.#end(EXIT_TIMED_OUT);
  }

  #end(exitCode: number): void {
    const timedOut = this.#timedOut;
    this.#ending.resolve({ exitCode, signal: timedOut ? null : signalIn(exitCode), timedOut });
  }

  #abort = (): void => {
    this.#ending.reject(new VmError('aborted', 'the VM was ended by its AbortSignal'));
  };

  /** A file server ends with its machine, whose own end tells more. */
  #shareEnded(how: string): void {
    const timer = setTimeout(() => this.#lost(`virtiofsd ended: ${how}`), 500);
    void this.machine.child.ended.then(() => clearTimeout(timer));
  }

  #lost(how: string): void {
    this.#ending.reject(new VmError('lost', `${how}${this.#evidence()}`));
  }

  #evidence(): string {
    const texts = [this.machine.child, ...this.shares.map((share) => share.server)].map((child) => child.errorText());
    const console = this.options.console === undefined ? this.#consoleTail.trim() : '';
    return [...texts, console]
      .filter((text) => text !== '')
      .map((text) => `\n${text}`)
      .join('');
  }

  async #runToEnd(): Promise<VmResult> {
    try {
      const ending = await this.#ending.promise;
      return { ...ending, seconds: (performance.now() - this.#startedAt) / 1000 };
    } finally {
      for (const timer of this.#timers) clearTimeout(timer);
      this.options.signal?.removeEventListener('abort', this.#abort);
      this.#killNow();
      await Promise.all([this.machine.child.ended, ...this.shares.map((share) => share.server.ended)]);
      process.off('exit', this.#killNow);
      this.#report('powered off');
    }
  }

  /** Also runs when this process exits in the middle, hence without waiting for anything. */
  #killNow = (): void => {
    for (const child of [this.machine.child, ...this.shares.map((share) => share.server)])
      child.process.kill('SIGKILL');
    rmSync(this.folder, { recursive: true, force: true });
  };

  #report(what: string): void {
    const seconds = ((performance.now() - this.#startedAt) / 1000).toFixed(2);
    this.options.log(`${seconds} s: ${what}`);
  }
}

function kernelCommandLine(options: CheckedOptions, accelerator: Accelerator): string {
  const words = [KERNEL_ARGUMENTS];
  if (accelerator === 'tcg') words.push(...delayArgument());
  if (options.console === undefined) words.push('quiet');
  if (options.hugepages > 0) words.push(`hugepages=${options.hugepages}`);
  if (options.kernelAppend !== '') words.push(options.kernelAppend);
  return words.join(' ');
}

/**
 * Loops per jiffy, which an emulated processor takes half a second to measure, and measures badly. The emulated time stamp
 * counter is the host's. CONFIG_HZ is 250 in both series.
 */
function delayArgument(): string[] {
  const mhz = Number(/^cpu MHz\s*: ([\d.]+)$/m.exec(readFileSync('/proc/cpuinfo', 'utf8'))?.[1] ?? 0);
  return mhz > 0 ? [`lpj=${Math.round((mhz * 1_000_000) / 250)}`] : [];
}

function signalIn(exitCode: number): NodeJS.Signals | null {
  const found = Object.entries(osConstants.signals).find(([, number]) => number === exitCode - 128);
  return found === undefined ? null : (found[0] as NodeJS.Signals);
}

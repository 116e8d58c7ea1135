/** A Linux guest with vhost-net that QEMU moves from one process to the next, on the bridge of a network namespace. */
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Netns } from '../../lib/host/netns';
import { GUEST_MAC } from './move-plan';
import { qemuGuest } from './qemu-guest';
import { QemuMachine, type QemuMigration, UNLIMITED } from './qemu-machine';

const MEBIBYTE = 2 ** 20;

export class QemuMover {
  readonly #netns: Netns;
  readonly #bridge: string;
  readonly #folder = mkdtempSync(join(tmpdir(), 'vhn-qemu-mover-'));
  readonly #memory: number;
  #kernel: string[] = [];
  #machine: QemuMachine | null = null;
  #started = 0;

  private constructor(netns: Netns, bridge: string, memory: number) {
    this.#netns = netns;
    this.#bridge = bridge;
    this.#memory = memory;
  }

  /** The guest begins to boot. `memory`: bytes. */
  static async start(netns: Netns, bridge: string, memory: number): Promise<QemuMover> {
    const mover = new QemuMover(netns, bridge, memory);
    mover.#kernel = await qemuGuest(mover.#folder);
    mover.#machine = await mover.#start();
    return mover;
  }

  /** What its kernel wrote last: the console of the process that was started last. */
  get consoleText(): string {
    return readFileSync(join(this.#folder, `console-${this.#started}`), 'utf8');
  }

  /** `downtimeLimit`: milliseconds that QEMU may plan for, 300 by default. */
  async move(downtimeLimit: number): Promise<QemuMigration> {
    const uri = `unix:${join(this.#folder, 'migration')}`;
    const destination = await this.#start(['-incoming', uri]);
    const source = this.#machine!;
    await source.ask('migrate-set-parameters', { 'max-bandwidth': UNLIMITED, 'downtime-limit': downtimeLimit });
    await source.ask('migrate', { uri });
    const migration = await source.migrated();
    this.#machine = destination;
    await source.end();
    return migration;
  }

  async #start(more: readonly string[] = []): Promise<QemuMachine> {
    const index = ++this.#started;
    const tap = `qemu${index}`;
    const argv = ['-nodefaults', '-no-user-config', '-display', 'none', '-no-reboot', '-cpu', 'qemu64'];
    argv.push('-machine', 'q35,accel=tcg,memory-backend=ram,vmport=off,usb=off', '-m', `${this.#memory / MEBIBYTE}M`);
    argv.push('-object', `memory-backend-memfd,id=ram,size=${this.#memory},share=on`, ...this.#kernel);
    argv.push('-serial', `file:${join(this.#folder, `console-${index}`)}`);
    argv.push('-netdev', `tap,id=net,ifname=${tap},script=no,downscript=no,vhost=on`);
    argv.push('-device', `virtio-net-pci,netdev=net,mac=${GUEST_MAC},romfile=`);
    const machine = await QemuMachine.start(join(this.#folder, `qmp-${index}`), [...argv, ...more], this.#netns.name);
    await this.#netns.ipBatch([`link set dev ${tap} up`, `link set dev ${tap} master ${this.#bridge}`]);
    return machine;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#machine?.end();
    rmSync(this.#folder, { recursive: true, force: true });
  }
}

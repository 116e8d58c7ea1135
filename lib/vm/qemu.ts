import { closeSync, openSync, readFileSync } from 'node:fs';
import type { Socket } from 'node:net';
import { spawnTied, type TiedChild } from './child';

export type Accelerator = 'kvm' | 'tcg';

export interface MachineOptions {
  readonly accelerator: Accelerator;
  readonly kernel: string;
  readonly initrd: string;
  readonly append: string;
  /** Bytes of guest RAM. */
  readonly memoryBytes: number;
  readonly cpus: number;
  readonly shares: readonly { readonly tag: string; readonly socket: string }[];
}

export interface Machine {
  readonly child: TiedChild;
  readonly stdout: Socket;
  readonly stderr: Socket;
  readonly control: Socket;
  readonly console: Socket;
}

/** Descriptors the machine finds its ports on. */
const FD = { stdout: 3, stderr: 4, control: 5, console: 6 } as const;

/** q35: as fast to boot as microvm with the same kernel, and all virtio-pci drivers it needs are built in. */
export function startMachine(options: MachineOptions): Machine {
  const stdio = ['ignore', 'ignore', 'pipe', 'pipe', 'pipe', 'pipe', 'pipe'] as const;
  const child = spawnTied(['qemu-system-x86_64', ...machineArguments(options)], [...stdio]);
  const port = (fd: number): Socket => child.process.stdio[fd] as Socket;
  return {
    child,
    stdout: port(FD.stdout),
    stderr: port(FD.stderr),
    control: port(FD.control),
    console: port(FD.console),
  };
}

function machineArguments(options: MachineOptions): string[] {
  const { accelerator, memoryBytes, cpus } = options;
  const args = ['-nodefaults', '-no-user-config', '-display', 'none', '-no-reboot'];
  args.push('-accel', accelerator === 'kvm' ? 'kvm' : 'tcg,thread=multi');
  args.push('-cpu', accelerator === 'kvm' ? 'host' : 'max');
  args.push(
    '-machine',
    'q35,memory-backend=ram,vmport=off,usb=off',
    '-smp',
    `${cpus}`,
    '-m',
    `${memoryBytes / 1024 / 1024}M`,
  );
  args.push('-object', `memory-backend-memfd,id=ram,size=${memoryBytes},share=on`);
  args.push('-kernel', options.kernel, '-initrd', options.initrd, '-append', options.append);
  for (const [name, fd] of Object.entries(FD)) args.push('-chardev', `socket,id=${name},fd=${fd}`);
  args.push('-serial', 'chardev:console', '-device', 'virtio-serial-pci,max_ports=4');
  for (const [index, name] of (['stdout', 'stderr', 'control'] as const).entries()) {
    args.push('-device', `virtserialport,nr=${index + 1},chardev=${name},name=vhost-net-vm.${name}`);
  }
  for (const { tag, socket } of options.shares) {
    args.push('-chardev', `socket,id=fs-${tag},path=${socket.replaceAll(',', ',,')}`);
    args.push('-device', `vhost-user-fs-pci,chardev=fs-${tag},tag=${tag},queue-size=1024`);
  }
  return args;
}

/** Whether hardware virtualisation is worth a try: /dev/kvm alone says nothing about a machine that is itself a VM. */
export function mayHaveKvm(): boolean {
  if (!/^flags\s*:.*\b(svm|vmx)\b/m.test(readFileSync('/proc/cpuinfo', 'utf8'))) return false;
  try {
    closeSync(openSync('/dev/kvm', 'r+'));
    return true;
  } catch {
    return false;
  }
}

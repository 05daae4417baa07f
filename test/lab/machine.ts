/**
 * A Debian machine with systemd as process 1: this machine's own files, or those of a root directory, below an overlay of its own, so
 * that whatever is installed or enabled there is gone with the test.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { closeSync, mkdirSync, openSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { output, run, type Result } from './command.ts';
import { labCgroup, machineEnded } from './enclosure.ts';
import type { Namespace } from './namespace.ts';
import { environmentOf, fileOf } from './packages.ts';

const MACHINES = '/run/machines';
const BOOT_TIMEOUT_MS = 180_000;

const CHECKOUT = join(import.meta.dirname, '../..');

// A cgroup hierarchy of version 2 alone: systemd takes it also without a controller in it.
const JOIN_CGROUP = `set -e
for hierarchy in /sys/fs/cgroup/unified /sys/fs/cgroup; do
  if [ -e $hierarchy/cgroup.procs ]; then
    mkdir -p $hierarchy$1
    echo $$ > $hierarchy$1/cgroup.procs
    break
  fi
done
shift
exec "$@"`;

// The checkout may be on another file system than /; on a bare machine only what is named of it is there. The engine's own
// overlays cannot lie on one of ours.
const BOOT = `set -e
disk=$1 checkout=$2 lower=$3
shift 3
mount -t overlay overlay -o "lowerdir=$lower,upperdir=$disk/files,workdir=$disk/work" "$disk/root"
mkdir -p "$disk/root$checkout" "$disk/root/var/lib/docker" "$disk/root/.old"
if [ "$lower" = / ]; then
  mount -t overlay overlay -o "lowerdir=$checkout,upperdir=$disk/checkout,workdir=$disk/work2" "$disk/root$checkout"
fi
for path; do
  mkdir -p "$disk/root$path"
  mount --bind -o ro "$path" "$disk/root$path"
done
mount --bind "$disk/docker" "$disk/root/var/lib/docker"
cd "$disk/root"
[ -e etc/machine-of-lab ] || rm -rf etc/systemd/system/*
: > etc/machine-of-lab
mount -t proc proc proc
mount -t sysfs sysfs sys
mount -t cgroup2 cgroup2 sys/fs/cgroup
mount -t tmpfs -o mode=755 tmpfs run
mount -t tmpfs -o mode=755 tmpfs dev
for device in null zero full random urandom tty; do : > dev/$device; mount --bind /dev/$device dev/$device; done
mkdir dev/pts dev/shm
mount -t devpts -o newinstance,ptmxmode=0666 devpts dev/pts
mount -t tmpfs tmpfs dev/shm
ln -s pts/ptmx dev/ptmx
ln -s /proc/self/fd dev/fd
pivot_root . .old
umount -l /.old
exec env -i container=lab PATH=/usr/sbin:/usr/bin:/sbin:/bin /lib/systemd/systemd`;

const PATH_OF_ROOT = 'PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin';

const UNSHARE = [
  '--mount',
  '--uts',
  '--ipc',
  '--cgroup',
  '--pid',
  '--fork',
  '--kill-child',
  '--propagation',
  'private',
];

/** A machine that has nothing of this one but some directories, which it cannot write to. */
export interface Bare {
  readonly root: string;
  readonly shared: readonly string[];
}

export class Machine {
  readonly disk: string;
  private readonly namespace: Namespace;
  private readonly bare: Bare | undefined;
  private booted: ChildProcess | undefined;
  /** Process 1 of the machine, as seen from outside. */
  private initPid = '';

  private constructor(disk: string, namespace: Namespace, bare: Bare | undefined) {
    this.disk = disk;
    this.namespace = namespace;
    this.bare = bare;
  }

  /** Starts one whose network is `namespace`, without any service of this machine's own. */
  static async boot(name: string, namespace: Namespace, bare?: Bare): Promise<Machine> {
    const disk = join(MACHINES, name);
    mkdirSync(disk, { recursive: true });
    await output(['mount', '-t', 'tmpfs', 'tmpfs', disk]);
    for (const path of ['files', 'work', 'checkout', 'work2', 'root', 'docker']) mkdirSync(join(disk, path));
    const machine = new Machine(disk, namespace, bare);
    await machine.powerOn();
    return machine;
  }

  /** Starts it, with what its disk holds; resolves when systemd has started all it was to start. */
  async powerOn(): Promise<void> {
    const log = openSync(join(this.disk, 'console'), 'a');
    const { root, shared } = this.bare ?? { root: '/', shared: [] };
    const boot = ['unshare', ...UNSHARE, 'sh', '-c', BOOT, 'boot', this.disk, CHECKOUT, root, ...shared];
    const [command = '', ...args] = this.namespace.enter(['sh', '-c', JOIN_CGROUP, 'join', labCgroup(), ...boot]);
    this.booted = spawn(command, args, { stdio: ['ignore', log, log] });
    closeSync(log);
    const deadlineMs = Date.now() + BOOT_TIMEOUT_MS;
    while (!(await this.isUp())) {
      if (this.booted.exitCode !== null || Date.now() > deadlineMs) {
        this.booted.kill('SIGKILL');
        this.booted = undefined;
        throw new Error(`no boot:\n${this.console()}`);
      }
      await sleep(100);
    }
  }

  /** Pulls the plug. */
  async powerOff(): Promise<void> {
    if (!this.booted) return;
    // Process 1 is the last to go, and unshare sees it end. Killed itself, unshare would not wait for any of them.
    process.kill(Number(this.initPid), 'SIGKILL');
    await machineEnded(this.booted);
    this.booted = undefined;
  }

  async scrap(): Promise<void> {
    await this.powerOff();
    await output(['umount', '-l', this.disk]);
    rmSync(this.disk, { recursive: true });
  }

  run(...argv: string[]): Promise<Result> {
    return run(this.enter(argv), { timeoutMs: 180_000 });
  }

  must(...argv: string[]): Promise<string> {
    return output(this.enter(argv), { timeoutMs: 180_000 });
  }

  /** Writes a file below / of the machine. */
  write(path: string, text: string): void {
    writeFileSync(join(`/proc/${this.initPid}/root`, path), text);
  }

  /** Debian's engine 28 with its own units in short, enabled and started; the command `docker` goes to the path. */
  async installEngine(): Promise<void> {
    const environment = Object.entries(environmentOf('forky')).map(
      ([name, value]) => `Environment="${name}=${value}"\n`,
    );
    const unit = (after: string, command: string) =>
      `[Unit]\nAfter=${after}\n[Service]\nType=notify\nExecStart=${command}\nDelegate=yes\nKillMode=process\n` +
      `${environment.join('')}[Install]\nWantedBy=multi-user.target\n`;
    const root = '/var/lib/docker';
    const containerd = `${fileOf('bookworm', 'usr/bin/containerd')} --root ${root}/containerd`;
    const dockerd = `${fileOf('forky', 'usr/sbin/dockerd')} --data-root ${root}/engine --containerd /run/containerd/containerd.sock --bridge none --iptables=false --ip6tables=false`;
    this.write('/etc/systemd/system/containerd.service', unit('network.target', containerd));
    this.write('/etc/systemd/system/docker.service', unit('network-online.target containerd.service', dockerd));
    await this.must('ln', '-sf', fileOf('forky', 'usr/bin/docker'), '/usr/local/bin/docker');
    await this.must('systemctl', 'daemon-reload');
    await this.must('systemctl', 'enable', '--now', 'containerd', 'docker');
  }

  console(): string {
    return readFileSync(join(this.disk, 'console'), 'utf8');
  }

  private enter(argv: string[]): string[] {
    const inside = ['nsenter', '--target', this.initPid, '--all'];
    // What this machine's variables say is not true there.
    return [...inside, ...(this.bare ? ['env', '-i', PATH_OF_ROOT] : []), ...argv];
  }

  private async isUp(): Promise<boolean> {
    // nsenter became sh and sh became unshare, whose only child is process 1 of the machine.
    const pid = this.booted?.pid;
    this.initPid = childrenOf(pid);
    if (!/^\d+$/.test(this.initPid)) return false;
    const state = (await this.run('systemctl', 'is-system-running')).stdout.trim();
    return state === 'running' || state === 'degraded';
  }
}

/** Empty also when there is no such process. */
function childrenOf(pid: number | undefined): string {
  try {
    return readFileSync(`/proc/${pid}/task/${pid}/children`, 'utf8').trim();
  } catch {
    return '';
  }
}

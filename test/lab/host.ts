/**
 * A machine on the LAN: network, process, mount and host name namespaces, a /run and a /sys of its own, and a disk that
 * outlives a power cut.
 *
 *     host ──lan0──cable──port── switch (Lan)
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { closeSync, mkdirSync, openSync } from 'node:fs';
import { join } from 'node:path';
import { output, run, type Result, type RunOptions } from './command.ts';
import { machineEnded } from './enclosure.ts';
import { type Lan, Namespace } from './namespace.ts';

const HOSTS = '/run/lab';

// The shell stays process 1 of the machine and reaps what daemons leave behind, until its input is closed.
const INIT = `set -e
hostname "$1"
# As on every host whose engine has its default bridge.
echo 1 >/proc/sys/net/ipv4/ip_forward
mount --bind "$2/disk" "$2/run/disk"
mount --rbind "$2/run" /run
mount --rbind /sys/fs/cgroup /run/cgroup
mount -t sysfs sysfs /sys
mount --rbind /run/cgroup /sys/fs/cgroup
umount -l /run/cgroup
echo up
cat >/dev/null`;

export interface Daemon {
  /** Sends a signal; SIGKILL and SIGTERM alike are answered by `ended`. */
  kill(signal: NodeJS.Signals): Promise<void>;
  /** Resolves when the process is gone. */
  ended: Promise<void>;
  isRunning(): boolean;
  /** As the processes of its host know it. */
  pid: string;
}

export class Host {
  readonly name: string;
  readonly namespace: Namespace;
  /** Port of the switch behind each link, `{ lan0: 'port1' }`. */
  readonly ports: Record<string, string>;
  /** `run/` is this machine's /run and `disk/` its /run/disk, seen from outside; `log/` takes the output of its daemons. */
  readonly directory: string;
  private readonly init: ChildProcess;

  private constructor(name: string, namespace: Namespace, ports: Record<string, string>, init: ChildProcess) {
    this.name = name;
    this.namespace = namespace;
    this.ports = ports;
    this.directory = join(HOSTS, name);
    this.init = init;
  }

  /** Starts a machine with a cable to the LAN for each of `links`. A name used before finds its old disk. */
  static async boot(name: string, lan: Lan, links = ['lan0']): Promise<Host> {
    const namespace = await Namespace.create(name);
    const ports: Record<string, string> = {};
    for (const link of links) ports[link] = await lan.plug(namespace, link);
    const directory = join(HOSTS, name);
    for (const path of ['run/disk', 'run/cgroup', 'run/netns', 'run/docker/plugins', 'disk/tmp', 'log']) {
      mkdirSync(join(directory, path), { recursive: true });
    }
    const unshare = [
      'unshare',
      '--mount',
      '--uts',
      '--pid',
      '--fork',
      '--kill-child',
      '--mount-proc',
      '--propagation',
      'private',
    ];
    const [command = '', ...args] = namespace.enter([...unshare, 'sh', '-c', INIT, 'init', name, directory]);
    const init = spawn(command, args, { stdio: ['pipe', 'pipe', 'inherit'] });
    await Promise.race([
      once(init.stdout, 'data'),
      once(init, 'exit').then(() => Promise.reject(new Error(`host ${name} did not boot`))),
    ]);
    return new Host(name, namespace, ports, init);
  }

  /** Pulls the plug: every process of the machine and its /run are gone, its disk stays. */
  async cutPower(lan: Lan): Promise<void> {
    for (const port of Object.values(this.ports)) await lan.unplug(port);
    // Process 1 is the last to go: the kernel kills all others and waits for them. Killed itself, unshare would not wait.
    this.init.stdin?.end();
    await machineEnded(this.init);
    await this.namespace.delete();
    await output(['rm', '-rf', join(this.directory, 'run')]);
  }

  /** Pulls the plug and throws the disk away. */
  async scrap(lan: Lan): Promise<void> {
    await this.cutPower(lan);
    await output(['rm', '-rf', this.directory]);
  }

  /** The path, outside, of a file below /run of this machine: `host.file('/run/docker.sock')`. */
  file(path: string): string {
    // The disk is mounted inside only.
    return join(this.directory, path.replace(/^\/run\/disk\//, '/disk/'));
  }

  run(argv: string[], options?: RunOptions): Promise<Result> {
    return run(this.enter(argv), options);
  }

  /** Starts a long-running program whose output goes to `log/NAME.log`; resolves when it has been started. */
  async start(name: string, argv: string[], env: NodeJS.ProcessEnv): Promise<Daemon> {
    const log = openSync(join(this.directory, 'log', `${name}.log`), 'a');
    // The process id as seen inside is what can be signalled: nsenter itself stays outside and only waits.
    const [command = '', ...args] = this.enter(['sh', '-c', 'echo $$; exec "$@" >&2', name, ...argv]);
    const child = spawn(command, args, { env, stdio: ['ignore', 'pipe', log] });
    closeSync(log);
    if (!child.stdout) throw new Error('unreachable');
    const [line] = (await once(child.stdout, 'data')) as [Buffer];
    const pid = String(line).trim();
    const ended = once(child, 'exit').then(() => {});
    const isRunning = () => child.exitCode === null && child.signalCode === null;
    const kill = async (signal: NodeJS.Signals) => {
      await this.run(['kill', `-${signal.replace('SIG', '')}`, pid]);
      // nsenter stands still with the process for which it waits.
      if (signal === 'SIGCONT') child.kill(signal);
    };
    return { kill, ended, isRunning, pid };
  }

  /** The path, outside, of the network namespace of one of its processes, by its id on this machine. */
  networkOf(pid: number): string {
    return this.fileOf(pid, 'ns/net');
  }

  /** The path, outside, of a file below /proc of one of its processes. */
  fileOf(pid: number, file: string): string {
    return `/proc/${this.init.pid}/root/proc/${pid}/${file}`;
  }

  /** The words that run a program on this machine from outside. */
  enter(argv: string[]): string[] {
    const namespaces = { mount: 'mnt', uts: 'uts', net: 'net', pid: 'pid_for_children' };
    const flags = Object.entries(namespaces).map(([flag, file]) => `--${flag}=/proc/${this.init.pid}/ns/${file}`);
    return ['nsenter', ...flags, ...argv];
  }
}

/**
 * Namespaces in which a lab lives and with which it dies: network, mounts (with a /run and a /sys of its own) and
 * processes. When the enclosed command ends, or whoever started it is killed, the kernel kills every process inside and
 * drops every link and mount; only cgroup directories outlive it, and `removeCgroups` takes those.
 */
import { spawn, spawnSync, type ChildProcess, type StdioOptions } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, readdirSync, rmdirSync, writeFileSync } from 'node:fs';
import { basename, join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';

const UNSHARE = ['--net', '--mount', '--pid', '--fork', '--kill-child', '--mount-proc', '--propagation', 'private'];

// A fresh sysfs shows the links of the new network namespace, but comes without the cgroup mounts below it.
// Where tsmacvlan is installed, commands would find the state of that one.
// The shell stays process 1, because it reaps the orphans that engines leave and Node would not.
const SET_UP = `set -e
mount -t tmpfs -o mode=755 tmpfs /run
mkdir /run/cgroup && mount --rbind /sys/fs/cgroup /run/cgroup
mount -t sysfs sysfs /sys && mount --rbind /run/cgroup /sys/fs/cgroup && umount -l /run/cgroup
ip link set lo up
if [ -d /var/lib/tsmacvlan ]; then mount -t tmpfs tmpfs /var/lib/tsmacvlan; fi
set +e
"$@"
exit $?`;

const CGROUPS = '/sys/fs/cgroup';
const CGROUP_PREFIX = 'tsmacvlan-lab-';
/** Processes that are not frozen end sooner. */
const SOON_MS = 2000;

/** What keeps this machine from holding a lab, as a reason for skipping; undefined when nothing does. */
export function obstacle(): string | undefined {
  if (process.getuid?.() !== 0) return 'needs root';
  const trial = spawnSync('unshare', [...UNSHARE, 'true'], { encoding: 'utf8' });
  if (trial.status === 0) return undefined;
  return `needs namespaces: ${trial.stderr.trim() || String(trial.error)}`;
}

/** The reason for skipping a file that was started outside an enclosure; false inside one. As node:test's `skip` wants it. */
export function outsideLab(): string | false {
  return process.env.TSMACVLAN_LAB ? false : 'lives in namespaces of its own: start it with node test/run.ts FILE';
}

/** The cgroup below which every engine of this enclosure puts its containers. */
export function labCgroup(): string {
  return `/${process.env.TSMACVLAN_LAB}`;
}

/**
 * Resolves when process 1 of a machine has ended, and so all of them. No signal ends a process that cgroup v1 has frozen, and a runc
 * that is killed between freezing and thawing its container leaves such ones: what has not ended soon is thawed.
 */
export async function machineEnded(machine: ChildProcess): Promise<void> {
  const thawing = setInterval(() => thaw(join(CGROUPS, 'freezer', labCgroup())), SOON_MS);
  if (machine.exitCode === null && machine.signalCode === null) await once(machine, 'exit');
  clearInterval(thawing);
}

/** Starts a command in namespaces of its own. Killing the child returned kills everything inside. */
export function enclose(command: string[], stdio: StdioOptions, given: NodeJS.ProcessEnv = process.env): ChildProcess {
  // unshare outlives a killed parent unless the kernel is told otherwise.
  const enclosure = ['--pdeathsig', 'KILL', 'unshare', ...UNSHARE, 'sh', '-c', SET_UP, 'lab', ...command];
  const env = { ...given, TSMACVLAN_LAB: CGROUP_PREFIX + process.pid };
  return spawn('setpriv', enclosure, { stdio, env });
}

/** For a program of its own: `prepare` outside, then the program once more within an enclosure, where it does `act`. Its exit code. */
export async function runEnclosed(
  program: string,
  prepare: () => Promise<void>,
  act: () => Promise<number>,
): Promise<number> {
  if (process.env.TSMACVLAN_LAB) return act();
  const reason = obstacle();
  if (reason !== undefined) throw new Error(`${basename(program)} ${reason}`);
  await prepare();
  const child = enclose([process.execPath, program], 'inherit');
  const [code] = (await once(child, 'exit')) as [number | null];
  await removeCgroups();
  return code ?? 1;
}

/** Removes the empty cgroups of this process's enclosures and of those whose runner is gone. */
export async function removeCgroups(): Promise<void> {
  const hierarchies = existsSync(join(CGROUPS, 'cgroup.controllers')) ? [CGROUPS] : children(CGROUPS);
  const ours = hierarchies.flatMap(children).filter((path) => isAbandoned(path.slice(path.lastIndexOf('/') + 1)));
  for (const path of ours) await removeTree(path);
}

function isAbandoned(name: string): boolean {
  if (!name.startsWith(CGROUP_PREFIX)) return false;
  const runner = Number(name.slice(CGROUP_PREFIX.length));
  return runner === process.pid || !existsSync(`/proc/${runner}`);
}

function thaw(cgroup: string): void {
  for (const child of children(cgroup)) thaw(child);
  const state = join(cgroup, 'freezer.state');
  if (existsSync(state)) writeFileSync(state, 'THAWED');
}

async function removeTree(cgroup: string): Promise<void> {
  thaw(cgroup);
  for (const child of children(cgroup)) await removeTree(child);
  // A cgroup stays busy for a moment after its last process was killed.
  for (let attempt = 0; attempt < 40 && existsSync(cgroup); attempt++) {
    try {
      rmdirSync(cgroup);
    } catch {
      await sleep(50);
    }
  }
}

/** None when the directory is gone: another runner removes the same ones. */
function children(directory: string): string[] {
  try {
    const entries = readdirSync(directory, { withFileTypes: true });
    return entries.filter((entry) => entry.isDirectory()).map((entry) => join(directory, entry.name));
  } catch {
    return [];
  }
}

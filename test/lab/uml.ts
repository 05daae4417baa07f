/**
 * A kernel with 8021q, dummy and bonding for the test level `vlan`, whatever this machine's own kernel has: user-mode
 * Linux, an ordinary program. Its root directory is this machine's, read-only; what it writes is gone when it ends,
 * except on a disk that survives the boots of one test. Tests inside it are ordinary test files, and the rest of the
 * lab works there unchanged; outside each of them appears as a subtest.
 *
 *     this process                          user-mode Linux (own mount and process namespace, dies with us)
 *     test 'in a kernel with 802.1Q'  <---  /dev/ttyS0: events of node:test, one JSON line each
 *       subtest …                           uml-init.sh: mounts, modules, then `node the-same-file.test.ts`
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { existsSync } from 'node:fs';
import { rm } from 'node:fs/promises';
import { basename, join, resolve } from 'node:path';
import type { Readable } from 'node:stream';
import { type TestContext, test } from 'node:test';
import { output } from './command.ts';
import { outsideLab } from './enclosure.ts';
import { fileOf, UML_DIRECTORY } from './packages.ts';
import { mirror } from './uml-mirror.ts';

const CHECKOUT = resolve(import.meta.dirname, '../..');

export interface Guest {
  /** Default 1024. */
  readonly memoryMb?: number;
  /** Runs only the tests whose names match, as `^other` does; a point stands for a space. */
  readonly pattern?: string;
  /** How often it boots, 1 when not given. With more, the disks of the lab's hosts stand on a disk that survives. */
  readonly boots?: number;
  /** The boots before the last end as if the plug were pulled: what no program synced to the disk is lost. */
  readonly losesPower?: boolean;
  /** One boot and its tests; default 600 s. */
  readonly timeoutMs?: number;
}

/** Set inside the guest: which boot this is, from 1. */
const BOOT = 'VLAN_BOOT';
/** Set inside the guest: how many boots there are. */
const BOOTS = 'VLAN_BOOTS';

export function isInVlanKernel(): boolean {
  return process.env[BOOT] !== undefined;
}

/**
 * Declares the tests of one file, to be run in a kernel with 802.1Q: outside it boots the guest, which runs this same
 * file; inside it calls `declare` with the number of the boot, from 1.
 */
export function inVlanKernel(file: string, guest: Guest, declare: (boot: number) => void): void {
  const current = process.env[BOOT];
  if (current !== undefined) declare(Number(current));
  else runInVlanKernel(file, guest);
}

/** Runs a test file in a kernel with 802.1Q; the file itself need not know. */
export function runInVlanKernel(file: string, { boots = 1, ...guest }: Guest): void {
  const disk = boots > 1 ? `/run/${basename(file)}.img` : undefined;
  for (let boot = 1; boot <= boots; boot++) {
    const name = `in a kernel with 802.1Q${boots > 1 ? `, boot ${boot}` : ''}`;
    const variables = {
      [BOOT]: String(boot),
      [BOOTS]: String(boots),
      ...(guest.losesPower && boot < boots && { LOSES_POWER: 'yes' }),
      ...(guest.pattern && { PATTERN: guest.pattern }),
      ...(process.env.CRASHES && { CRASHES: process.env.CRASHES }),
      // The guest may only read there, which is what makes its sources start sooner.
      ...(process.env.NODE_COMPILE_CACHE && { NODE_COMPILE_CACHE: process.env.NODE_COMPILE_CACHE }),
    };
    test(name, { timeout: guest.timeoutMs ?? 600_000 }, async (t) => {
      const reason = obstacle();
      if (reason !== undefined) return t.skip(reason);
      if (disk !== undefined && boot === 1) await makeDisk(disk);
      await showTests(t, { ...parameters(file, guest.memoryMb ?? 1024), ...diskParameters(disk), ...variables });
    });
  }
}

async function showTests(t: TestContext, parameters: Record<string, string>): Promise<void> {
  const { events, ended, printed } = bootUml(parameters, t.signal);
  const status = await mirror(t, events);
  await ended;
  if (status === undefined) throw new Error(`the guest ended before its tests did; its console:\n${printed()}`);
  if (status !== 0) throw new Error(`the tests in the guest ended with status ${status}; its console:\n${printed()}`);
}

/** Why there can be no guest; undefined when nothing is missing. */
function obstacle(): string | undefined {
  if (outsideLab()) return outsideLab() as string;
  if (/\s/.test(CHECKOUT)) return 'kernel parameters cannot carry a path with spaces';
  if (!existsSync(UML_DIRECTORY)) return 'user-mode Linux could not be fetched';
  return undefined;
}

async function makeDisk(image: string): Promise<void> {
  await rm(image, { force: true });
  await output(['mkfs.ext4', '-q', image, '2G']);
}

/** Parameters of the kernel; those it does not know become the environment of the first process. */
function parameters(file: string, memoryMb: number): Record<string, string> {
  return {
    init: join(CHECKOUT, 'test/lab/uml-init.sh'),
    mem: `${memoryMb}M`,
    CHECKOUT,
    UML: UML_DIRECTORY,
    BUSYBOX: fileOf('bookworm', 'bin/busybox'),
    NODE: process.execPath,
    TEST: file,
    // The guest is an enclosure by itself.
    TSMACVLAN_LAB: 'tsmacvlan-lab-guest',
  };
}

function diskParameters(image: string | undefined): Record<string, string> {
  return image === undefined ? {} : { ubd0: `/host${image}`, DISK: '/dev/ubda' };
}

interface RunningGuest {
  readonly events: Readable;
  readonly ended: Promise<void>;
  /** The last of what came out of its console. */
  readonly printed: () => string;
}

function bootUml(parameters: Record<string, string>, signal: AbortSignal): RunningGuest {
  const words = Object.entries(parameters).map(([key, value]) => `${key}=${value}`);
  // However this process ends, the kernel kills unshare (pdeathsig), and with it every process of the namespace.
  const unshare = ['unshare', '--mount', '--pid', '--fork', '--kill-child', '--propagation', 'private'];
  const boot = [join(import.meta.dirname, 'uml-boot.sh'), UML_DIRECTORY, ...words];
  const child = spawn('setpriv', ['--pdeathsig', 'KILL', ...unshare, ...boot], {
    stdio: ['ignore', 'pipe', 'pipe', 'pipe'],
    signal,
    killSignal: 'SIGKILL',
  });
  const ended = new Promise<void>((resolve) => {
    // An error here is the test's own signal, whose reason node:test tells.
    child.once('close', () => resolve()).once('error', () => resolve());
  });
  return { events: child.stdio[3] as Readable, ended, printed: tail(child) };
}

function tail(child: ChildProcess): () => string {
  let text = '';
  for (const stream of [child.stdout, child.stderr]) {
    stream?.setEncoding('utf8').on('data', (chunk: string) => {
      text = (text + chunk).slice(-8192);
    });
  }
  return () => text;
}

/** The built daemon on this machine, called as an engine calls it. */
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import { Agent, request } from 'node:http';
import { join } from 'node:path';
import { text } from 'node:stream/consumers';
import { setTimeout as sleep } from 'node:timers/promises';
import { output, run } from '../lab/command.ts';
import { inTurns, progress } from './figures.ts';

const PROGRAM = join(import.meta.dirname, '../../bin/tsmacvlan');
const FLOOR = join(import.meta.dirname, 'floor.ts');

/** Of the network that `makeNetwork` makes. */
export const NETWORK = 'bench';

/** One call; throws what is refused. */
export type Call = <T = unknown>(name: string, body?: object) => Promise<T>;

export interface Daemon {
  readonly process: ChildProcess;
  readonly call: Call;
}

/** `settings`: beside the usual ones. */
export async function withDaemon<T>(
  stateDirectory: string,
  measurement: (daemon: Daemon) => Promise<T>,
  settings: Record<string, string> = {},
): Promise<T> {
  const daemon = await startDaemon(stateDirectory, settings);
  try {
    return await measurement(daemon);
  } finally {
    await stopDaemon(daemon);
  }
}

export function pool(subnet: string): object {
  return { AddressSpace: 'TsmacvlanLocal', Pool: subnet, SubPool: '', Options: null, V6: false };
}

export async function startDaemon(stateDirectory: string, settings: Record<string, string> = {}): Promise<Daemon> {
  const socketPath = '/run/bench.sock';
  const env = { PATH: process.env.PATH, SOCKET: socketPath, STATE_DIR: stateDirectory, LOG_LEVEL: 'warn', ...settings };
  return answering(spawn(PROGRAM, ['serve'], { env, stdio: 'inherit' }), socketPath);
}

/** The plugin with canned answers (floor.ts), beside a daemon. */
export async function startFloor(): Promise<Daemon> {
  const socketPath = '/run/floor.sock';
  return answering(spawn(process.execPath, [FLOOR, socketPath, 'bench0'], { stdio: 'inherit' }), socketPath);
}

async function answering(child: ChildProcess, socketPath: string): Promise<Daemon> {
  const call = callerOf(socketPath);
  for (let attempt = 0; ; attempt++) {
    try {
      await call('Plugin.Activate');
      return { process: child, call };
    } catch (error) {
      if (attempt > 4000 || child.exitCode !== null) throw error;
      await sleep(2);
    }
  }
}

/** Calls over connections that are kept, as an engine's are. */
function callerOf(socketPath: string): Call {
  const agent = new Agent({ keepAlive: true, maxSockets: 64 });
  return async <T>(name: string, body?: object): Promise<T> => {
    const sent = request({
      socketPath,
      agent,
      path: `/${name}`,
      method: 'POST',
      headers: { Accept: 'application/vnd.docker.plugins.v1.2+json' },
    });
    const [response] = (await once(sent.end(body && JSON.stringify(body)), 'response')) as [
      Parameters<typeof text>[0] & { statusCode: number },
    ];
    const answer = await text(response);
    if (response.statusCode !== 200) throw new Error(`${name}: ${answer}`);
    return JSON.parse(answer) as T;
  };
}

export async function stopDaemon({ process: child }: Daemon): Promise<void> {
  child.kill('SIGTERM');
  if (child.exitCode === null) await once(child, 'exit');
}

export function residentMegabytes({ process: { pid } }: Daemon): number {
  return residentIn(readFileSync(`/proc/${pid}/status`, 'utf8'));
}

/** By its proc_pid_status(5). */
export function residentIn(status: string): number {
  return Number(/^VmRSS:\s+(\d+) kB$/m.exec(status)?.[1]) / 1024;
}

/** A parent for networks, and a namespace for what would be moved into containers; anew each time. */
export async function makeParent(): Promise<void> {
  for (const words of ['ip link delete bench0', 'ip netns delete bench']) await run(words.split(' '));
  await output('ip link add bench0 type veth peer name bench1'.split(' '));
  for (const name of ['bench0', 'bench1']) await output(['ip', 'link', 'set', name, 'up']);
  await output(['ip', 'netns', 'add', 'bench']);
}

/** A network of a /16 on the parent, with nothing on it. Answers its pool. */
export async function makeNetwork({ call }: Daemon): Promise<string> {
  const { PoolID } = await call<{ PoolID: string }>('IpamDriver.RequestPool', pool('10.17.0.0/16'));
  const IPv4Data = [{ AddressSpace: 'TsmacvlanLocal', Pool: '10.17.0.0/16', Gateway: '10.17.0.1/16' }];
  const Options = { 'com.docker.network.generic': { parent: 'bench0' }, 'com.docker.network.enable_ipv6': false };
  await call('NetworkDriver.CreateNetwork', { NetworkID: NETWORK, Options, IPv4Data, IPv6Data: [] });
  return PoolID;
}

/** Resident megabytes with a network and with so many endpoints on it. `claim`: their addresses are asked for before. */
export async function memoryOfEndpoints(
  daemon: Daemon,
  count: number,
  claim: boolean,
): Promise<{ before: number; after: number }> {
  const PoolID = await makeNetwork(daemon);
  const before = residentMegabytes(daemon);
  await inTurns(count, 8, async (number) => {
    const Address = `10.17.${4 + (number >> 8)}.${number & 255}`;
    if (claim) await daemon.call('IpamDriver.RequestAddress', { PoolID, Address, Options: null });
    const linkName = await makeEndpoint(daemon, endpointId(number), `${Address}/16`);
    // As an engine: into the container's namespace.
    await output(['ip', 'link', 'set', linkName, 'netns', 'bench']);
    progress('endpoints', number + 1, count);
  });
  return { before, after: residentMegabytes(daemon) };
}

export function endpointId(number: number): string {
  return number.toString(16).padStart(12, '0').padEnd(64, '0');
}

/** Makes one and joins it; answers the name of its link, which is still on the host. `Address` with its prefix length. */
export async function makeEndpoint({ call }: Daemon, EndpointID: string, Address: string): Promise<string> {
  const Interface = { Address, AddressIPv6: '', MacAddress: '' };
  await call('NetworkDriver.CreateEndpoint', { NetworkID: NETWORK, EndpointID, Interface, Options: {} });
  const joined = { NetworkID: NETWORK, EndpointID, SandboxKey: '/x', Options: {} };
  const { InterfaceName } = await call<{ InterfaceName: { SrcName: string } }>('NetworkDriver.Join', joined);
  return InterfaceName.SrcName;
}

/** What a test does with containers: run them, look at them, let them ping. */
import assert from 'node:assert/strict';
import type { Result } from './command.ts';
import type { Engine } from './engine.ts';

/** What `docker inspect` says of a container's attachment to one network. */
export interface Attachment {
  IPAddress: string;
  IPPrefixLen: number;
  Gateway: string;
  GlobalIPv6Address: string;
  IPv6Gateway: string;
  MacAddress: string;
}

interface Inspected {
  readonly State: { readonly Pid: number; readonly Running: boolean };
  readonly NetworkSettings: { readonly Networks: Readonly<Record<string, Attachment>> };
}

const MOST_IN_FLIGHT = 3;
const PLAIN_OPTIONS = ['--net', '--ip', '--ip6', '--restart'];

/**
 * Starts a container that waits; `words` are further options of docker run, as `--net lan --ip 192.0.2.9`. Those that most tests give
 * are told to the engine as docker run tells them, for a tenth of the price of the command.
 */
export async function runIdle(engine: Engine, name: string, words: string): Promise<void> {
  const wishes = wishesOf(words);
  if (wishes) return engine.runIdle(name, wishes);
  // busybox as process 1 ignores SIGTERM: without a stop timeout of its own each stop takes 10 s.
  const options = ['--name', name, '--stop-timeout', '0', ...words.split(' ')];
  await engine.must('run', '-d', ...options, 'busybox', 'sleep', '3600');
}

/** The fields of a container's configuration that these words of docker run fill; undefined when some other word is among them. */
function wishesOf(words: string): object | undefined {
  const given = words.split(' ');
  const options = new Map(given.flatMap((word, index) => (index % 2 === 0 ? [[word, given[index + 1] ?? '']] : [])));
  const [network, restart] = [options.get('--net'), options.get('--restart')];
  if (
    network === undefined ||
    network === 'none' ||
    ![...options.keys()].every((option) => PLAIN_OPTIONS.includes(option))
  )
    return undefined;
  const [IPv4Address, IPv6Address] = [options.get('--ip'), options.get('--ip6')];
  return {
    HostConfig: { NetworkMode: network, ...(restart && { RestartPolicy: { Name: restart } }) },
    NetworkingConfig: { EndpointsConfig: { [network]: { IPAMConfig: { IPv4Address, IPv6Address } } } },
  };
}

export async function attachment(engine: Engine, container: string, network: string): Promise<Attachment> {
  const { Networks } = (await inspect(engine, container)).NetworkSettings;
  const found = Networks[network];
  assert.ok(found, `${container} is not on ${network}: ${JSON.stringify(Networks)}`);
  return found;
}

/** Without the docker command, which costs more than the answer. */
function inspect(engine: Engine, container: string): Promise<Inspected> {
  return engine.inspect(`/containers/${container}/json`);
}

/** False also when there is none of that name, or no engine. */
export function isRunning(engine: Engine, container: string): Promise<boolean> {
  return inspect(engine, container).then(
    ({ State }) => State.Running,
    () => false,
  );
}

/** As `docker rm -f`; those that are gone already are no fault. */
export async function removeContainers(engine: Engine, ...containers: string[]): Promise<void> {
  for (const container of containers)
    await engine.api('DELETE', `/containers/${container}?force=1`).catch((error: unknown) => {
      if (!/No such container/.test(String(error))) throw error;
    });
}

/** Removes all containers, and all networks but the engine's own. */
export async function clearEngine(engine: Engine): Promise<void> {
  const containers = await engine.api<{ Id: string }[]>('GET', '/containers/json?all=1');
  await Promise.all(containers.map(({ Id }) => engine.api('DELETE', `/containers/${Id}?force=1`)));
  await engine.api('POST', '/networks/prune');
}

/** Runs a program of a container in its namespaces, as docker exec does for the price of half a container; fails when it does not run. */
export async function runInside(engine: Engine, container: string, ...argv: string[]): Promise<Result> {
  const pid = await inspect(engine, container).then(
    ({ State }) => State.Pid,
    () => 0,
  );
  return engine.host.run(['nsenter', '-t', String(pid), '-n', '-m', ...argv]);
}

/** Whether a running container gets an answer from an address or a name within so many seconds. */
export async function pings(engine: Engine, container: string, target: string, withinS = 10): Promise<boolean> {
  // The first of two may be lost while the neighbour's address is being resolved.
  const ping = ['ping', '-c', '2', '-i', '0.2', '-W', String(withinS), target];
  const { stdout } = await runInside(engine, container, ...ping);
  return /[12] packets received/.test(stdout);
}

export async function assertPings(engine: Engine, container: string, target: string): Promise<void> {
  assert.ok(await pings(engine, container, target), `${container} gets no answer from ${target}`);
}

/** A container that pings all the time, `busybox ping -i 0.2`, has lost nothing, save what was in flight when it was asked; ends it. */
export async function assertUndisturbed(engine: Engine, container: string): Promise<void> {
  await engine.must('kill', '--signal', 'INT', container);
  await engine.must('wait', container);
  assertNoGap(await engine.must('logs', container));
  await engine.must('rm', container);
}

/** In what `busybox ping` printed; it sends by the clock, and when it is interrupted some answers may not have been read. */
export function assertNoGap(printed: string): void {
  const answered = Array.from(printed.matchAll(/ seq=(\d+) /g), ([, number]) => Number(number));
  assert.deepEqual(answered, [...answered.keys()], printed.slice(-2000));
  const sent = Number(/(\d+) packets transmitted/.exec(printed)?.[1]);
  assert.ok(sent > 0 && sent - answered.length <= MOST_IN_FLIGHT, printed.slice(-2000));
}

export async function assertNoPing(engine: Engine, container: string, target: string): Promise<void> {
  assert.ok(!(await pings(engine, container, target, 1)), `${container} gets an answer from ${target}`);
}

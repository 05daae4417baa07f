/** What a test does with containers: run them, look at them, let them ping. */
import assert from 'node:assert/strict';
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

/** Starts a container that waits; `words` are further options of docker run, as `--net lan --ip 192.0.2.9`. */
export async function runIdle(engine: Engine, name: string, words: string): Promise<void> {
  // busybox as process 1 ignores SIGTERM: without a stop timeout of its own each stop takes 10 s.
  const options = ['--name', name, '--stop-timeout', '0', ...words.split(' ')];
  await engine.must('run', '-d', ...options, 'busybox', 'sleep', '3600');
}

export async function attachment(engine: Engine, container: string, network: string): Promise<Attachment> {
  const networks = await engine.must('inspect', '--format', '{{json .NetworkSettings.Networks}}', container);
  const found = (JSON.parse(networks) as Record<string, Attachment>)[network];
  assert.ok(found, `${container} is not on ${network}: ${networks}`);
  return found;
}

/** Whether a running container gets an answer from an address or a name. */
export async function pings(engine: Engine, container: string, target: string): Promise<boolean> {
  // The first of two may be lost while the neighbour's address is being resolved.
  const { stdout } = await engine.docker('exec', container, 'ping', '-c', '2', '-i', '0.2', '-W', '1', target);
  return /[12] packets received/.test(stdout);
}

export async function assertPings(engine: Engine, container: string, target: string): Promise<void> {
  assert.ok(await pings(engine, container, target), `${container} gets no answer from ${target}`);
}

export async function assertNoPing(engine: Engine, container: string, target: string): Promise<void> {
  assert.ok(!(await pings(engine, container, target)), `${container} gets an answer from ${target}`);
}

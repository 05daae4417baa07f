/** A registry on 127.0.0.1:5000 of a host, where engines ask for no TLS. */
import { spawn } from 'node:child_process';
import { mkdirSync, writeFileSync } from 'node:fs';
import { createInterface } from 'node:readline';
import type { Namespace } from './namespace.ts';
import { programOf } from './packages.ts';

export const REGISTRY = '127.0.0.1:5000';

const DIRECTORY = '/run/registry';
const START_TIMEOUT_MS = 60_000;
const CONFIGURATION = `version: 0.1
storage: { filesystem: { rootdirectory: ${DIRECTORY} } }
http: { addr: ${REGISTRY} }
`;

/** All registries of an enclosure serve the same files, and live as long as it. */
export async function startRegistry(namespace: Namespace): Promise<void> {
  mkdirSync(DIRECTORY, { recursive: true });
  writeFileSync(`${DIRECTORY}.yml`, CONFIGURATION);
  const [command = '', ...args] = namespace.enter([programOf('registry'), 'serve', `${DIRECTORY}.yml`]);
  const registry = spawn(command, args, { stdio: ['ignore', 'ignore', 'pipe'], timeout: 0 });
  await untilPrinted(registry.stderr, 'listening on');
  registry.stderr.resume();
}

async function untilPrinted(stream: NodeJS.ReadableStream, words: string): Promise<void> {
  const { promise, resolve, reject } = Promise.withResolvers<void>();
  const printed: string[] = [];
  const fail = () => reject(new Error(`the registry did not start:\n${printed.join('\n')}`));
  const lines = createInterface(stream)
    .on('line', (line) => (line.includes(words) ? resolve() : printed.push(line)))
    .on('close', fail);
  const timer = setTimeout(fail, START_TIMEOUT_MS);
  await promise.finally(() => {
    clearTimeout(timer);
    lines.removeAllListeners('close');
  });
}

/**
 * What a container with CAP_NET_ADMIN can do to whoever listens to the links of all namespaces: in its own it makes and removes
 * links, and changes one, as fast as the kernel does that.
 */
import { spawn } from 'node:child_process';
import { once } from 'node:events';

/** Longer no flood lasts, whoever forgets it. */
const MOST_S = 60;

const source = (file: string) => JSON.stringify(import.meta.resolve(`../../src/kernel/${file}.ts`));

/** A thousand changes in each system call, and some links between them. */
const PROGRAM = `
  import { readFileSync } from 'node:fs';
  import * as libc from ${source('libc')};
  import * as message from ${source('message')};
  import { encodeMessage, NLM_F_CREATE } from ${source('netlink')};
  import { openSocket } from ${source('rtnetlink')};
  const fd = openSocket();
  const index = Number(process.argv[1]);
  const encode = (requests) => Buffer.concat(requests.map((request, number) => encodeMessage(request, number)));
  const numbers = (length) => Array.from({ length }, (_, number) => number);
  const names = numbers(10).map((number) => message.linkName('much' + number));
  const changed = encode(numbers(1000).map((number) =>
    ({ type: message.RTM_SETLINK, flags: 0, body: message.linkBody({ index }, message.linkAlias('a' + number)) })));
  const made = encode(names.map((name) =>
    ({ type: message.RTM_NEWLINK, flags: NLM_F_CREATE, body: message.linkBody({}, name, message.linkInfo('bridge')) })));
  const removed = encode(names.map((name) => ({ type: message.RTM_DELLINK, flags: 0, body: message.linkBody({}, name) })));
  const endMs = performance.now() + ${MOST_S * 1000};
  for (let round = 0; performance.now() < endMs; round++) {
    libc.send(fd, changed);
    if (round % 200 === 0) libc.send(fd, made);
    if (round % 200 === 100) libc.send(fd, removed);
  }`;

export class LinkFlood {
  readonly #child;
  readonly #end;

  /** `linkIndex`: of a link in that namespace that is up. */
  constructor(namespace: string, linkIndex: number) {
    const program = [process.execPath, '--input-type=module', '-e', PROGRAM, String(linkIndex)];
    this.#child = spawn('nsenter', [`--net=/run/netns/${namespace}`, ...program], { stdio: 'inherit' });
    this.#end = once(this.#child, 'exit');
  }

  /** Whether it was going on until now. */
  async end(): Promise<boolean> {
    const { exitCode, signalCode } = this.#child;
    const isRunning = exitCode === null && signalCode === null;
    if (isRunning) this.#child.kill('SIGKILL');
    await this.#end;
    return isRunning;
  }
}

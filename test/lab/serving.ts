/** `tsmacvlan serve`, the built bundle, as a process in the test's own namespaces, and calls to it as an engine makes them. */
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { type Agent, type IncomingMessage, request } from 'node:http';
import { join } from 'node:path';
import { text } from 'node:stream/consumers';
import { setTimeout as sleep } from 'node:timers/promises';

/** The sources would take three times as much of a core to start. */
export const BUNDLE = join(import.meta.dirname, '../../dist/tsmacvlan.cjs');
/** Characters. */
const MOST_SAID = 65_536;
const READY_TIMEOUT_MS = 60_000;

export interface Reply {
  readonly status: number;
  readonly body: Readonly<Record<string, unknown>>;
  /** What went wrong, as the engine shows it; empty when nothing did. */
  readonly sentence: string;
}

export class Serving {
  readonly directory: string;
  /** All that it has warned of. */
  log = '';
  /** The end of what it has said besides. */
  said = '';
  readonly #process: ChildProcess;
  /** It has ended, and all it had printed is in the log. */
  readonly #closed: Promise<unknown>;

  private constructor(directory: string, settings: Record<string, string>, entry: string) {
    this.directory = directory;
    const { PATH, NODE_COMPILE_CACHE } = process.env;
    const env = { PATH, NODE_COMPILE_CACHE, SOCKET: this.socket, STATE_DIR: this.state, PROBE: 'off', ...settings };
    // Only another entry than the program's own has anything to say to its parent.
    const channel = entry === BUNDLE ? 'ignore' : 'ipc';
    this.#process = spawn(process.execPath, [entry, 'serve'], { env, stdio: ['ignore', 'pipe', 'pipe', channel] });
    this.#process.stderr?.setEncoding('utf8').on('data', (lines: string) => (this.log += lines));
    this.#process.stdout
      ?.setEncoding('utf8')
      .on('data', (lines: string) => (this.said = (this.said + lines).slice(-MOST_SAID)));
    this.#closed = once(this.#process, 'close');
  }

  /** Its socket and its state lie in the directory. Answers when it answers, or when it has ended. */
  static async start(directory: string, settings: Record<string, string> = {}, entry = BUNDLE): Promise<Serving> {
    const serving = new Serving(directory, settings, entry);
    const deadlineMs = performance.now() + READY_TIMEOUT_MS;
    while (serving.isRunning() && !(await serving.#answers())) {
      if (performance.now() > deadlineMs) throw new Error(`serve does not answer:\n${serving.log}`);
      await sleep(20);
    }
    return serving;
  }

  get socket(): string {
    return join(this.directory, 's.sock');
  }

  get state(): string {
    return join(this.directory, 'state');
  }

  get pid(): number {
    return this.#process.pid ?? 0;
  }

  /** Nobody takes any more what it says. */
  stopReading(): void {
    for (const pipe of [this.#process.stdout, this.#process.stderr]) pipe?.destroy();
  }

  isRunning(): boolean {
    return this.#process.exitCode === null && this.#process.signalCode === null;
  }

  /** Answers the exit code, null after a signal that it did not handle. */
  async stop(signal: NodeJS.Signals = 'SIGTERM'): Promise<number | null> {
    if (this.isRunning()) this.#process.kill(signal);
    await this.#closed;
    return this.#process.exitCode;
  }

  /** What it answers on the channel of its entry; undefined when it ends before. */
  async tell<Answer>(order: object): Promise<Answer | undefined> {
    const { promise, resolve } = Promise.withResolvers<Answer | undefined>();
    const answer = (message: unknown) => resolve(message as Answer);
    const end = () => resolve(undefined);
    // An order to one that dies at this moment is no fault of the test: its end is the answer.
    this.#process
      .once('message', answer)
      .once('exit', end)
      .send(order, () => undefined);
    return promise.finally(() => this.#process.off('message', answer).off('exit', end));
  }

  /** An engine that tries again sends no body (moby#35459). Rejects when the connection breaks. */
  async call(name: string, body?: object, agent: Agent | false = false): Promise<Reply> {
    const call = request({ socketPath: this.socket, path: `/${name}`, method: 'POST', agent });
    // A connection that breaks behind the reply tells nobody.
    call.on('error', () => undefined);
    const [response] = (await once(call.end(JSON.stringify(body)), 'response')) as [IncomingMessage];
    const answer = JSON.parse(await text(response)) as Record<string, unknown>;
    return { status: response.statusCode ?? 0, body: answer, sentence: (answer['Err'] ?? '') as string };
  }

  async #answers(): Promise<boolean> {
    return this.call('NetworkDriver.GetCapabilities', {}).then(
      () => true,
      () => false,
    );
  }
}

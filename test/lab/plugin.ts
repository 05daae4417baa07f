/** The daemon on a host, as an administrator starts it: the built bundle, with its settings in the environment. */
import { existsSync, readFileSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import type { Conflict } from '../../src/model.ts';
import { STATE } from '../../src/server/client.ts';
import { output, type Result } from './command.ts';
import { exchange } from './exchange.ts';
import type { Daemon, Host } from './host.ts';

const BUNDLE = process.env.BUNDLE ?? join(import.meta.dirname, '../../dist/tsmacvlan.cjs');
const SOCKET = '/run/docker/plugins/tsmacvlan.sock';
const STATE_DIRECTORY = '/run/disk/tsmacvlan';
const READY_TIMEOUT_MS = 60_000;
const STOP_TIMEOUT_MS = 60_000;
const ANSWER_TIMEOUT_MS = 2000;

export class Plugin {
  readonly host: Host;
  private readonly settings: Record<string, string>;
  private daemon: Daemon | undefined;

  private constructor(host: Host, settings: Record<string, string>) {
    this.host = host;
    this.settings = settings;
  }

  /** Starts the daemon with these settings beside the lab's own; answers when it answers calls. */
  static async start(host: Host, settings: Record<string, string> = {}): Promise<Plugin> {
    if (!existsSync(BUNDLE)) throw new Error('dist/tsmacvlan.cjs is missing; run make build');
    const plugin = new Plugin(host, { SOCKET, STATE_DIR: STATE_DIRECTORY, LOG_LEVEL: 'debug', ...settings });
    await plugin.start();
    return plugin;
  }

  async start(): Promise<void> {
    const left = madeAtMs(this.socket);
    this.daemon = await this.host.start('tsmacvlan', [process.execPath, BUNDLE, 'serve'], this.environment());
    const deadlineMs = Date.now() + READY_TIMEOUT_MS;
    // A question to nobody costs as much as ten looks at the file; one that a killed daemon left may be there.
    while (madeAtMs(this.socket) === left || !(await this.answers())) {
      if (!this.daemon.isRunning()) throw new Error(`tsmacvlan serve ended:\n${this.log().slice(-2000)}`);
      if (Date.now() > deadlineMs) throw new Error(`tsmacvlan serve does not answer:\n${this.log().slice(-2000)}`);
      await sleep(10);
    }
  }

  async stop(signal: 'SIGTERM' | 'SIGKILL' = 'SIGTERM'): Promise<void> {
    await this.daemon?.kill(signal);
    const lateMs = sleep(STOP_TIMEOUT_MS, 'late', { ref: false });
    if ((await Promise.race([this.daemon?.ended, lateMs])) === 'late') {
      throw new Error(`tsmacvlan serve did not end in ${STOP_TIMEOUT_MS} ms`);
    }
  }

  /** It stands still, as when its host is suspended, until thaw(). */
  async freeze(): Promise<void> {
    await this.daemon?.kill('SIGSTOP');
  }

  async thaw(): Promise<void> {
    await this.daemon?.kill('SIGCONT');
  }

  async restart(signal?: 'SIGTERM' | 'SIGKILL'): Promise<void> {
    await this.stop(signal);
    await this.start();
  }

  /** The output of another command of the executable: `plugin.command('map')`. */
  command(...words: string[]): Promise<string> {
    // It stands outside the host, where disk and sockets have other paths; this machine's own Docker is nobody's to ask.
    const places = {
      STATE_DIR: this.host.file(STATE_DIRECTORY),
      SOCKET: this.socket,
      DOCKER_HOST: `unix://${this.host.file('/run/docker.sock')}`,
    };
    const env = { ...this.environment(), ...places };
    return output([process.execPath, BUNDLE, ...words], { env });
  }

  /** The same on the host itself, from which etcd and the LAN can be reached; whatever its exit code is. */
  commandInside(...words: string[]): Promise<Result> {
    return this.host.run([process.execPath, BUNDLE, ...words], { env: this.environment() });
  }

  /** What `conflicts --json` prints, asked for without a program, which takes a tenth of a second of a core: for who looks again and again. */
  async conflicts(): Promise<Conflict[]> {
    const body = JSON.stringify({ Tables: ['conflicts'] });
    const { status, text } = await exchange(this.socket, { path: `/${STATE}`, body });
    if (status !== 200) throw new Error(`${STATE}: ${text}`);
    return (JSON.parse(text) as { Tables: { conflicts: Conflict[] } }).Tables.conflicts;
  }

  /** Of another command of the executable. */
  commandLine(...words: string[]): string[] {
    return [process.execPath, BUNDLE, ...words];
  }

  /** With other settings from its next start on. */
  set(settings: Record<string, string>): void {
    Object.assign(this.settings, settings);
  }

  /** What the daemon occupies at this moment (VmRSS). */
  async memoryMb(): Promise<number> {
    return Math.round((await this.status('VmRSS')) / 1024);
  }

  /** How often the daemon's event loop has slept, and was woken (voluntary_ctxt_switches). */
  wakings(): Promise<number> {
    return this.status('voluntary_ctxt_switches');
  }

  /** A number that the kernel tells of the daemon (proc_pid_status(5)). */
  private async status(name: string): Promise<number> {
    const { stdout } = await this.host.run(['cat', `/proc/${this.daemon?.pid}/status`]);
    return Number(new RegExp(`^${name}:\\s+(\\d+)`, 'm').exec(stdout)?.[1]);
  }

  /** The path, outside, of what the daemon remembers. */
  get stateFile(): string {
    return join(this.host.file(STATE_DIRECTORY), 'tsmacvlan.db');
  }

  /** Everything the daemon has written. */
  log(): string {
    return readFileSync(join(this.host.directory, 'log/tsmacvlan.log'), 'utf8');
  }

  /** Of the daemon, and of commands beside it. */
  environment(): NodeJS.ProcessEnv {
    const { PATH, NODE_COMPILE_CACHE } = process.env;
    return { PATH, NODE_COMPILE_CACHE, ...this.settings };
  }

  private async answers(): Promise<boolean> {
    const question = { path: '/Plugin.Activate', signal: AbortSignal.timeout(ANSWER_TIMEOUT_MS) };
    return exchange(this.socket, question).then(
      ({ status }) => status === 200,
      () => false,
    );
  }

  /** Its path, outside. */
  private get socket(): string {
    return this.host.file(this.settings.SOCKET ?? SOCKET);
  }
}

function madeAtMs(path: string): number | undefined {
  return statSync(path, { throwIfNoEntry: false })?.ctimeMs;
}

/** A Docker engine of a chosen version on a host, with a containerd of its own and the image `busybox`. */
import { existsSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { output, run, type Result, type RunOptions } from './command.ts';
import { labCgroup } from './enclosure.ts';
import { exchange } from './exchange.ts';
import type { Daemon, Host } from './host.ts';
import { BUSYBOX_ARCHIVE, environmentOf, fileOf, type Suite } from './packages.ts';

/** The Debian suite that brings each version. */
export const SUITE_OF = { '20.10.24': 'bookworm', '26.1.5': 'trixie', '28.5.2': 'forky' } as const satisfies Record<
  string,
  Suite
>;

export type Version = keyof typeof SUITE_OF;

/** An engine of a swarm without quorum waits 20 s for it; all of it may take long on a busy machine. */
const READY_TIMEOUT_MS = 180_000;
/** An engine gives its containers and its swarm 15 s each, and then ends by force. */
const STOP_TIMEOUT_MS = 120_000;
const PING_TIMEOUT_MS = 2000;
/** An engine that dies at its start is started again as by the unit file that it comes with: RestartSec=2, StartLimitBurst=3. */
const RESTART_MS = 2000;
const MOST_STARTS = 3;
/**
 * An engine that could not start a managed plugin calls it all the same, and dies: remote.Register, which is remote.Init in 20.10
 * (libnetwork/drivers/remote/driver.go), takes a client that is made only after the plugin's container (pluginPostStart of
 * plugin/manager_linux.go). docs/install.md says when a plugin that is well is not started.
 */
const PLUGIN_PANIC =
  /nil pointer dereference[^]*plugins\.\(\*Client\)\.callWithRetry\(0x0,[^]*drivers\/remote\.(Init|Register)\b/;
/**
 * Its side for Kubernetes, which no engine asks, takes a fifth of a core's second at each start and looks at all there is every 10 s. Its
 * collector sleeps for fifty times as long as it worked last, which is some milliseconds here, and wakes to find nothing (gcScheduler.run
 * of gc/scheduler/scheduler.go): 1 or 2 % of a core for each engine. Without a threshold it sleeps for a second.
 */
const CONTAINERD_CONFIGURATION = `version = 2
disabled_plugins = ["io.containerd.grpc.v1.cri"]
[plugins."io.containerd.gc.v1.scheduler"]
pause_threshold = 0.0
`;
const CONTAINERD_SETTINGS = '/run/containerd.toml';
/** Docker's own filter of system calls has nothing to do with networks, and compiling it is a tenth of what each container costs. */
const WITHOUT_FILTER = JSON.stringify({ defaultAction: 'SCMP_ACT_ALLOW' });
const SECCOMP_PROFILE = '/run/seccomp.json';
/** An engine gives a plugin that is away up after 15 s a call, and 60 s to begin with. */
const ANSWER_TIMEOUT_MS = 120_000;

export class Engine {
  readonly host: Host;
  readonly version: Version;
  private readonly env: NodeJS.ProcessEnv;
  private readonly options: string[];
  private dockerd: Daemon | undefined;
  /** How much its log held when dockerd was started last. */
  private before = 0;

  private constructor(host: Host, version: Version, options: string[]) {
    this.host = host;
    this.version = version;
    this.options = options;
    this.env = {
      ...environmentOf(SUITE_OF[version]),
      HOME: '/nonexistent',
      TMPDIR: '/run/disk/tmp',
      DOCKER_HOST: `unix://${host.file('/run/docker.sock')}`,
    };
  }

  /** Starts containerd and dockerd and loads the image; answers when the engine does. */
  static async start(host: Host, version: Version, options: string[] = []): Promise<Engine> {
    const engine = new Engine(host, version, options);
    writeFileSync(host.file(CONTAINERD_SETTINGS), CONTAINERD_CONFIGURATION);
    writeFileSync(host.file(SECCOMP_PROFILE), WITHOUT_FILTER);
    // An engine that starts containerd itself needs up to 50 s to find it again after SIGKILL.
    const containerd = [
      '--config',
      CONTAINERD_SETTINGS,
      '--root',
      '/run/disk/containerd',
      '--state',
      '/run/containerd',
      '--address',
      '/run/containerd.sock',
    ];
    await host.start(
      'containerd',
      [fileOf('bookworm', 'usr/bin/containerd'), ...containerd, '--log-level', 'warn'],
      engine.env,
    );
    await engine.start();
    await engine.inspect('/images/busybox/json').catch(() => engine.loadImage());
    return engine;
  }

  /** Starts dockerd, after `stop`. One that dies of a plugin that it could not start gets what systemd gives it: two more starts. */
  async start(): Promise<void> {
    for (let starts = 1; !(await this.comesUp()); starts++) {
      const words = this.lastWords();
      if (starts === MOST_STARTS || !PLUGIN_PANIC.test(words)) throw new Error(words);
      console.log(`note: dockerd ${this.version} died of a plugin that it could not start: ${this.pluginFaults()}`);
      await sleep(RESTART_MS);
    }
  }

  /** Ends dockerd, gracefully or with SIGKILL; containers of a killed engine live on. */
  async stop(signal: 'SIGTERM' | 'SIGKILL' = 'SIGTERM'): Promise<void> {
    await this.dockerd?.kill(signal);
    const lateMs = sleep(STOP_TIMEOUT_MS, 'late', { ref: false });
    if ((await Promise.race([this.dockerd?.ended, lateMs])) === 'late') {
      throw new Error(`dockerd ${this.version} did not end in ${STOP_TIMEOUT_MS} ms`);
    }
  }

  async restart(signal?: 'SIGTERM' | 'SIGKILL'): Promise<void> {
    await this.stop(signal);
    await this.start();
  }

  /** Runs the docker command of this engine's version. */
  docker(...args: string[]): Promise<Result> {
    return this.dockerWith({}, args);
  }

  async dockerWith(options: RunOptions, args: string[]): Promise<Result> {
    const result = await run([this.cli(), ...args], { ...options, env: this.env });
    if (result.code === 0 || this.dockerd?.isRunning() !== false) return result;
    return { ...result, stderr: `${result.stderr}\n${this.lastWords()}` };
  }

  /** Runs a docker command that must succeed and answers its output. */
  must(...args: string[]): Promise<string> {
    return output([this.cli(), ...args], { env: this.env });
  }

  /**
   * Calls the engine's API without the cost of a docker command; throws what it refuses. Its version is one that every
   * engine here speaks.
   */
  api<T = unknown>(method: string, path: string, body?: object): Promise<T> {
    return this.call(method, `/v1.41${path}`, body);
  }

  /** What `docker inspect` prints of it, `/containers/ID/json` or `/networks/ID`: in the newest version that this engine speaks. */
  inspect<T>(path: string): Promise<T> {
    return this.call('GET', path);
  }

  /** A container that waits, as `docker run -d --stop-timeout 0` makes and starts it; `wishes` are further fields of its configuration. */
  async runIdle(name: string, wishes: object): Promise<void> {
    const configuration = { Image: 'busybox', Cmd: ['sleep', '3600'], StopTimeout: 0, ...wishes };
    await this.call('POST', `/containers/create?name=${name}`, configuration);
    await this.call('POST', `/containers/${name}/start`);
  }

  /** Runs a shell script in which `docker` is this engine's command; the first failure ends it. */
  shell(script: string): Promise<Result> {
    return run(['sh', '-euc', script], { env: this.env });
  }

  /** The same as somebody at the host types it, in a directory there; `programs` are found before the engine's. */
  shellOnHost(script: string, directory: string, programs: string, env: NodeJS.ProcessEnv = {}): Promise<Result> {
    const { DOCKER_HOST: _, ...own } = this.env;
    const words = ['sh', '-euc', `cd ${directory}\n${script}`];
    return this.host.run(words, { env: { ...own, ...env, PATH: `${programs}:${own.PATH}` } });
  }

  /** Everything dockerd has written. */
  log(): string {
    const path = join(this.host.directory, 'log/dockerd.log');
    return existsSync(path) ? readFileSync(path, 'utf8') : '';
  }

  /** Answers when the engine does, or when it has ended, and which of the two. */
  private async comesUp(): Promise<boolean> {
    rmSync(this.socket, { force: true });
    this.before = this.log().length;
    this.dockerd = await this.host.start('dockerd', this.commandLine(), this.env);
    const deadlineMs = Date.now() + READY_TIMEOUT_MS;
    while (!existsSync(this.socket) || !(await this.answers())) {
      if (!this.dockerd.isRunning()) return false;
      if (Date.now() > deadlineMs) throw new Error(`dockerd ${this.version} is not ready:\n${this.log().slice(-2000)}`);
      await sleep(20);
    }
    return true;
  }

  /** Of an engine that has ended: the panic, when it died of one, else the end of its log. */
  private lastWords(): string {
    const log = this.log().slice(this.before);
    const panicAt = log.search(/^(panic|fatal error|SIG\w+): /m);
    const words = panicAt < 0 ? log.slice(-2000) : log.slice(panicAt, panicAt + 4000);
    return `dockerd ${this.version} ended:\n${words}`;
  }

  private pluginFaults(): string {
    const lines = this.log().slice(this.before).split('\n');
    return lines.filter((line) => /failed to (enable|restore) plugin/i.test(line)).join('\n');
  }

  private cli(): string {
    return fileOf(SUITE_OF[this.version], 'usr/bin/docker');
  }

  private commandLine(): string[] {
    const paths = ['--data-root', '/run/disk/docker', '--exec-root', '/run/docker', '--pidfile', '/run/docker.pid'];
    const sockets = ['--containerd', '/run/containerd.sock', '--host', 'unix:///run/docker.sock'];
    // The host has no route to anywhere and no rules of its own: the engine shall not make any.
    const network = ['--bridge', 'none', '--iptables=false', '--ip6tables=false'];
    const dockerd = fileOf(SUITE_OF[this.version], 'usr/sbin/dockerd');
    const containers = ['--cgroup-parent', labCgroup(), '--seccomp-profile', SECCOMP_PROFILE];
    return [dockerd, ...paths, ...sockets, ...network, ...containers, ...this.options];
  }

  private async call<T>(method: string, path: string, body?: object): Promise<T> {
    const signal = AbortSignal.timeout(ANSWER_TIMEOUT_MS);
    const headers = { 'content-type': 'application/json' };
    const question = { method, path, headers, body: body && JSON.stringify(body), signal };
    const { status, text } = await exchange(this.socket, question);
    if (status >= 400) throw new Error(`${method} ${path}: ${messageIn(text)}`);
    return (text ? JSON.parse(text) : undefined) as T;
  }

  private async answers(): Promise<boolean> {
    const ping = { method: 'GET', path: '/_ping', signal: AbortSignal.timeout(PING_TIMEOUT_MS) };
    return exchange(this.socket, ping).then(
      ({ status }) => status === 200,
      () => false,
    );
  }

  private get socket(): string {
    return this.host.file('/run/docker.sock');
  }

  private async loadImage(): Promise<void> {
    const changes = encodeURIComponent('CMD ["sh"]');
    const path = `/images/create?fromSrc=-&repo=busybox&changes=${changes}`;
    const headers = { 'content-type': 'application/x-tar' };
    const { text } = await exchange(this.socket, { path, headers, body: readFileSync(BUSYBOX_ARCHIVE) });
    // It answers 200 before it has read the archive.
    if (text.includes('errorDetail')) throw new Error(`the image busybox: ${text}`);
  }
}

/** An engine's refusal in its own words, as the docker command prints them. */
function messageIn(answer: string): string {
  return answer.startsWith('{') ? (JSON.parse(answer) as { message: string }).message : answer.trim();
}

/** Whether api() failed because the engine gave no answer. */
export function isLate(error: unknown): boolean {
  return error instanceof Error && error.name === 'AbortError';
}

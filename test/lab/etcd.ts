/** etcd members, as Debian packages them: on this machine's loopback, or on one address of a namespace. */
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { createWriteStream } from 'node:fs';
import { rm } from 'node:fs/promises';
import { connect } from 'node:net';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { type Result, run } from './command.ts';
import type { Namespace } from './namespace.ts';
import { etcdProgram } from './packages.ts';

interface Plan {
  /** For the members' data; where it is on a tmpfs a claim costs no disk. */
  readonly directory: string;
  readonly members?: number;
  /** Files of the server's certificate and key and of the authority; with `client` clients must bring one, as that. */
  readonly tls?: {
    readonly cert: string;
    readonly key: string;
    readonly ca: string;
    readonly client: { readonly cert: string; readonly key: string } | null;
  };
  /** Bytes; etcd's own 2 GB otherwise. */
  readonly quota?: number;
  readonly firstPort?: number;
  readonly place?: { readonly namespace: Namespace; readonly address: string };
}

const READY_MS = 60_000;

export class EtcdCluster {
  readonly #plan: Plan;
  readonly #members: (ChildProcess | undefined)[];

  private constructor(plan: Plan) {
    this.#plan = plan;
    this.#members = Array.from({ length: plan.members ?? 1 });
  }

  /** Members that answer. */
  static async start(plan: Plan): Promise<EtcdCluster> {
    const cluster = new EtcdCluster(plan);
    for (const member of cluster.#members.keys()) cluster.startMember(member);
    try {
      await cluster.ready();
    } catch (error) {
      await cluster.stop();
      throw error;
    }
    return cluster;
  }

  get endpoints(): string[] {
    return [...this.#members.keys()].map((member) => `${this.#address}:${this.#port(member)}`);
  }

  /** As for STORE. */
  get url(): string {
    return `etcd://${this.endpoints.join(',')}`;
  }

  startMember(member: number): void {
    const log = createWriteStream(join(this.#plan.directory, `member${member}.log`), { flags: 'a' });
    const [command = '', ...flags] = this.#enter([etcdProgram('etcd'), ...this.#flags(member)]);
    const child = spawn(command, flags, { stdio: ['ignore', 'pipe', 'pipe'] });
    for (const stream of [child.stdout, child.stderr]) stream.pipe(log, { end: false });
    this.#members[member] = child;
  }

  signal(member: number, signal: NodeJS.Signals): void {
    this.#members[member]?.kill(signal);
  }

  async stopMember(member: number, signal: NodeJS.Signals = 'SIGKILL'): Promise<void> {
    const child = this.#members[member];
    this.#members[member] = undefined;
    if (child === undefined || child.exitCode !== null || child.signalCode !== null) return;
    child.kill(signal);
    child.kill('SIGCONT');
    await once(child, 'exit');
  }

  async stop(): Promise<void> {
    for (const member of this.#members.keys()) await this.stopMember(member);
  }

  /** The only member, which is stopped, will begin with what a snapshot holds. */
  async restore(snapshot: string): Promise<void> {
    await rm(this.#dataOf(0), { recursive: true });
    const kept = /^--(name|data-dir|initial-)/;
    await this.must('snapshot', 'restore', snapshot, ...this.#flags(0).filter((flag) => kept.test(flag)));
  }

  #dataOf(member: number): string {
    return join(this.#plan.directory, `member${member}`);
  }

  ctl(...words: string[]): Promise<Result> {
    const { tls } = this.#plan;
    const own = tls?.client ? [`--cert=${tls.client.cert}`, `--key=${tls.client.key}`] : [];
    // A certificate that has expired is what a test is about.
    const files = tls === undefined ? [] : ['--insecure-skip-tls-verify', ...own];
    const scheme = tls === undefined ? 'http' : 'https';
    const endpoints = this.endpoints.map((endpoint) => `${scheme}://${endpoint}`).join(',');
    const env = { ...process.env, ETCDCTL_API: '3' };
    return run(this.#enter([etcdProgram('etcdctl'), `--endpoints=${endpoints}`, ...files, ...words]), { env });
  }

  async must(...words: string[]): Promise<string> {
    const { code, stdout, stderr } = await this.ctl(...words);
    if (code !== 0) throw new Error(`etcdctl ${words.join(' ')}: ${stderr}`);
    return stdout.trim();
  }

  /** A figure of the members' own, summed over them: `metric('grpc_server_started_total', 'grpc_method="Txn"')`. */
  async metric(name: string, label = ''): Promise<number> {
    const texts = await Promise.all(
      this.endpoints.map(async (endpoint) => (await fetch(`http://${endpoint}/metrics`)).text()),
    );
    const lines = texts.flatMap((text) => text.split('\n')).filter((line) => /[{ ]/.exec(line)?.index === name.length);
    const values = lines.filter((line) => line.startsWith(name) && line.includes(label));
    return values.reduce((sum, line) => sum + Number(line.slice(line.lastIndexOf(' '))), 0);
  }

  /** Which member leads; waits while none does, as when this machine stood still and they choose anew. */
  async leader(): Promise<number> {
    const untilMs = performance.now() + READY_MS;
    for (;;) {
      const rows = (await this.ctl('endpoint', 'status')).stdout.split('\n').map((row) => row.split(', '));
      const url = rows.find(([, , , , isLeader]) => isLeader === 'true')?.[0] ?? '';
      const member = this.endpoints.findIndex((endpoint) => url.endsWith(endpoint));
      if (url !== '' && member >= 0) return member;
      if (performance.now() > untilMs) throw new Error('no leader');
      await sleep(100);
    }
  }

  async ready(): Promise<void> {
    const untilMs = performance.now() + READY_MS;
    for (;;) {
      if (await this.#answers()) return;
      if (performance.now() > untilMs) throw new Error('etcd does not answer');
      await sleep(100);
    }
  }

  /** Without a certificate that it takes from us, it is enough that it listens. */
  async #answers(): Promise<boolean> {
    if (this.#plan.tls?.client !== null) return (await this.ctl('--command-timeout=2s', 'get', 'x')).code === 0;
    const socket = connect(this.#port(0), this.#address);
    const isOpen = await once(socket, 'connect').then(
      () => true,
      () => false,
    );
    socket.destroy();
    return isOpen;
  }

  get #address(): string {
    return this.#plan.place?.address ?? '127.0.0.1';
  }

  #enter(argv: string[]): string[] {
    return this.#plan.place?.namespace.enter(argv) ?? argv;
  }

  #port(member: number): number {
    return (this.#plan.firstPort ?? 23790) + member * 10;
  }

  #flags(member: number): string[] {
    const { tls, quota } = this.#plan;
    const scheme = tls === undefined ? 'http' : 'https';
    const client = `${scheme}://${this.#address}:${this.#port(member)}`;
    const peer = (one: number) => `http://${this.#address}:${this.#port(one) + 1}`;
    const all = [...this.#members.keys()].map((one) => `member${one}=${peer(one)}`).join(',');
    return [
      `--name=member${member}`,
      `--data-dir=${this.#dataOf(member)}`,
      `--listen-client-urls=${client}`,
      `--advertise-client-urls=${client}`,
      `--listen-peer-urls=${peer(member)}`,
      `--initial-advertise-peer-urls=${peer(member)}`,
      `--initial-cluster=${all}`,
      '--log-level=warn',
      '--logger=zap',
      ...(quota === undefined ? [] : [`--quota-backend-bytes=${quota}`]),
      ...(tls === undefined ? [] : [`--cert-file=${tls.cert}`, `--key-file=${tls.key}`]),
      ...(tls?.client ? [`--trusted-ca-file=${tls.ca}`, '--client-cert-auth'] : []),
    ];
  }
}

/** etcd members, as Debian packages them: on this machine's loopback, or on one address of a namespace. */
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { createWriteStream, readFileSync } from 'node:fs';
import { rm } from 'node:fs/promises';
import { connect } from 'node:net';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { type Result, run } from './command.ts';
import type { Namespace } from './namespace.ts';
import { COLLECTS_LATE, etcdProgram } from './packages.ts';

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

/** Of members, and of etcdctl. */
const environment = () => ({ ...process.env, ...COLLECTS_LATE, ETCDCTL_API: '3' });

export class EtcdCluster {
  /** `root:r00t`, for etcdctl; empty where nobody has to log in. */
  login = '';
  readonly #plan: Plan;
  readonly #members: (ChildProcess | undefined)[];
  /** Members that have become clusters of their own. */
  readonly #strangers = new Set<number>();

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

  startMember(member: number, more: readonly string[] = []): void {
    const log = createWriteStream(this.#logOf(member), { flags: 'a' });
    const [command = '', ...flags] = this.#enter([etcdProgram('etcd'), ...this.#flags(member), ...more]);
    const child = spawn(command, flags, { stdio: ['ignore', 'pipe', 'pipe'], env: environment() });
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

  /** A member whose data is gone, started by somebody who did not read how it joins the others again. */
  async replaceByStranger(member: number): Promise<void> {
    await this.#wipe(member);
    this.#strangers.add(member);
    this.startMember(member);
  }

  /** As the documentation of etcd says: removed, added, and started with an empty directory. */
  async replace(member: number): Promise<void> {
    // A stranger would list itself.
    await this.#wipe(member);
    this.#strangers.delete(member);
    const lines = (await this.#persist('member', 'list')).split('\n').map((line) => line.split(', '));
    // One that was added and never started has no name.
    const isIt = (words: readonly string[]) => words.some((word) => word === this.#peer(member));
    const id = lines.find(isIt)?.[0] ?? '';
    if (id === '') throw new Error(`member ${member} is not in the list`);
    await this.#persist('member', 'remove', id);
    await this.#persist('member', 'add', `member${member}`, `--peer-urls=${this.#peer(member)}`);
    this.startMember(member, ['--initial-cluster-state=existing']);
  }

  /** A new cluster of the same members, which knows nothing: its id is another one. */
  async beginAnew(token: string): Promise<void> {
    this.#strangers.clear();
    for (const member of this.#members.keys()) await this.#wipe(member);
    for (const member of this.#members.keys()) this.startMember(member, [`--initial-cluster-token=${token}`]);
    await this.ready();
  }

  /** The keys with the prefix that one member has, whatever the others say. */
  async keysAt(member: number, prefix: string): Promise<string[]> {
    const endpoint = `--endpoints=${this.endpoints[member] ?? ''}`;
    const argv = [etcdProgram('etcdctl'), endpoint, 'get', '--consistency=s', '--prefix', '--keys-only', prefix];
    const { stdout } = await run(this.#enter(argv), { env: environment() });
    return stdout.split('\n').filter(Boolean);
  }

  /** What the member has written. */
  log(member: number): string {
    return readFileSync(this.#logOf(member), 'utf8');
  }

  #logOf(member: number): string {
    return join(this.#plan.directory, `member${member}.log`);
  }

  async #wipe(member: number): Promise<void> {
    await this.stopMember(member);
    await rm(this.#dataOf(member), { recursive: true, force: true });
  }

  /** A snapshot of what one member has. */
  async save(snapshot: string, member = 0): Promise<void> {
    const login = this.login === '' ? [] : ['--user', this.login];
    const argv = [
      etcdProgram('etcdctl'),
      `--endpoints=${this.endpoints[member] ?? ''}`,
      ...login,
      'snapshot',
      'save',
      snapshot,
    ];
    const { code, stderr } = await run(this.#enter(argv), { env: environment() });
    if (code !== 0) throw new Error(`etcdctl snapshot save: ${stderr}`);
  }

  /** The members, which are stopped, will begin with what a snapshot holds. */
  async restore(snapshot: string): Promise<void> {
    const kept = /^--(name|data-dir|initial-)/;
    this.#strangers.clear();
    for (const member of this.#members.keys()) {
      await this.#wipe(member);
      const flags = this.#flags(member).filter((flag) => kept.test(flag));
      const argv = [etcdProgram('etcdctl'), 'snapshot', 'restore', snapshot, ...flags];
      const { code, stderr } = await run(this.#enter(argv), { env: environment() });
      if (code !== 0) throw new Error(`etcdctl snapshot restore: ${stderr}`);
    }
  }

  #dataOf(member: number): string {
    return join(this.#plan.directory, `member${member}`);
  }

  ctl(...words: string[]): Promise<Result> {
    return this.#run(words);
  }

  #run(words: readonly string[], input = ''): Promise<Result> {
    const { tls } = this.#plan;
    const own = tls?.client ? [`--cert=${tls.client.cert}`, `--key=${tls.client.key}`] : [];
    // A certificate that has expired is what a test is about.
    const files = tls === undefined ? [] : ['--insecure-skip-tls-verify', ...own];
    const scheme = tls === undefined ? 'http' : 'https';
    const endpoints = this.endpoints.map((endpoint) => `${scheme}://${endpoint}`).join(',');
    const env = environment();
    const argv = [etcdProgram('etcdctl'), `--endpoints=${endpoints}`, ...this.#login(words), ...files, ...words];
    return run(this.#enter(argv), { env, input });
  }

  #login(words: readonly string[]): string[] {
    return this.login === '' || words.includes('--user') ? [] : ['--user', this.login];
  }

  /** All keys with the prefix and their values, from members on the loopback: without etcdctl, for who looks again and again. */
  async read(prefix: string): Promise<{ key: string; value: string }[]> {
    const bytes = Buffer.from(prefix);
    const end = Buffer.from(bytes);
    end[end.length - 1] = (end.at(-1) ?? 0) + 1;
    const body = JSON.stringify({ key: bytes.toString('base64'), range_end: end.toString('base64') });
    const answer = await fetch(`http://${this.endpoints[0]}/v3/kv/range`, { method: 'POST', body });
    if (!answer.ok) throw new Error(`etcd: ${await answer.text()}`);
    const { kvs = [] } = (await answer.json()) as { kvs?: { key: string; value: string }[] };
    const textOf = (base64: string) => Buffer.from(base64, 'base64').toString();
    return kvs.map(({ key, value }) => ({ key: textOf(key), value: textOf(value) }));
  }

  async must(...words: string[]): Promise<string> {
    const { code, stdout, stderr } = await this.ctl(...words);
    if (code !== 0) throw new Error(`etcdctl ${words.join(' ')}: ${stderr}`);
    return stdout.trim();
  }

  /** Until it is done: the members may just be choosing a leader, and what was said to have failed may have been done. */
  async #persist(...words: string[]): Promise<string> {
    const untilMs = performance.now() + READY_MS;
    for (;;) {
      const { code, stdout, stderr } = await this.ctl(...words);
      if (code === 0 || /member not found|Peer URLs already exists/.test(stderr)) return stdout.trim();
      if (performance.now() > untilMs) throw new Error(`etcdctl ${words.join(' ')}: ${stderr}`);
      await sleep(100);
    }
  }

  /** Gives a user of etcd another password, as root; authentication is on. */
  async changePassword(user: string, password: string, root: string): Promise<void> {
    const words = ['--user', root, 'user', 'passwd', user, '--interactive=false'];
    const untilMs = performance.now() + READY_MS;
    for (;;) {
      const { code, stderr } = await this.#run(words, `${password}\n`);
      if (code === 0) return;
      if (performance.now() > untilMs) throw new Error(`etcdctl user passwd: ${stderr}`);
      await sleep(100);
    }
  }

  /** Until its database takes no more changes; the plan has a quota. */
  async fill(): Promise<void> {
    for (let i = 0; (await this.ctl('put', 'filler', 'x'.repeat(100_000))).code === 0; i++)
      if (i === 100) throw new Error('etcd does not fill');
  }

  /** As its documentation says to an operator whose database is full. */
  async makeRoom(): Promise<void> {
    const { header } = JSON.parse(await this.must('get', '-w', 'json', 'x')) as { header: { revision: number } };
    await this.must('compact', String(header.revision));
    await this.must('defrag');
    await this.must('alarm', 'disarm');
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

  #peer(member: number): string {
    return `http://${this.#address}:${this.#port(member) + 1}`;
  }

  #flags(member: number): string[] {
    const { tls, quota } = this.#plan;
    const scheme = tls === undefined ? 'http' : 'https';
    const client = `${scheme}://${this.#address}:${this.#port(member)}`;
    const known = this.#strangers.has(member) ? [member] : [...this.#members.keys()];
    const all = known.map((one) => `member${one}=${this.#peer(one)}`).join(',');
    return [
      `--name=member${member}`,
      `--data-dir=${this.#dataOf(member)}`,
      `--listen-client-urls=${client}`,
      `--advertise-client-urls=${client}`,
      `--listen-peer-urls=${this.#peer(member)}`,
      `--initial-advertise-peer-urls=${this.#peer(member)}`,
      `--initial-cluster=${all}`,
      '--log-level=warn',
      '--logger=zap',
      // Else each login costs a twelfth of a second of a core.
      '--bcrypt-cost=4',
      ...(quota === undefined ? [] : [`--quota-backend-bytes=${quota}`]),
      ...(tls === undefined ? [] : [`--cert-file=${tls.cert}`, `--key-file=${tls.key}`]),
      ...(tls?.client ? [`--trusted-ca-file=${tls.ca}`, '--client-cert-auth'] : []),
    ];
  }
}

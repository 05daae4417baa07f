/** A router that advertises itself (radvd), with prefixes that can be changed while it runs. */
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { closeSync, mkdirSync, openSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { type Lan, Namespace } from './namespace.ts';
import { dhcp6Program, dhcpEnvironment } from './packages.ts';
import { until } from './patience.ts';

/** What it advertises. */
export interface Advertising {
  /** With the length: `fd77:1::/64`; hosts make addresses of each. */
  readonly prefixes: readonly AdvertisedByRouter[];
  /** A DHCPv6 server gives addresses. */
  readonly isManaged?: boolean;
}

interface AdvertisedByRouter {
  readonly prefix: string;
  readonly isAutonomous?: boolean;
  /** 0 for one that is not to be used for new connections. */
  readonly preferredSeconds?: number;
  readonly validSeconds?: number;
}

const DIRECTORY = '/run/routers';
let started = 0;

export class AdvertisingRouter {
  readonly namespace: Namespace;
  readonly #directory: string;
  #process: ChildProcess | undefined;

  private constructor(namespace: Namespace) {
    this.namespace = namespace;
    this.#directory = join(DIRECTORY, `${++started}`);
    mkdirSync(this.#directory, { recursive: true });
  }

  /** In a namespace of its own with a cable to the switch. It has fd77::1 there, and takes all of fd77::/16 for near. Ends with the enclosure. */
  static async plug(lan: Lan, name: string, advertising: Advertising): Promise<AdvertisingRouter> {
    const router = new AdvertisingRouter(await Namespace.create(name));
    // Its link-local address is there at once; without one it does not advertise.
    const sysctls = ['net.ipv6.conf.all.forwarding=1', 'net.ipv6.conf.default.accept_dad=0'];
    await router.namespace.run(['sysctl', '-qw', ...sysctls]);
    await lan.plug(router.namespace);
    await router.namespace.ip('address add fd77::1/16 dev lan0');
    await router.advertise(advertising);
    return router;
  }

  /** From now on it advertises this, to all within some seconds and at once to whoever asks. */
  async advertise(advertising: Advertising): Promise<void> {
    writeFileSync(this.#path('conf'), configuration(advertising), { mode: 0o644 });
    await this.#end('SIGKILL');
    // The helper of one that was killed holds the lock on it for a moment longer.
    rmSync(this.#path('pid'), { force: true });
    const log = openSync(this.#path('log'), 'a');
    const words = ['--nodaemon', '--config', this.#path('conf'), '--pidfile', this.#path('pid'), '--username', 'root'];
    const [command = '', ...rest] = this.namespace.enter([
      dhcp6Program('usr/sbin/radvd'),
      ...words,
      ...['--logmethod', 'stderr', '--debug', '3'],
    ]);
    const child = spawn(command, rest, { env: dhcpEnvironment(), stdio: ['ignore', log, log] });
    closeSync(log);
    const said = this.log().length;
    this.#process = child;
    await until(() => child.exitCode !== null || /received RA from: \S+ \(myself\)/.test(this.log().slice(said)), {
      detail: () => this.log(),
    });
    if (child.exitCode !== null) throw new Error(`radvd ended:\n${this.log()}`);
  }

  /** It says that it is no router any more, as one that is shut down. */
  async retire(): Promise<void> {
    await this.#end('SIGTERM');
  }

  /** Everything that it has written. */
  log(): string {
    return readFileSync(this.#path('log'), 'utf8');
  }

  /** Off the LAN, without a word. */
  async unplug(): Promise<void> {
    await this.#end('SIGKILL');
    await this.namespace.delete();
  }

  async #end(signal: NodeJS.Signals): Promise<void> {
    const child = this.#process;
    this.#process = undefined;
    if (child === undefined || child.exitCode !== null || child.signalCode !== null) return;
    child.kill(signal);
    await once(child, 'exit');
  }

  #path(name: string): string {
    return join(this.#directory, name);
  }
}

function configuration({ prefixes, isManaged = false }: Advertising): string {
  const flag = (value: boolean) => (value ? 'on' : 'off');
  const sections = prefixes.map(
    ({ prefix, isAutonomous = true, preferredSeconds = 300, validSeconds = 600 }) =>
      `prefix ${prefix} { AdvOnLink on; AdvAutonomous ${flag(isAutonomous)}; AdvPreferredLifetime ${preferredSeconds}; AdvValidLifetime ${validSeconds}; };`,
  );
  return [
    'interface lan0 { AdvSendAdvert on; MinRtrAdvInterval 3; MaxRtrAdvInterval 4; AdvDefaultLifetime 600;',
    `AdvManagedFlag ${flag(isManaged)};`,
    ...sections,
    '};\n',
  ].join('\n');
}

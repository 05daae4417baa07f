/** The DHCPv6 servers that LANs have, as Debian packages them: dnsmasq, isc-dhcpd and kea; what each writes of its leases in one shape. */
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { closeSync, existsSync, mkdirSync, openSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { type Lan, Namespace } from './namespace.ts';
import { dhcp6Program, dhcpEnvironment, dhcpProgram } from './packages.ts';
import { until } from './patience.ts';

export const DHCP6_SERVERS = ['dnsmasq', 'isc', 'kea'] as const;
type Dhcp6Kind = (typeof DHCP6_SERVERS)[number];

interface Dhcp6Plan {
  /** `fd77:1`: the server has `::53` in it, and gives `::100` to `::1ff`. */
  readonly prefix: string;
  /** MAC address → address. */
  readonly reservations?: Readonly<Record<string, string>>;
  /** Valid so long, and preferred for half of it. dnsmasq gives two minutes at least. */
  readonly leaseSeconds: number;
  /** The last address that it gives, `1ff` by default. */
  readonly last?: string;
}

/** What a server has on file for a client. */
interface Lease6 {
  readonly macAddress: string;
  readonly address: string;
  readonly hostname: string | null;
}

interface Plan6 extends Dhcp6Plan {
  readonly last: string;
  readonly directory: string;
}

interface Program6 {
  command(plan: Plan6): string[];
  configuration(plan: Plan6): string;
  readonly leaseFile: string;
  leases(file: string): Lease6[];
}

const DIRECTORY = '/run/dhcp6';
/** Port 547 of a socket in /proc/net/udp6. */
const LISTENS = /^ *\d+: [0-9A-F]{32}:0223 /m;
let started = 0;

export class Dhcp6Server {
  readonly #namespace: Namespace;
  readonly #program: Program6;
  #plan: Plan6;
  #process: ChildProcess | undefined;

  private constructor(namespace: Namespace, kind: Dhcp6Kind, plan: Dhcp6Plan) {
    this.#namespace = namespace;
    this.#program = PROGRAMS[kind];
    this.#plan = { last: '1ff', ...plan, directory: join(DIRECTORY, `${++started}`) };
  }

  /** In a namespace of its own with a cable to the switch. Ends with the enclosure. */
  static async plug(lan: Lan, name: string, kind: Dhcp6Kind, plan: Dhcp6Plan): Promise<Dhcp6Server> {
    const server = new Dhcp6Server(await Namespace.create(name), kind, plan);
    // Its link-local address is there at once: it binds to that.
    await server.#namespace.run(['sysctl', '-qw', 'net.ipv6.conf.default.accept_dad=0']);
    await lan.plug(server.#namespace);
    mkdirSync(server.#plan.directory, { recursive: true });
    await server.change(plan);
    return server;
  }

  /** It is started again, for other addresses. */
  async change(plan: Dhcp6Plan): Promise<void> {
    await this.#stop();
    this.#plan = { last: '1ff', ...plan, directory: this.#plan.directory };
    await this.#namespace.ip('-6 address flush dev lan0 scope global');
    await this.#namespace.ip(`address add ${hostIn(plan.prefix, '53')}/64 dev lan0 nodad`);
    writeFileSync(this.#path('conf'), this.#program.configuration(this.#plan));
    await this.#start();
  }

  /** As one that keeps them in its memory and is switched off and on. */
  async loseLeases(): Promise<void> {
    await this.#stop();
    rmSync(this.#path(this.#program.leaseFile), { force: true });
    await this.#start();
  }

  /** Who has which address by the server's own file. */
  leases(): Lease6[] {
    const path = this.#path(this.#program.leaseFile);
    return existsSync(path) ? this.#program.leases(readFileSync(path, 'latin1')) : [];
  }

  addressOf(macAddress: string): string | undefined {
    return this.leases().find((lease) => lease.macAddress === macAddress)?.address;
  }

  /** Everything that it has written. */
  log(): string {
    return readFileSync(this.#path('log'), 'utf8');
  }

  async unplug(): Promise<void> {
    await this.#stop();
    await this.#namespace.delete();
  }

  async #start(): Promise<void> {
    // isc-dhcpd does not begin without one.
    const file = this.#path(this.#program.leaseFile);
    if (!existsSync(file)) writeFileSync(file, '');
    const log = openSync(this.#path('log'), 'a');
    const [command = '', ...words] = this.#namespace.enter(this.#program.command(this.#plan));
    const { directory } = this.#plan;
    const kea = { KEA_PIDFILE_DIR: directory, KEA_LOCKFILE_DIR: directory, KEA_LOG_DIR: directory };
    const child = spawn(command, words, { env: { ...dhcpEnvironment(), ...kea }, stdio: ['ignore', log, log] });
    closeSync(log);
    this.#process = child;
    const isRunning = () => child.exitCode === null && child.signalCode === null;
    await until(() => !isRunning() || listens(child.pid), { pollMs: 10, detail: () => this.log() });
    if (!isRunning()) throw new Error(`it ended:\n${this.log()}`);
  }

  async #stop(): Promise<void> {
    const child = this.#process;
    this.#process = undefined;
    if (child === undefined || child.exitCode !== null || child.signalCode !== null) return;
    child.kill('SIGKILL');
    await once(child, 'exit');
  }

  #path(name: string): string {
    return join(this.#plan.directory, name);
  }
}

/** nsenter becomes the server; a process that has ended has no such file. */
function listens(pid: number | undefined): boolean {
  try {
    const isServer = readFileSync(`/proc/${pid}/comm`, 'utf8').trim() !== 'nsenter';
    return isServer && LISTENS.test(readFileSync(`/proc/${pid}/net/udp6`, 'utf8'));
  } catch {
    return false;
  }
}

const hostIn = (prefix: string, host: string) => `${prefix}::${host}`;

const PROGRAMS: Readonly<Record<Dhcp6Kind, Program6>> = {
  dnsmasq: {
    leaseFile: 'leases',
    command: ({ directory }) => [
      ...[dhcpProgram('usr/sbin/dnsmasq'), '--keep-in-foreground', `--conf-file=${directory}/conf`],
      ...['--user=root', `--pid-file=${directory}/pid`, '--log-facility=-'],
    ],
    configuration: ({ directory, prefix, last, leaseSeconds, reservations = {} }) =>
      [
        ...['interface=lan0', 'bind-interfaces', 'port=0', 'log-dhcp', 'dhcp-authoritative'],
        `dhcp-leasefile=${directory}/leases`,
        `dhcp-range=${hostIn(prefix, '100')},${hostIn(prefix, last)},64,${leaseSeconds}`,
        ...Object.entries(reservations).map(([mac, address]) => `dhcp-host=${mac},[${address}]`),
        '',
      ].join('\n'),
    // Behind a line with its own DUID: when it ends, IAID, address, name, DUID.
    leases: (file) =>
      file.split('\n').flatMap((line) => {
        const [, , address = '', hostname, duid] = line.split(' ');
        return duid === undefined
          ? []
          : [{ address, macAddress: macOf(duid), hostname: hostname === '*' ? null : (hostname ?? null) }];
      }),
  },
  isc: {
    leaseFile: 'leases',
    command: ({ directory }) => [
      ...[dhcpProgram('usr/sbin/dhcpd'), '-6', '-f', '-d', '--no-pid'],
      ...['-cf', `${directory}/conf`, '-lf', `${directory}/leases`, 'lan0'],
    ],
    configuration: ({ prefix, last, leaseSeconds, reservations = {} }) =>
      [
        `authoritative; default-lease-time ${leaseSeconds}; preferred-lifetime ${leaseSeconds / 2};`,
        `subnet6 ${hostIn(prefix, '')}/64 { range6 ${hostIn(prefix, '100')} ${hostIn(prefix, last)}; }`,
        ...Object.entries(reservations).map(
          ([mac, address], number) => `host r${number} { hardware ethernet ${mac}; fixed-address6 ${address}; }`,
        ),
        '',
      ].join('\n'),
    // dhcpd.leases(5): the last entry of a client is the one that holds. Its name is the IAID and the DUID, escaped.
    leases: (file) => {
      const last = new Map(
        Array.from(file.matchAll(/^ia-na "(.*)" \{\n(.*?)^\}/gms), ([, client = '', body = '']) => [client, body]),
      );
      return [...last].flatMap(([client, body]) => {
        const address = /iaaddr (\S+) \{\n *binding state active;/.exec(body)?.[1];
        return address === undefined
          ? []
          : [{ address, macAddress: macOf(unescaped(client).subarray(4).toString('hex')), hostname: null }];
      });
    },
  },
  kea: {
    leaseFile: 'leases.csv',
    command: ({ directory }) => [dhcp6Program('usr/sbin/kea-dhcp6'), '-c', `${directory}/conf`],
    configuration: ({ directory, prefix, last, leaseSeconds, reservations = {} }) =>
      JSON.stringify({
        Dhcp6: {
          'data-directory': directory,
          'interfaces-config': { interfaces: ['lan0'] },
          'lease-database': { type: 'memfile', name: `${directory}/leases.csv`, 'lfc-interval': 0 },
          'valid-lifetime': leaseSeconds,
          'preferred-lifetime': Math.floor(leaseSeconds / 2),
          'renew-timer': Math.floor(leaseSeconds / 4),
          'rebind-timer': Math.floor(leaseSeconds * 0.4),
          subnet6: [
            {
              subnet: `${hostIn(prefix, '')}/64`,
              interface: 'lan0',
              pools: [{ pool: `${hostIn(prefix, '100')}-${hostIn(prefix, last)}` }],
              reservations: Object.entries(reservations).map(([mac, address]) => ({
                'hw-address': mac,
                'ip-addresses': [address],
              })),
            },
          ],
          loggers: [{ name: 'kea-dhcp6', severity: 'INFO', output_options: [{ output: 'stdout' }] }],
        },
      }),
    // The last row of an address is the one that holds; a released one has a lifetime of 0, a declined one the state 1.
    leases: (file) => {
      const rows = file.split('\n').map((line) => line.split(','));
      const last = new Map(rows.filter(([address]) => address?.includes(':')).map((row) => [row[0], row]));
      return [...last.values()]
        .filter((row) => row[2] !== '0' && row[13] === '0')
        .map((row) => ({ address: row[0] ?? '', macAddress: macOf(row[1] ?? ''), hostname: row[11] || null }));
    },
  },
};

/** Of a DUID that is a MAC address, in hexadecimal digits with or without colons. */
function macOf(duid: string): string {
  const digits = duid.replaceAll(':', '');
  return digits.startsWith('00030001') ? digits.slice(8).replaceAll(/..(?=.)/g, '$&:') : '';
}

/** Octal numbers, and what a backslash makes plain. */
function unescaped(text: string): Buffer {
  const bytes = text.replaceAll(/\\(\d{3}|.)/g, (_, what: string) =>
    what.length === 3 ? String.fromCharCode(Number.parseInt(what, 8)) : what,
  );
  return Buffer.from(bytes, 'latin1');
}

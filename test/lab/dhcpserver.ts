/**
 * The DHCP servers that LANs have, as Debian packages them: dnsmasq, isc-dhcpd, kea and busybox udhcpd. Each with a range, reservations
 * by MAC address and a lease time; what each writes of its leases is read into one shape.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import {
  closeSync,
  existsSync,
  mkdirSync,
  openSync,
  readFileSync,
  readdirSync,
  readlinkSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { type Lan, Namespace } from './namespace.ts';
import { dhcpEnvironment, dhcpProgram } from './packages.ts';
import { until } from './patience.ts';

export const DHCP_SERVERS = ['dnsmasq', 'isc', 'kea', 'udhcpd'] as const;
export type DhcpKind = (typeof DHCP_SERVERS)[number];

export interface DhcpPlan {
  /** The server's own address with its prefix length, `10.77.0.1/24`: also the router that it names. */
  readonly address: string;
  /** First and last address that it gives. */
  readonly range: readonly [string, string];
  /** dnsmasq gives two minutes at least. */
  readonly leaseSeconds: number;
  /** MAC address → address. */
  readonly reservations?: Readonly<Record<string, string>>;
  /** Destination → router, as option 121 has them (RFC 3442). */
  readonly routes?: Readonly<Record<string, string>>;
  readonly domain?: string;
  /** Where it is not the server itself. */
  readonly router?: string;
  /** Whether it asks before it gives an address, as each does unless told otherwise; it takes one to three seconds. */
  readonly asksFirst?: boolean;
}

/** What a server has on file for a client. */
export interface DhcpLease {
  readonly macAddress: string;
  readonly address: string;
  readonly hostname: string | null;
  /** By the wall clock; Infinity where the file does not say. */
  readonly endsAtMs: number;
}

/** Where a server runs: a namespace, or what stands for the one of a container. */
export interface DhcpPlace {
  enter(argv: string[]): string[];
}

/** How one kind is started and read. */
interface Program {
  configuration(plan: Plan): string;
  command(plan: Plan): string[];
  readonly leaseFile: string;
  leases(file: Buffer, log: string, plan: Plan): DhcpLease[];
}

/** A plan with what follows from it. */
interface Plan extends DhcpPlan {
  readonly server: string;
  readonly routerAddress: string;
  readonly network: string;
  readonly netmask: string;
  readonly prefixLength: number;
  readonly reserved: readonly (readonly [string, string])[];
  /** Of its files. */
  readonly directory: string;
  readonly link: string;
}

const DIRECTORY = '/run/dhcp';
/** Port 67 of a socket in /proc/net/udp. */
const LISTENS = /^ *\d+: [0-9A-F]{8}:0043 /m;
let started = 0;

export class DhcpServer {
  readonly kind: DhcpKind;
  /** The server's own. */
  readonly address: string;
  readonly #place: DhcpPlace;
  /** That was made for it alone. */
  #namespace: Namespace | undefined;
  readonly #plan: Plan;
  readonly #program: Program;
  #process: ChildProcess | undefined;
  /** Where in its log the time begins of which it knows. */
  #knownFrom = 0;

  private constructor(kind: DhcpKind, place: DhcpPlace, plan: Plan) {
    this.kind = kind;
    this.address = plan.server;
    this.#place = place;
    this.#plan = plan;
    this.#program = PROGRAMS[kind];
  }

  /** In a namespace of its own with a cable to the switch. Ends with the enclosure. */
  static async plug(lan: Lan, name: string, kind: DhcpKind, plan: DhcpPlan): Promise<DhcpServer> {
    const namespace = await Namespace.create(name);
    await lan.plug(namespace);
    await namespace.ip(`address add ${plan.address} dev lan0`);
    const server = await DhcpServer.start(namespace, kind, plan);
    server.#namespace = namespace;
    return server;
  }

  /** Where there is a link with the plan's address already. Answers when it listens. */
  static async start(place: DhcpPlace, kind: DhcpKind, plan: DhcpPlan, link = 'lan0'): Promise<DhcpServer> {
    const directory = join(DIRECTORY, `${++started}`);
    mkdirSync(directory, { recursive: true });
    const server = new DhcpServer(kind, place, complete(plan, directory, link));
    writeFileSync(server.#path('conf'), server.#program.configuration(server.#plan));
    await server.restart();
    return server;
  }

  async stop(signal: NodeJS.Signals = 'SIGTERM'): Promise<void> {
    const child = this.#process;
    this.#process = undefined;
    if (child === undefined || !isRunning(child)) return;
    child.kill(signal);
    await once(child, 'exit');
  }

  /** Stops it for good; who was plugged in has no address on the LAN any more. May be called again. */
  async unplug(): Promise<void> {
    await this.stop();
    const namespace = this.#namespace;
    this.#namespace = undefined;
    await namespace?.delete();
  }

  /** Starts it, ended before when it runs; its leases are what its file says. */
  async restart(): Promise<void> {
    await this.stop();
    // isc-dhcpd does not begin without one.
    if (!existsSync(this.#leaseFile)) writeFileSync(this.#leaseFile, '');
    const log = openSync(this.#path('log'), 'a');
    const [command = '', ...words] = this.#place.enter(this.#program.command(this.#plan));
    const env = { ...dhcpEnvironment(), ...keaDirectories(this.#plan.directory) };
    const child = spawn(command, words, { env, stdio: ['ignore', log, log] });
    closeSync(log);
    this.#process = child;
    await until(() => !isRunning(child) || this.#listens(child), { pollMs: 10, detail: () => this.log() });
    if (!isRunning(child)) throw new Error(`${this.kind} ended:\n${this.log()}`);
  }

  /** As a router that keeps them in its memory and is switched off and on. */
  async loseLeases(): Promise<void> {
    await this.stop('SIGKILL');
    rmSync(this.#leaseFile, { force: true });
    this.#knownFrom = this.log().length;
    await this.restart();
  }

  /** Who has an address now by the server's own record. */
  async leases(): Promise<DhcpLease[]> {
    if (this.kind === 'udhcpd') await this.#writeDown();
    const leases = this.#program.leases(readFileSync(this.#leaseFile), this.log().slice(this.#knownFrom), this.#plan);
    return leases.filter(({ endsAtMs }) => endsAtMs > Date.now());
  }

  /** The lease of a MAC address. */
  async leaseOf(macAddress: string): Promise<DhcpLease | undefined> {
    return (await this.leases()).find((lease) => lease.macAddress === macAddress);
  }

  /** Everything that it has written. */
  log(): string {
    return readFileSync(this.#path('log'), 'utf8');
  }

  /** udhcpd has its leases in its memory, and writes them when it is told to. */
  async #writeDown(): Promise<void> {
    const child = this.#process;
    if (child === undefined) return;
    rmSync(this.#leaseFile, { force: true });
    child.kill('SIGUSR1');
    const isWritten = () => existsSync(this.#leaseFile) && !hasOpen(child, this.#leaseFile);
    await until(() => !isRunning(child) || isWritten(), { pollMs: 5, detail: () => this.log() });
  }

  #listens({ pid }: ChildProcess): boolean {
    // nsenter becomes the server; a process that has ended has no such file.
    const path = `/proc/${pid}/net/udp`;
    return existsSync(path) && readProgram(pid) !== 'nsenter' && LISTENS.test(readFileSync(path, 'utf8'));
  }

  get #leaseFile(): string {
    return this.#path(this.#program.leaseFile);
  }

  #path(name: string): string {
    return join(this.#plan.directory, name);
  }
}

// --- the four of them -----------------------------------------------------------------------------------------------

const PROGRAMS: Readonly<Record<DhcpKind, Program>> = {
  dnsmasq: {
    leaseFile: 'leases',
    command: ({ directory }) => [
      ...[dhcpProgram('usr/sbin/dnsmasq'), '--keep-in-foreground', `--conf-file=${directory}/conf`],
      ...['--user=root', `--pid-file=${directory}/pid`, '--log-facility=-'],
    ],
    configuration: (plan) =>
      lines(
        `interface=${plan.link}`,
        'bind-interfaces',
        'port=0',
        'log-dhcp',
        'dhcp-authoritative',
        `dhcp-leasefile=${plan.directory}/leases`,
        `dhcp-range=${plan.range.join(',')},${plan.netmask},${plan.leaseSeconds}`,
        `dhcp-option=3,${plan.routerAddress}`,
        plan.domain && `domain=${plan.domain}`,
        plan.routes && `dhcp-option=121,${Object.entries(plan.routes).flat().join(',')}`,
        plan.asksFirst ? '' : 'no-ping',
        ...plan.reserved.map(([mac, address]) => `dhcp-host=${mac},${address}`),
      ),
    leases: (file) =>
      rows(file, ' ').map(([seconds, macAddress = '', address = '', hostname = '*']) => ({
        macAddress,
        address,
        hostname: hostname === '*' ? null : hostname,
        endsAtMs: Number(seconds) * 1000,
      })),
  },
  isc: {
    leaseFile: 'leases',
    command: ({ directory, link }) => [
      ...[dhcpProgram('usr/sbin/dhcpd'), '-4', '-f', '-d', '--no-pid'],
      ...['-cf', `${directory}/conf`, '-lf', `${directory}/leases`, link],
    ],
    configuration: (plan) =>
      lines(
        'authoritative;',
        `default-lease-time ${plan.leaseSeconds}; max-lease-time ${plan.leaseSeconds}; min-lease-time 1;`,
        `ping-check ${plan.asksFirst ? 'true' : 'false'};`,
        'option classless-routes code 121 = array of unsigned integer 8;',
        plan.domain && `option domain-name "${plan.domain}";`,
        plan.routes && `option classless-routes ${routeBytes(plan.routes).join(', ')};`,
        `subnet ${plan.network} netmask ${plan.netmask} {`,
        `range ${plan.range.join(' ')}; option routers ${plan.routerAddress};`,
        '}',
        ...plan.reserved.map(
          ([mac, address], number) => `host r${number} { hardware ethernet ${mac}; fixed-address ${address}; }`,
        ),
      ),
    // Its configuration has what is reserved, and that it was given in its log alone.
    leases: (file, log, plan) => [...iscLeases(file.toString()), ...iscReserved(log, plan)],
  },
  kea: {
    leaseFile: 'leases.csv',
    command: ({ directory }) => [dhcpProgram('usr/sbin/kea-dhcp4'), '-c', `${directory}/conf`],
    configuration: keaConfiguration,
    leases: (file) => {
      // The last row of an address is the one that holds; a released one has a lifetime of 0, a declined one the state 1.
      const last = new Map(rows(file, ',').map((row) => [row[0], row]));
      return [...last.values()]
        .filter(([, , , lifetime, , , , , , state]) => lifetime !== '0' && state === '0')
        .map(([address = '', macAddress = '', , , seconds, , , , hostname = '']) => ({
          macAddress,
          address,
          hostname: hostname || null,
          endsAtMs: Number(seconds) * 1000,
        }));
    },
  },
  udhcpd: {
    leaseFile: 'leases',
    command: ({ directory, asksFirst }) => [
      ...[dhcpProgram('bin/busybox'), 'udhcpd', '-f'],
      ...(asksFirst ? [] : ['-a', '1']),
      `${directory}/conf`,
    ],
    configuration: (plan) =>
      lines(
        `start ${plan.range[0]}`,
        `end ${plan.range[1]}`,
        `interface ${plan.link}`,
        `lease_file ${plan.directory}/leases`,
        `pidfile ${plan.directory}/pid`,
        `option subnet ${plan.netmask}`,
        `option router ${plan.routerAddress}`,
        `option lease ${plan.leaseSeconds}`,
        plan.domain && `option domain ${plan.domain}`,
        plan.routes &&
          `option staticroutes ${Object.entries(plan.routes)
            .map((route) => route.join(' '))
            .join(', ')}`,
        ...plan.reserved.map(([mac, address]) => `static_lease ${mac} ${address}`),
      ),
    leases: udhcpdLeases,
  },
};

function keaConfiguration(plan: Plan): string {
  const routes = plan.routes && {
    code: 121,
    'csv-format': false,
    data: Buffer.from(routeBytes(plan.routes)).toString('hex'),
  };
  return JSON.stringify({
    Dhcp4: {
      'interfaces-config': { interfaces: [plan.link], 'dhcp-socket-type': 'raw' },
      'lease-database': { type: 'memfile', name: `${plan.directory}/leases.csv`, 'lfc-interval': 0 },
      authoritative: true,
      'valid-lifetime': plan.leaseSeconds,
      'option-def': [{ name: 'classless-routes', code: 121, type: 'binary' }],
      'option-data': [
        { name: 'routers', data: plan.routerAddress },
        ...(plan.domain ? [{ name: 'domain-name', data: plan.domain }] : []),
        ...(routes ? [routes] : []),
      ],
      subnet4: [
        {
          subnet: `${plan.network}/${plan.prefixLength}`,
          pools: [{ pool: plan.range.join('-') }],
          reservations: plan.reserved.map(([mac, address]) => ({ 'hw-address': mac, 'ip-address': address })),
        },
      ],
      loggers: [{ name: 'kea-dhcp4', severity: 'INFO', output_options: [{ output: 'stdout' }] }],
    },
  });
}

/** Else it writes where an installed one does. */
function keaDirectories(directory: string): NodeJS.ProcessEnv {
  return { KEA_PIDFILE_DIR: directory, KEA_LOCKFILE_DIR: directory, KEA_LOG_DIR: directory };
}

/** dhcpd.leases(5): the last entry of an address is the one that holds. */
function iscLeases(text: string): DhcpLease[] {
  const last = new Map(
    Array.from(text.matchAll(/^lease (\S+) \{\n(.*?)^\}/gms), ([, address, body]) => [address, body]),
  );
  return [...last].flatMap(([address = '', body = '']) => {
    if (!/^ *binding state active;/m.test(body)) return [];
    const macAddress = /hardware ethernet ([0-9a-f:]+);/.exec(body)?.[1] ?? '';
    const ends = /^ *ends \d (\S+) (\S+);/m.exec(body);
    const endsAtMs = Date.parse(`${ends?.[1]?.replaceAll('/', '-')}T${ends?.[2]}Z`);
    return [{ macAddress, address, hostname: /client-hostname "(.*)";/.exec(body)?.[1] ?? null, endsAtMs }];
  });
}

function iscReserved(log: string, { reserved }: Plan): DhcpLease[] {
  const given = new Map<string, DhcpLease>();
  const told = /DHCP(ACK on|RELEASE of) (\S+) (?:to|from) ([0-9a-f:]{17}) (?:\((\S+)\) )?via/g;
  for (const [, word, address = '', macAddress = '', hostname = null] of log.matchAll(told)) {
    if (word === 'ACK on') given.set(address, { macAddress, address, hostname, endsAtMs: Infinity });
    else given.delete(address);
  }
  return reserved.flatMap(([, address]) => given.get(address) ?? []);
}

/** networking/udhcp/files.c, write_leases, and struct dyn_lease of dhcpd.h: when it was written, then one lease behind the other. */
function udhcpdLeases(file: Buffer): DhcpLease[] {
  const leases: DhcpLease[] = [];
  const writtenAtMs = file.length < 8 ? 0 : Number(file.readBigInt64BE()) * 1000;
  for (let at = 8; at + UDHCPD_LEASE_BYTES <= file.length; at += UDHCPD_LEASE_BYTES) {
    const macAddress = file.toString('hex', at + 8, at + 14).replaceAll(/..(?=.)/g, '$&:');
    const hostname = file.toString('latin1', at + 14, at + 34).replace(/\0.*$/s, '');
    const address = [...file.subarray(at + 4, at + 8)].join('.');
    const endsAtMs = writtenAtMs + file.readUInt32BE(at) * 1000;
    // An address that was declined has nobody's MAC address.
    if (macAddress !== NOBODY) leases.push({ macAddress, address, hostname: hostname || null, endsAtMs });
  }
  return leases;
}

const UDHCPD_LEASE_BYTES = 36;
const NOBODY = '00:00:00:00:00:00';

// --- words ----------------------------------------------------------------------------------------------------------

function complete(plan: DhcpPlan, directory: string, link: string): Plan {
  const [server = '', bits = '24'] = plan.address.split('/');
  const prefixLength = Number(bits);
  const mask = 2 ** 32 - 2 ** (32 - prefixLength);
  return {
    ...plan,
    server,
    directory,
    link,
    prefixLength,
    routerAddress: plan.router ?? server,
    netmask: dotted(mask),
    network: dotted((number(server) & mask) >>> 0),
    reserved: Object.entries(plan.reservations ?? {}),
  };
}

/** RFC 3442: the significant bytes of the destination behind its prefix length, then the router. */
function routeBytes(routes: Readonly<Record<string, string>>): number[] {
  return Object.entries(routes).flatMap(([destination, router]) => {
    const [address = '', bits = '0'] = destination.split('/');
    const significant = bytes(address).slice(0, Math.ceil(Number(bits) / 8));
    return [Number(bits), ...significant, ...bytes(router)];
  });
}

function bytes(address: string): number[] {
  return address.split('.').map(Number);
}

function number(address: string): number {
  return Buffer.from(bytes(address)).readUInt32BE();
}

function dotted(value: number): string {
  return [24, 16, 8, 0].map((shift) => (value >>> shift) & 0xff).join('.');
}

function lines(...given: (string | undefined)[]): string {
  return given
    .filter(Boolean)
    .map((line) => `${line}\n`)
    .join('');
}

function rows(file: Buffer, separator: string): string[][] {
  return file
    .toString()
    .split('\n')
    .filter((line) => line !== '')
    .map((line) => line.split(separator));
}

function isRunning({ exitCode, signalCode }: ChildProcess): boolean {
  return exitCode === null && signalCode === null;
}

/** The name of a process; empty when it has ended. */
function readProgram(pid: number | undefined): string {
  try {
    return readFileSync(`/proc/${pid}/comm`, 'utf8').trim();
  } catch {
    return '';
  }
}

/** udhcpd writes its leases one by one into the file itself, which is whole when it is closed. */
function hasOpen({ pid }: ChildProcess, path: string): boolean {
  const directory = `/proc/${pid}/fd`;
  return readdirSync(directory).some((fd) => targetOf(join(directory, fd)) === path);
}

/** Undefined where it has just been closed. */
function targetOf(link: string): string | undefined {
  try {
    return readlinkSync(link);
  } catch {
    return undefined;
  }
}

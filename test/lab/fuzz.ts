/** Requests that no engine sends, made from those that engines sent: recorded bodies with hostile values put into them. */
import { readSession, SESSIONS } from '../unit/server/transcripts.ts';

type Json = null | boolean | number | string | Json[] | { [key: string]: Json };

export interface Hostile {
  readonly call: string;
  /** As it goes over the wire. */
  readonly body: string;
}

/** Few, so that calls meet what others made. */
const IDS = ['a', 'b', 'c', 'd', 'e', 'f'].map((digit) => digit.repeat(64));
const SUBNETS = ['10.1.0.0/24', '10.1.0.0/16', '10.2.0.0/28', '192.168.7.0/30', 'fd01::/64', '10.3.0.0/31'];
const ADDRESSES = ['10.1.0.1', '10.1.0.2', '10.1.0.7', '10.2.0.3', 'fd01::5', '192.168.7.1'];
const SPACES = ['TsmacvlanLocal', 'TsmacvlanGlobal', 'LocalDefault'];
const OPTIONS: readonly [string, readonly string[]][] = [
  ['parent', ['lan0', 'lan0.10', 'lan9', 'lo', 'auto', '../lan0']],
  ['macvlan_mode', ['bridge', 'private', 'vepa', 'passthru', 'source']],
  ['mtu', ['1400', '68', '0', '1e3', '-1', '99999999999999999999']],
  ['host_access', ['true', 'false', 'yes']],
  ['host_ip', ['10.1.0.9', '::', '10.1.0.9,10.1.0.9']],
  ['vlan', ['5', '0', '4095', '1.2', '1.2.3.4.5']],
  ['gateway', ['none', 'x']],
  ['mac_prefix', ['02:42', '01:00', 'zz:zz']],
  ['bc_queue_len', ['1', '4294967296']],
  ['exclude', ['10.1.0.0/25', '10.1.0.1-10.1.0.9', '0.0.0.0-255.255.255.255', ',,,']],
];

const HOSTILE: readonly Json[] = [
  ...[
    null,
    true,
    false,
    0,
    -1,
    1e308,
    2 ** 53,
    '',
    ' ',
    '\0',
    '\n',
    'a\nlevel=error b',
    '\u001b[2J\u001b[31m',
    '\u009b31m',
  ],
  ...[
    '../../etc/passwd',
    '/',
    '.',
    '..',
    'x'.repeat(16),
    'x'.repeat(5000),
    '$(reboot)',
    "'; DROP TABLE lease_records; --",
  ],
  ...[
    '__proto__',
    'constructor',
    '\ud800',
    '＆',
    '999.999.999.999',
    '0.0.0.0/0',
    '::/0',
    '255.255.255.255/32',
    '10.1.0.0/33',
  ],
  ...[
    '00:00:00:00:00:00',
    'ff:ff:ff:ff:ff:ff',
    '02-42-0a-01-00-02',
    '10.1.0.2/24',
    'fe80::1/64',
    '224.0.0.1/24',
    '%s%n',
    'eth0.4095',
  ],
  ...([[], {}, [[]], [null], { toString: 1 }, { length: 1e9 }, { then: 'x' }] as Json[]),
];

/** The recorded requests with a body, by call. */
const SEEDS: readonly { call: string; body: Json }[] = SESSIONS.flatMap(readSession).flatMap(({ call, body }) =>
  body === undefined ? [] : [{ call, body: body as Json }],
);
const CALLS = [...new Set(SEEDS.map(({ call }) => call))];

export class Fuzzer {
  readonly #random: () => number;
  /** PoolIDs that were answered. */
  readonly pools = new Set<string>();

  constructor(random: () => number) {
    this.#random = random;
  }

  next(): Hostile {
    // Calls evenly, however often they were recorded.
    const call = this.#pick(CALLS);
    const seed = this.#pick(SEEDS.filter((candidate) => candidate.call === call));
    let body = this.#translate(seed.body);
    for (let times = Math.floor(this.#random() * 4); times > 0; times--) body = this.#mutate(body);
    const sent = this.#random() < 0.02 ? this.#pick(CALLS) : call;
    return { call: sent, body: this.#write(body) };
  }

  /** Recorded names become names of things that may exist here. */
  #translate(value: Json, key = ''): Json {
    if (Array.isArray(value)) return value.map((each) => this.#translate(each));
    if (typeof value === 'object' && value !== null) {
      if (key === 'com.docker.network.generic') return this.#options();
      return Object.fromEntries(Object.entries(value).map(([name, each]) => [name, this.#translate(each, name)]));
    }
    switch (key) {
      case 'NetworkID':
        return this.#pick(IDS);
      case 'EndpointID':
        return this.#pick(IDS);
      case 'PoolID':
        return this.pools.size === 0 ? value : this.#pick([...this.pools]);
      case 'AddressSpace':
        return this.#pick(SPACES);
      case 'Pool':
        return this.#pick(SUBNETS);
      case 'Address':
        return value === '' ? '' : this.#pick(ADDRESSES) + (String(value).includes('/') ? '/24' : '');
      default:
        return value;
    }
  }

  #options(): Json {
    const chosen = OPTIONS.filter(([key]) => key === 'parent' || this.#random() < 0.2);
    return Object.fromEntries(
      chosen.map(([key, values]) => [key, this.#random() < 0.6 ? (values[0] ?? '') : this.#pick(values)]),
    );
  }

  #mutate(value: Json): Json {
    if (typeof value !== 'object' || value === null || this.#random() < 0.05) return this.#pick(HOSTILE);
    if (Array.isArray(value)) {
      const position = Math.floor(this.#random() * (value.length + 1));
      return position === value.length
        ? [...value, this.#pick(HOSTILE)]
        : value.with(position, this.#mutate(value[position] ?? null));
    }
    const entries = Object.entries(value);
    const position = Math.floor(this.#random() * (entries.length + 1));
    const [key, inner] = entries[position] ?? [JSON.stringify(this.#pick(HOSTILE)), {}];
    const dice = this.#random();
    if (dice < 0.15) return Object.fromEntries(entries.toSpliced(position, 1));
    return Object.fromEntries([...entries, [key, dice < 0.6 ? this.#pick(HOSTILE) : this.#mutate(inner)]]);
  }

  #write(body: Json): string {
    const text = JSON.stringify(body);
    const dice = this.#random();
    if (dice < 0.02) return text.slice(0, Math.floor(this.#random() * text.length));
    if (dice < 0.03) return `${'{"NetworkID":'.repeat(2000)}1${'}'.repeat(2000)}`;
    if (dice < 0.04) return '['.repeat(50_000);
    if (dice < 0.06) return text.replace('{', '{"__proto__":{"NetworkID":"x"},');
    if (dice < 0.08) return text.replace(/\d/, () => String.fromCharCode(Math.floor(this.#random() * 65536)));
    return text;
  }

  #pick<T>(choices: readonly T[]): T {
    return choices[Math.floor(this.#random() * choices.length)] as T;
  }
}

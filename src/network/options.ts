/** `-o` labels → NetworkOptions: what each means, its default, and what is refused. Pure. */
import { formatAddress, parseAddress } from '../address.ts';
import * as errors from '../errors.ts';
import {
  CONFLICT_POLICIES,
  IPV6_METHODS,
  MODES,
  type NetworkOptions,
  PROBE_PROFILES,
  VLAN_PROTOCOLS,
} from '../model.ts';
import { nearest, oneOf } from '../nearest.ts';

/** One row of the options reference; docs/reference.md is generated from these. */
export interface OptionRow {
  readonly name: string;
  readonly values: string;
  readonly fallback: string;
  readonly meaning: string;
}

const SOURCES = ['dhcp'] as const;
const RELEASES = ['never', 'stop'] as const;
const IPV6_VALUES = ['off', ...IPV6_METHODS] as const;

export const OPTION_ROWS: readonly OptionRow[] = [
  {
    name: 'parent',
    values: 'eth0, eth0.50, an alias of PARENTS, auto',
    fallback: 'none: an isolated network',
    meaning: 'interface that carries the containers; NAME.ID is made when it is missing',
  },
  {
    name: 'macvlan_mode',
    values: MODES.join(', '),
    fallback: 'bridge',
    meaning: 'how containers on one parent see each other',
  },
  {
    name: 'vlan',
    values: '1 to 4094, or stacked 10.20',
    fallback: 'none',
    meaning: '802.1Q tags on the parent, outer first',
  },
  {
    name: 'vlan_protocol',
    values: VLAN_PROTOCOLS.join(', '),
    fallback: '802.1q',
    meaning: 'protocol of the outer tag',
  },
  { name: 'mtu', values: '68 to 65535', fallback: "the parent's", meaning: 'largest packet in bytes' },
  {
    name: 'mac_prefix',
    values: 'two bytes, 02:42',
    fallback: '02:42',
    meaning: 'first bytes of generated MAC addresses',
  },
  {
    name: 'gateway',
    values: 'auto, none, ipv4, ipv6, or an address of either family, or of both with a comma',
    fallback: 'auto',
    meaning:
      "which default routes containers get from this network: those that are named, else the host's own gateway there or one that answers (auto); none; of one family only; or these",
  },
  {
    name: 'bc_queue_len',
    values: '0 to 1000000',
    fallback: "the kernel's 1000",
    meaning: 'broadcast frames the parent queues',
  },
  {
    name: 'probe',
    values: PROBE_PROFILES.join(', '),
    fallback: 'the setting PROBE',
    meaning: 'how addresses are checked on the LAN',
  },
  {
    name: 'conflict',
    values: CONFLICT_POLICIES.join(', '),
    fallback: 'the setting CONFLICT',
    meaning:
      'what happens to a container whose address another machine on the LAN has: it does not start, or starts with a warning',
  },
  {
    name: 'promisc',
    values: 'true, false',
    fallback: 'false',
    meaning: 'switch promiscuous mode of the parent on while the network exists',
  },
  {
    name: 'host_access',
    values: 'true, false',
    fallback: 'false',
    meaning: 'let this host and the containers reach each other (mode bridge)',
  },
  {
    name: 'host_ip',
    values: 'an address, or one of each family with a comma',
    fallback: 'the lowest free address, or one of the DHCP server',
    meaning: "the host's own address for host_access",
  },
  {
    name: 'source',
    values: SOURCES.join(', '),
    fallback: 'the IPAM driver',
    meaning: "where addresses come from: the LAN's DHCP server (with --ipam-driver null)",
  },
  {
    name: 'ipv6',
    values: IPV6_VALUES.join(', '),
    fallback: 'off',
    meaning:
      'with source=dhcp, the IPv6 address beside the IPv4 one: in whatever way the router advertises, if any (auto); made of its prefix (slaac); of a DHCPv6 server (dhcp)',
  },
  {
    name: 'release',
    values: RELEASES.join(', '),
    fallback: 'never',
    meaning: 'whether the DHCP server is told when a container stops, so that it can give the address to others',
  },
];

const NAMES = OPTION_ROWS.map((row) => row.name);

const TRUTH = ['true', 'false'] as const;

/** Options the engine owns and applies itself for any driver (`com.docker.network.advertise_addr_ms`, …). */
const ENGINE_PREFIX = 'com.docker.network.';

/**
 * The options as typed, read with their defaults. Throws the first mistake: OPTION_UNKNOWN, OPTION_VALUE and those of
 * single options.
 */
export function readNetworkOptions(given: Readonly<Record<string, string>>): NetworkOptions {
  refuseUnknown(given);
  const options: NetworkOptions = {
    parent: given.parent?.trim() || null,
    vlan: given.vlan ? readVlanIds(given.vlan, given.vlan) : [],
    vlanProtocol: choice('vlan_protocol', given.vlan_protocol?.toLowerCase(), VLAN_PROTOCOLS) ?? '802.1q',
    mode: readMode(given.macvlan_mode),
    mtu: integer('mtu', given.mtu, 68, 65535),
    macPrefix: readMacPrefix(given.mac_prefix),
    ...readGateway(given.gateway),
    ...readAnnouncements(given),
    broadcastQueueLength: integer('bc_queue_len', given.bc_queue_len, 0, 1_000_000),
    promiscuous: truth('promisc', given.promisc),
    probe: choice('probe', given.probe, PROBE_PROFILES) ?? null,
    conflict: choice('conflict', given.conflict, CONFLICT_POLICIES) ?? null,
    hostAccess: truth('host_access', given.host_access),
    hostAddresses: readHostAddresses(given.host_ip),
    ...readSource(given),
  };
  checkHostAccess(options);
  if (options.mode !== 'bridge' && options.parent === null) throw errors.modeNeedsParent(options.mode);
  if (options.vlan.length > 0 && options.parent === null) throw errors.optionNeedsParent('vlan');
  if (options.gatewayAddresses !== undefined && options.parent === null) throw errors.optionNeedsParent('gateway');
  if (options.source !== undefined && options.parent === null) throw errors.optionNeedsParent('source');
  if (options.promiscuous && options.parent === null) throw errors.optionNeedsParent('promisc');
  if (given.vlan_protocol && options.vlan.length === 0) throw errors.vlanProtocolWithoutVlan();
  return options;
}

function refuseUnknown(given: Readonly<Record<string, string>>): void {
  for (const key of Object.keys(given)) {
    if (NAMES.includes(key) || key.startsWith(ENGINE_PREFIX)) continue;
    throw errors.unknownOption(key, nearest(key, NAMES), NAMES);
  }
}

/** `50` or stacked `10.20`; `source` is what the user typed, for the sentence. */
export function readVlanIds(text: string, source: string): number[] {
  return text.split('.').map((part) => {
    const id = /^\d{1,4}$/.test(part) ? Number(part) : Number.NaN;
    if (!(id >= 1 && id <= 4094)) throw errors.vlanIdRange(part, source);
    return id;
  });
}

const GATEWAY_WORDS = ['auto', 'none', 'ipv4', 'ipv6'] as const;
const GATEWAY_VALUES = `${GATEWAY_WORDS.join(', ')}, or an address, or one of each family with a comma between`;

function readGateway(
  value: string | undefined,
): Pick<NetworkOptions, 'gateway' | 'gatewayFamilies' | 'gatewayAddresses'> {
  switch (value?.toLowerCase()) {
    case undefined:
    case '':
    case 'auto':
      return { gateway: true };
    case 'none':
      return { gateway: false };
    case 'ipv4':
      return { gateway: true, gatewayFamilies: ['IPv4'] };
    case 'ipv6':
      return { gateway: true, gatewayFamilies: ['IPv6'] };
    default:
      return {
        gateway: true,
        gatewayAddresses: addressOfEach('gateway', value ?? '', GATEWAY_VALUES, GATEWAY_WORDS),
      };
  }
}

/** The engine's own options, within its limits (moby libnetwork/network.go advertiseAddrNMsgs, advertiseAddrInterval). */
function readAnnouncements(given: Readonly<Record<string, string>>): Pick<NetworkOptions, 'announcements'> {
  const of = (name: string, least: number, most: number) => integer(name, given[name], least, most) ?? undefined;
  const times = of('com.docker.network.advertise_addr_nmsgs', 0, 3);
  const gapMs = of('com.docker.network.advertise_addr_ms', 100, 2000);
  if (times === undefined && gapMs === undefined) return {};
  return { announcements: { ...(times !== undefined && { times }), ...(gapMs !== undefined && { gapMs }) } };
}

function readHostAddresses(value: string | undefined): string[] {
  if (!value) return [];
  return addressOfEach('host_ip', value, 'an address inside the subnet, or one of each family with a comma between');
}

function readSource(given: Readonly<Record<string, string>>): Pick<NetworkOptions, 'source' | 'ipv6' | 'release'> {
  const source = choice('source', given.source, SOURCES);
  const release = choice('release', given.release, RELEASES);
  const ipv6 = choice('ipv6', given.ipv6, IPV6_VALUES);
  if (source === undefined && release !== undefined) throw errors.releaseWithoutDhcp();
  if (source === undefined && ipv6 !== undefined && ipv6 !== 'off') throw errors.ipv6WithoutDhcp(ipv6);
  if (source === undefined) return {};
  return { source, ...(ipv6 !== undefined && ipv6 !== 'off' && { ipv6 }), ...(release === 'stop' && { release }) };
}

/** At most one of each family, with commas between. `words`: what may stand there as well. */
function addressOfEach(option: string, value: string, expected: string, words: readonly string[] = []): string[] {
  const addresses = value.split(',').map((text) => parseAddress(text.trim()));
  const families = addresses.map((address) => address?.family);
  const isUsable = !families.includes(undefined) && new Set(families).size === families.length;
  if (!isUsable) throw errors.optionValue(option, value, expected, nearest(value, words));
  return addresses.flatMap((address) => (address === undefined ? [] : formatAddress(address)));
}

/** Only in mode bridge do sub-interfaces of one parent see each other, and the host's end is one of them. */
function checkHostAccess({ hostAccess, hostAddresses, mode, parent }: NetworkOptions): void {
  if (!hostAccess && hostAddresses.length > 0) throw errors.hostAddressWithoutAccess();
  if (hostAccess && mode !== 'bridge') throw errors.hostAccessMode(mode);
  if (hostAccess && parent === null) throw errors.optionNeedsParent('host_access');
}

function readMode(value: string | undefined): NetworkOptions['mode'] {
  if (!value) return 'bridge';
  const mode = MODES.find((known) => known === value);
  if (mode === undefined) throw errors.unknownMode(value, nearest(value, MODES), MODES);
  return mode;
}

function readMacPrefix(value: string | undefined): string {
  if (!value) return '02:42';
  const prefix = value.toLowerCase().replaceAll('-', ':');
  const expected = 'two bytes of a unicast address, as 02:42';
  if (!/^[0-9a-f]{2}:[0-9a-f]{2}$/.test(prefix)) throw errors.optionValue('mac_prefix', value, expected);
  // Bit 0 of the first byte marks multicast, which no interface can have.
  if (Number.parseInt(prefix.slice(0, 2), 16) & 1) throw errors.optionValue('mac_prefix', value, expected);
  return prefix;
}

function integer(name: string, value: string | undefined, least: number, most: number): number | null {
  if (!value) return null;
  const number = /^\d{1,9}$/.test(value) ? Number(value) : Number.NaN;
  if (!(number >= least && number <= most))
    throw errors.optionValue(name, value, `a whole number from ${least} to ${most}`);
  return number;
}

/** `-o host_access` alone comes with an empty value, and whoever wrote it did not mean no. */
function truth(name: string, value: string | undefined): boolean {
  if (value === '') throw errors.optionValue(name, value, TRUTH.join(' or '));
  return choice(name, value, TRUTH) === 'true';
}

function choice<const T extends string>(name: string, value: string | undefined, allowed: readonly T[]): T | undefined {
  if (!value) return undefined;
  const found = oneOf(allowed, value);
  if (found === undefined) throw errors.optionValue(name, value, allowed.join(' or '), nearest(value, allowed));
  return found;
}

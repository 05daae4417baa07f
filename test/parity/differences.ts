/**
 * Where tsmacvlan is not as the built-in driver, and why. docs/differences.md shows these; any other difference that the
 * scenarios find is a defect.
 */
import type { Version } from '../lab/engine.ts';
import type { Cast, Performance } from './stage.ts';

/** One fact that is not the same with both drivers; undefined where it does not exist. */
export interface Difference {
  readonly engine: Version;
  readonly cast: Cast;
  readonly scenario: string;
  readonly fact: string;
  readonly macvlan: string | undefined;
  readonly tsmacvlan: string | undefined;
}

export interface WantedDifference {
  /** The row that a reader of the documentation sees. */
  readonly subject: string;
  readonly macvlan: string;
  readonly tsmacvlan: string;
  readonly reason: string;
  /** True when the engine leaves a plugin no choice. */
  readonly isForced?: boolean;
  /** Where it is seen: all engines, casts and scenarios when not given. */
  readonly engines?: readonly Version[];
  readonly casts?: readonly Cast[];
  readonly scenarios?: readonly string[];
  /** Which facts, and what they must be; all of these scenarios, which were written for it, when not given. */
  readonly fact?: RegExp;
  readonly values?: readonly [macvlan: RegExp | undefined, tsmacvlan: RegExp | undefined];
}

/** Scenarios in which containers run on a subnet whose lowest address nobody has. */
const UNNAMED_GATEWAY = [
  'a range and no gateway named',
  'several subnets of both families',
  'two addresses and no more (RFC 3021)',
  'networks share a subnet by ranges',
  'networks outlive the engine',
];

export const WANTED: readonly WantedDifference[] = [
  {
    subject: 'MAC address of a container',
    macvlan: 'engine 28: by chance, another one at every start',
    tsmacvlan: '`02:42` and the four bytes of the IPv4 address, as with engines before 28',
    reason: 'the same address always comes with the same MAC: no neighbour keeps a stale entry',
    engines: ['28.5.2'],
    fact: /./,
    values: [/^(LINK-LOCAL OF )?MAC BY CHANCE$/, /^(LINK-LOCAL OF )?MAC FROM ADDRESS$/],
  },
  {
    subject: 'a gateway that nobody named, in an IPv4 subnet, with `--ipam-driver tsmacvlan`',
    macvlan: 'engines up to 28: the lowest address, whether or not anybody has it; engine 29: none',
    tsmacvlan:
      "the host's own if it is in the subnet, or the subnet's lowest address if somebody answers there; else none",
    reason: 'a default route to nobody takes a container off the Internet: [gateways](gateways.md)',
    casts: ['tsmacvlan with its IPAM'],
    scenarios: UNNAMED_GATEWAY,
    fact: /› (Gateway|routes)$|resolves outside\.example/,
  },
  {
    subject: 'the first address of an `--ip-range` whose network has no gateway named, with `--ipam-driver tsmacvlan`',
    macvlan: 'engines up to 28: kept for the gateway that is made up; engine 29: the first container gets it',
    tsmacvlan: 'the first container gets it',
    reason: 'by custom a router has the lowest address of the subnet, not that of a range: [gateways](gateways.md)',
    casts: ['tsmacvlan with its IPAM'],
    scenarios: ['a range and no gateway named', 'networks share a subnet by ranges'],
    fact: /› (\w*Address|address|local|hosts)$/,
  },
  {
    subject: 'a gateway that nobody named, in an IPv6 subnet',
    macvlan: 'engines up to 28: the lowest address, whether or not anybody has it; engine 29: none',
    tsmacvlan:
      "none, as routers advertise themselves; with Docker's IPAM on engines up to 27, which do not say who named it, the one that the engine tells if somebody answers there",
    reason: 'a default route to nobody hides the router that advertises itself: [gateways](gateways.md)',
    scenarios: ['several subnets of both families'],
    fact: /› (IPv6Gateway|routes of IPv6|IPAM › Config › \d+ › Gateway)$/,
  },
  {
    subject: 'the lowest address of an IPv6 subnet whose gateway nobody named',
    macvlan: 'engines up to 28: kept for the gateway that is made up; engine 29: the first container gets it',
    tsmacvlan:
      "engines from 28: the first container gets it, unless somebody has it on the LAN; with Docker's IPAM the start is refused then, and `--aux-address router=` with the address keeps it from containers",
    reason: 'an engine that is to make up no gateway keeps no address for it',
    engines: ['28.5.2'],
    scenarios: ['the lowest address of an IPv6 subnet'],
  },
  {
    subject: 'MAC address in mode passthru',
    macvlan: 'that of the parent is changed while a container has it',
    tsmacvlan: 'the container takes that of the parent, which stays as it is',
    reason: "the host's own addresses there, its DHCP lease and its port of the switch keep the MAC that they know",
    scenarios: ['mode passthru'],
    fact: /(MacAddress|address)$/,
    values: [/^MAC (FROM ADDRESS|BY CHANCE)$/, /^MAC OF lan1$/],
  },
  {
    subject: "alias of a container's interface and of a parent that was made (`ip -d link`)",
    macvlan: 'none',
    tsmacvlan: '`tsmacvlan endpoint ID`, `tsmacvlan parent`',
    reason: 'ownership stands on the link itself: only what carries it is ever removed',
    fact: /› ifalias$/,
    values: [undefined, /^tsmacvlan (endpoint ENDPOINT|parent)$/],
  },
  {
    subject: 'transmit queue length of the interface in the container',
    macvlan: '0',
    tsmacvlan: '1000',
    reason:
      "the kernel's own, as with `ip link add`; a queue discipline added in the container takes its limit from it",
    fact: /› txqlen$/,
    values: [undefined, /^1000$/],
  },
  {
    subject: 'two networks on one parent',
    macvlan: 'engines before 27 refuse the second',
    tsmacvlan: 'works with every engine, except beside mode passthru',
    reason: 'the kernel allows it',
    engines: ['20.10.24', '26.1.5'],
    scenarios: ['two networks on one parent'],
  },
  {
    subject: 'two networks on one subnet, by ranges, with the same gateway',
    macvlan: 'refused: the gateway is an address in use',
    tsmacvlan: 'with `--ipam-driver tsmacvlan` they share it',
    reason: 'it is one LAN with one router',
    casts: ['tsmacvlan with its IPAM'],
    scenarios: ['networks share a subnet and a gateway'],
  },
  {
    subject: '`-o mtu=`',
    macvlan: 'ignored',
    tsmacvlan: "sets it, up to the parent's",
    reason: 'tunnels and storage need it',
    scenarios: ['an MTU for the network'],
    fact: /\bmtu$/,
    values: [/^1500$/, /^1300$/],
  },
  {
    subject: 'an `-o` option that does not exist',
    macvlan: 'ignored',
    tsmacvlan: 'refused, with the name that was probably meant; keys that begin with `com.docker.network.` pass',
    reason: '`-o parnt=eth0` would otherwise make an isolated network without a word',
    scenarios: ['an option that nobody knows'],
  },
  {
    subject: 'a parent that is the port of a bridge, bond or team',
    macvlan: 'taken; then no container starts',
    tsmacvlan: 'refused, with the name of the bridge to give instead',
    reason: 'the mistake is said where it is made',
    scenarios: ['parents that carry no macvlan'],
  },
  {
    subject: 'a parent that is a macvlan or ipvlan itself',
    macvlan: 'taken; the kernel puts the container beside it, on the interface below',
    tsmacvlan: 'refused, with the name of the interface below',
    reason: '`docker network inspect` would name another parent than the containers have',
    scenarios: ['a macvlan as parent'],
  },
  {
    subject: 'a subnet with host bits, as `--subnet 192.168.1.1/16`',
    macvlan: 'taken by engines before 25, refused by newer ones',
    tsmacvlan: 'with `--ipam-driver tsmacvlan` refused with every engine, with the subnet that was probably meant',
    reason: 'containers would get addresses of another subnet than it looks',
    engines: ['20.10.24'],
    casts: ['tsmacvlan with its IPAM'],
    scenarios: ['host bits in the subnet, with an engine that does not look at them'],
  },
  {
    subject: 'a subnet larger than /8, as `--subnet 64.0.0.0/2`',
    macvlan: 'taken; `0.0.0.0/0` is refused',
    tsmacvlan: 'with `--ipam-driver tsmacvlan` all of them are refused, this one because 127.0.0.0/8 lies in it',
    reason: 'no LAN is that large: containers would ask their neighbours for the addresses of the Internet',
    casts: ['tsmacvlan with its IPAM'],
    scenarios: ['a subnet larger than any LAN'],
  },
  {
    subject: 'the interface of a network without parent',
    macvlan: '`dm-` and twelve digits, a dummy link',
    tsmacvlan: '`tsmi` and eleven digits; a dummy link, or where the kernel has none another kind with the same effect',
    reason: 'works on kernels without dummy links',
    scenarios: [
      'no parent, no subnet',
      'no parent, internal',
      'no parent, several subnets of both families',
      'no parent, two addresses',
    ],
    fact: /› host › (dm-|tsmi)/,
  },
  {
    subject: 'IPv6 of the host on a VLAN that was made for a network',
    macvlan: 'the host gets a link-local address there, and others from routers',
    tsmacvlan: 'none',
    reason: 'a VLAN made for containers does not put the host on it',
    scenarios: ['networks outlive the engine', 'a VLAN made on the way goes with its last network'],
    fact: /› host › lan0\.\d+ › addr_info/,
  },
  {
    subject: 'a name asked for the interface (driver-opt `com.docker.network.endpoint.ifname`)',
    macvlan: 'engines from 28: that name',
    tsmacvlan: '`net0` comes true; `lan` becomes `lan0`',
    reason: 'engines before 29.8 append a number to the name that a plugin asks for (moby#52866)',
    isForced: true,
    engines: ['28.5.2'],
    scenarios: ['a name asked for the interface'],
  },
  {
    subject: "the container's own name in its `/etc/hosts`, with `--ipam-driver tsmacvlan`",
    macvlan: '`192.0.2.1 web`',
    tsmacvlan: 'engines from 28: `::ffff:192.0.2.1 web`; with IPv6 switched off by `--sysctl`, nothing',
    reason:
      'these engines write the address of any IPAM plugin so (libnetwork `getEtcHostsAddrs`); glibc reads it as IPv4',
    isForced: true,
    engines: ['28.5.2'],
    casts: ['tsmacvlan with its IPAM'],
    fact: /› hosts$/,
    values: [/; [^:;]+\tID OF/, /^(?!.*; [^:;]+\tID OF)/],
  },
  {
    subject: 'a gateway that nobody named, in `docker network inspect` after a restart of the engine',
    macvlan: 'shown under IPAM.Config from then on',
    tsmacvlan: 'with `--ipam-driver tsmacvlan` as before the restart; containers have it anyway',
    reason: 'the engine asks its own IPAM again; ours keeps what it knows and need not be asked',
    isForced: true,
    casts: ['tsmacvlan with its IPAM'],
    scenarios: ['networks outlive the engine'],
    fact: /› IPAM › Config › 0 › Gateway$/,
  },
];

export function compare(
  where: Pick<Difference, 'engine' | 'cast' | 'scenario'>,
  macvlan: Performance,
  tsmacvlan: Performance,
): Difference[] {
  const facts = new Set([...macvlan.facts.keys(), ...tsmacvlan.facts.keys()]);
  return [...facts]
    .map((fact) => ({ ...where, fact, macvlan: macvlan.facts.get(fact), tsmacvlan: tsmacvlan.facts.get(fact) }))
    .filter((pair) => pair.macvlan !== pair.tsmacvlan);
}

export function isWanted(difference: Difference, wanted: WantedDifference): boolean {
  const { engines, casts, scenarios, fact, values } = wanted;
  if (engines && !engines.includes(difference.engine)) return false;
  if (casts && !casts.includes(difference.cast)) return false;
  if (scenarios && !scenarios.includes(difference.scenario)) return false;
  if (fact && !fact.test(difference.fact)) return false;
  return !values || (matches(difference.macvlan, values[0]) && matches(difference.tsmacvlan, values[1]));
}

function matches(value: string | undefined, expected: RegExp | undefined): boolean {
  return value === undefined || expected === undefined ? value === expected : expected.test(value);
}

/**
 * The glossary: what tsmacvlan remembers, as plain data. A record printed by the CLI is exactly one of these, with the
 * addresses of an endpoint as text (store/codec.ts).
 * Names are Docker's (network, endpoint, pool, subpool) and the kernel's (parent, link, mode). Imports nothing.
 */

/** How siblings on one parent see each other; the kernel's MACVLAN_MODE_* of the same names (linux/if_link.h). */
export const MODES = ['bridge', 'private', 'vepa', 'passthru'] as const;
export type Mode = (typeof MODES)[number];

export const FAMILIES = ['IPv4', 'IPv6'] as const;
export type Family = (typeof FAMILIES)[number];

/** An address with the length of the subnet it lies in, as a link has it: `192.168.1.2/24` (arithmetic in address.ts). */
export interface InterfaceAddress {
  readonly family: Family;
  /** 0 to 2^32-1 or 2^128-1. */
  readonly value: bigint;
  /** Prefix length: 0 to 32 or 128 bits. */
  readonly length: number;
}

/** One subnet of a network as the engine told CreateNetwork: `{subnet: '192.168.1.0/24', gateway: '192.168.1.1'}`. */
export interface Subnet {
  readonly addressSpace: string;
  readonly subnet: string;
  readonly gateway: string | null;
}

/** A subnet whose addresses came from our own IPAM knows the realm of its leases; null with another IPAM driver. */
export interface NetworkSubnet extends Subnet {
  readonly realm: string | null;
}

export const VLAN_PROTOCOLS = ['802.1q', '802.1ad'] as const;
export type VlanProtocol = (typeof VLAN_PROTOCOLS)[number];

/** How the LAN is asked whether somebody has an address: not at all, within a second, or as RFC 5227 and RFC 4862 say. */
export const PROBE_PROFILES = ['off', 'fast', 'rfc'] as const;
export type ProbeProfile = (typeof PROBE_PROFILES)[number];

/** What becomes of a container that wants an address which somebody else on the LAN has: no start, or a warning. */
export const CONFLICT_POLICIES = ['refuse', 'warn'] as const;
export type ConflictPolicy = (typeof CONFLICT_POLICIES)[number];

/** How containers get an IPv6 address beside the IPv4 one: in whatever way the LAN's routers advertise; of their prefix; of a DHCPv6 server. */
export const IPV6_METHODS = ['auto', 'slaac', 'dhcp'] as const;
export type IPv6Method = (typeof IPV6_METHODS)[number];

/** What `-o` says, read and checked once in network/options.ts. */
export interface NetworkOptions {
  /** As typed after `-o parent=`: a link, `eth0.50`, an alias of PARENTS, or `auto`; null when none was given. */
  readonly parent: string | null;
  /** `-o vlan=50` or, stacked, `-o vlan=10.20` (outer first); empty when none was given. */
  readonly vlan: readonly number[];
  /** Protocol of the outermost tag; inner ones are always 802.1Q. */
  readonly vlanProtocol: VlanProtocol;
  readonly mode: Mode;
  /** Bytes; null takes the parent's. */
  readonly mtu: number | null;
  /** The first two bytes of generated MAC addresses, `02:42`. */
  readonly macPrefix: string;
  /** False after `-o gateway=none`: containers get no default route here. */
  readonly gateway: boolean;
  /** Only these families get a gateway, after `-o gateway=ipv4` or `ipv6`; absent for both. */
  readonly gatewayFamilies?: readonly Family[];
  /** `-o gateway=` with addresses: they go before those that the engine tells; absent without. */
  readonly gatewayAddresses?: readonly string[];
  /** How often a container's address is announced, and the milliseconds between; absent for what the RFCs say. */
  readonly announcements?: AnnouncementOptions;
  /** Frames queued for broadcast on the parent (IFLA_MACVLAN_BC_QUEUE_LEN); null takes the kernel's 1000. */
  readonly broadcastQueueLength: number | null;
  /** The parent takes frames of every MAC address while the network exists. */
  readonly promiscuous: boolean;
  /** `--ipam-opt probe=` goes before `-o probe=`; null takes the setting PROBE. */
  readonly probe: ProbeProfile | null;
  /** For an address that was named, or that another IPAM chose; null takes the setting CONFLICT. */
  readonly conflict: ConflictPolicy | null;
  /** The host and the containers reach each other through a sub-interface of the host's own. */
  readonly hostAccess: boolean;
  /** Addresses wished for the host's end, at most one per family; those missing are chosen from the pool. */
  readonly hostAddresses: readonly string[];
  /** Addresses come from the LAN's DHCP server; absent where an IPAM of Docker's gives them. */
  readonly source?: 'dhcp';
  /** Where containers get an IPv6 address as well; absent where they get none. */
  readonly ipv6?: IPv6Method;
  /** The DHCP server is told when a container stops; absent where it is told only when the network goes. */
  readonly release?: 'stop';
}

/** `-o com.docker.network.advertise_addr_nmsgs` and `-o com.docker.network.advertise_addr_ms`. */
export interface AnnouncementOptions {
  /** 0 to 3; undefined as usual. */
  readonly times?: number;
  /** Milliseconds, 100 to 2000; undefined as usual. */
  readonly gapMs?: number;
}

/** The link that carries a network's sub-interfaces. */
export interface ParentLink {
  /** Name on this host: `eth0`, `eth0.50`, `tsmi0123456789a`. */
  readonly name: string;
  /** True when this driver made it, so that it is made again after a reboot and removed with its last network. */
  readonly made: boolean;
  /** True when this driver switched promiscuous mode on; what the administrator switched on stays on. */
  readonly promiscuous: boolean;
  /** How it is made: VLAN tags (outer first) on a base link, or nothing but itself. Null for a link found as it is. */
  readonly recipe: VlanRecipe | 'isolated' | null;
}

/**
 * VLAN tags on a base link: `{ base: 'eth0', vlan: [10, 20], protocol: '802.1ad' }`; the protocol is the outer tag's.
 */
export interface VlanRecipe {
  readonly base: string;
  readonly vlan: readonly number[];
  readonly protocol: VlanProtocol;
}

/** A Docker network of this driver. Key: `id`. */
export interface Network {
  readonly id: string;
  readonly options: NetworkOptions;
  readonly parent: ParentLink;
  /** Docker's `--internal`. */
  readonly internal: boolean;
  readonly subnets: readonly NetworkSubnet[];
  /** The host's own addresses on the parent (host access), without prefix length; empty without. */
  readonly hostAddresses: readonly string[];
  /** ISO 8601. */
  readonly createdAt: string;
  /** CreateNetwork is under way. The engine knows of none of which it was not answered: the next start takes it away. */
  readonly isPending?: true;
  /** From a stop of the daemon to its next start: addresses, as `192.168.1.2/24`, of containers that were stopped just before. */
  readonly left?: readonly string[];
}

/** The LAN below a parent, as one network uses it. */
export interface Segment {
  readonly parentName: string;
  readonly mode: Mode;
  /** How the LAN is asked; null takes the setting PROBE. */
  readonly profile: ProbeProfile | null;
}

/** Null for an isolated network, which is on no LAN. */
export function segmentOf({ parent, options }: Network): Segment | null {
  return parent.recipe === 'isolated' ? null : { parentName: parent.name, mode: options.mode, profile: options.probe };
}

/** A swarm's networks have ids of 25 letters and digits; those of an engine alone are 64 hexadecimal digits. */
export function isOfSwarm(networkId: string): boolean {
  return !/^[0-9a-f]{64}$/.test(networkId);
}

/**
 * `created`: the link is in the host's namespace and Join is awaited. `joined`: the engine moved it into a sandbox.
 * `deleting`: DeleteEndpoint was acknowledged, the link may still exist and is removed at the latest by the next start.
 */
export type EndpointState = 'created' | 'joined' | 'deleting';

/** A container's attachment to a network. Key: `id`. */
export interface Endpoint {
  readonly id: string;
  readonly networkId: string;
  readonly state: EndpointState;
  /** The name of the link below: the network's parent on this host. */
  readonly parent: string;
  /** The sub-interface's name in the host's namespace, at most 15 bytes. */
  readonly linkName: string;
  /** Lower case with colons: `02:42:c0:a8:01:02`. */
  readonly macAddress: string;
  /** At most one of each family, IPv4 first; empty when the network has no addresses. */
  readonly addresses: readonly InterfaceAddress[];
  /** Name wished for inside the container (endpoint driver-opt `ifname`); null when none. */
  readonly interfaceName: string | null;
  /** What was typed after `-p`, the first few; absent where nothing was. */
  readonly ignoredPorts?: readonly string[];
  /** ISO 8601, when its parent went, and its interface with it; absent while it has one. A start of its container brings a new one. */
  readonly lostAt?: string;
  /** ISO 8601, of the last change of state. */
  readonly changedAt: string;
}

/** A range of addresses that the engine requested (RequestPool). Key: `id`, a pure function of the other request fields. */
export interface Pool {
  readonly id: string;
  readonly addressSpace: string;
  readonly subnet: string;
  /** Docker's `--ip-range`; null when the whole subnet is the range. */
  readonly range: string | null;
  /** `--ipam-opt` as given. */
  readonly options: Readonly<Record<string, string>>;
  /** The network that CreateNetwork tied to this pool; null before, and for networks of other drivers. */
  readonly networkId: string | null;
  /** The last address given where their order is sequential; absent before the first. */
  readonly lastGiven?: string;
  /** Where a manager of a swarm here allocated networks from it; absent otherwise. */
  readonly swarm?: SwarmAllocation;
  readonly createdAt: string;
  readonly changedAt: string;
}

/** A pool in the hands of a swarm's managers (ipam/swarm.ts). */
export interface SwarmAllocation {
  /** Counts the leaders who claimed again what is in use. */
  readonly round: number;
  /** Ids of swarm networks, each with the round in which it was allocated last. */
  readonly networks: Readonly<Record<string, number>>;
}

/** `gateway` and `auxiliary` are requested when a network is made, `container` by a run, `host` is ours (host access). */
export type LeaseKind = 'gateway' | 'auxiliary' | 'container' | 'host';

/** An address given out. Key: realm and address, so no address exists twice in a realm. */
export interface Lease {
  /** Addresses are unique within a realm: address space, and `--ipam-opt parent=` when given (store.ts realmOf). */
  readonly realm: string;
  /** Canonical, without prefix length: `192.168.1.2`, `fd00::2`. */
  readonly address: string;
  readonly kind: LeaseKind;
  /** The pools that hold it; several only for a gateway shared by networks on one subnet. */
  readonly poolIds: readonly string[];
  /** The endpoint that uses it; null until CreateEndpoint and after DeleteEndpoint. */
  readonly endpointId: string | null;
  /** The name of the container it was given to, where the engine said it (29 and later); absent otherwise. */
  readonly name?: string;
  /** True for a gateway that nobody named and that was chosen here; absent otherwise. */
  readonly isUnnamed?: true;
  /** True while `tsmacvlan reserve` asks the LAN for the address, for the container of the name; absent otherwise. */
  readonly isReserving?: true;
  /** The round of its pool in which a swarm's manager claimed it last; absent where no manager did. */
  readonly round?: number;
  /**
   * The process of a swarm's manager that is about to answer with it; absent otherwise. Where that process has ended nobody was
   * told of the address.
   */
  readonly askedBy?: string;
  /** Another host that has it, in a store that hosts share; absent for what this host has. */
  readonly holder?: Holder;
  readonly changedAt: string;
}

/**
 * The address that a container's name had last on a network, or that an administrator reserved for it. Key: pool and name. The
 * pool's id is its description, so a network that is removed and created in the same way finds what was remembered.
 */
export interface Remembered {
  readonly poolId: string;
  /** As the engine says it; empty where a freed address only rests (`--ipam-opt order=rested`). */
  readonly name: string;
  /** Canonical, without prefix length. No address is remembered twice in a realm. */
  readonly address: string;
  /** That was generated for it; null where the user named one, or none is known. */
  readonly macAddress: string | null;
  /** True after `tsmacvlan reserve`: it neither ends by itself nor moves. */
  readonly isReserved: boolean;
  /** ISO 8601, when it was given or given back last. */
  readonly usedAt: string;
}

/** A host in a shared store. */
export interface Holder {
  /** `web1-3f2a9c1d04be`: the name it had at its first start, and what tells it from others of that name. */
  readonly node: string;
  /** False when it has not been heard of for so long that its addresses may be given to others, once the LAN was asked. */
  readonly isAlive: boolean;
}

/**
 * `address`: an address of a network is in a stranger's hands. `mac`: another host has the MAC address of a container, with an
 * address of its own.
 */
export type ConflictKind = 'address' | 'mac';

/** What somebody else on the LAN has and a container should. Key: parent and address, or parent and MAC address. */
export interface Conflict {
  readonly kind: ConflictKind;
  readonly parent: string;
  /** Canonical, without prefix length. Of kind `mac`: one that the other has. */
  readonly address: string;
  /** The other's. */
  readonly macAddress: string;
  /** The container's that had the address at that moment; null when it was found out before one got it. */
  readonly ourMacAddress: string | null;
  /** The host's own link that has the address too; null when it is in another machine's hands. */
  readonly hostLink: string | null;
  /** The host of the shared store whose container has it too, several with spaces between; absent where that is not known. */
  readonly node?: string;
  /** Which of the containers is the newer, by the clocks of both hosts; null where that is not known. */
  readonly newer?: 'here' | 'there' | null;
  /** How often it was seen since the first time. */
  readonly count: number;
  readonly firstSeenAt: string;
  readonly seenAt: string;
  /** When it was found that nobody uses it any more; null while it lasts. */
  readonly endedAt: string | null;
}

/**
 * `bound`: a container has it, and it is renewed. `aside`: kept for the container's next start. `lost`: the server has taken it
 * away, or has been silent until its end, and a container goes on with it.
 */
export type TenancyState = 'bound' | 'aside' | 'lost';

/** Why a lease is not kept. `silent`: no server answered until its end. `refused`: a server said so, or gives only others. */
export type LeaseLoss = 'silent' | 'refused';

/** A route that came with a lease of a DHCP server; the gateway is null where the destination is on the LAN itself. */
export interface LeasedRoute {
  /** `10.9.0.0/16` */
  readonly destination: string;
  readonly gateway: string | null;
}

/**
 * A MAC address with what a DHCP server gave it. It outlives its container, since a server knows its clients by their MAC
 * addresses. Key: parent and MAC address.
 */
export interface Tenancy {
  readonly parent: string;
  readonly macAddress: string;
  readonly networkId: string;
  /** `mac`: the user named the MAC address. `host:web`: it follows from `hostname=web`. Null where it was made by chance. */
  readonly owner: string | null;
  /** The endpoint that has it, or had it last; null for none. */
  readonly endpointId: string | null;
  /** What the server is told as the container's name; null for none. */
  readonly hostname: string | null;
  /** `192.168.1.2/24` */
  readonly address: string;
  readonly server: string;
  /** Where the server's frames come from, which is a relay's when it is not on this LAN. */
  readonly serverMac: string;
  readonly leaseSeconds: number;
  readonly t1Seconds: number | null;
  readonly t2Seconds: number | null;
  /** ISO 8601, when the server gave it or renewed it last. */
  readonly obtainedAt: string;
  readonly routers: readonly string[];
  /** Null where the server gives none, and the routers count. */
  readonly routes: readonly LeasedRoute[] | null;
  readonly dnsServers: readonly string[];
  readonly domain: string | null;
  readonly mtu: number | null;
  /** What it has of the LAN's routers beside; absent for nothing. */
  readonly ipv6?: TenancyIPv6;
  readonly state: TenancyState;
  /** Why it is `lost`; absent otherwise. */
  readonly loss?: LeaseLoss;
  /** ISO 8601, of the last change of state. */
  readonly changedAt: string;
}

/** The IPv6 address that goes with a MAC address on a LAN. */
export type TenancyIPv6 = MadeIPv6 | LeasedIPv6;

/** Of the prefix that a router advertises. */
export interface MadeIPv6 {
  readonly how: 'slaac';
  /** `2001:db8::42:5eff:fe10:11/64` */
  readonly address: string;
  /** The router's link-local address. */
  readonly server: string;
  /** ISO 8601. */
  readonly obtainedAt: string;
}

/** Of a DHCPv6 server. */
export interface LeasedIPv6 {
  readonly how: 'dhcpv6';
  /** `2001:db8::50/128` */
  readonly address: string;
  /** The server's DUID in hexadecimal digits. */
  readonly server: string;
  /** 0 for one that was given back. */
  readonly leaseSeconds: number;
  readonly t1Seconds: number | null;
  readonly t2Seconds: number | null;
  /** ISO 8601, when the server gave it or renewed it last. */
  readonly obtainedAt: string;
  /** As that of a tenancy. */
  readonly state: 'bound' | 'lost';
  /** Why it is `lost`; absent otherwise. */
  readonly loss?: LeaseLoss;
}

/** What is recorded, by the name of its table. */
export interface Records {
  readonly networks: readonly Network[];
  readonly endpoints: readonly Endpoint[];
  readonly pools: readonly Pool[];
  readonly leases: readonly Lease[];
  readonly conflicts: readonly Conflict[];
  readonly names: readonly Remembered[];
  readonly tenancies: readonly Tenancy[];
}

export type TableName = keyof Records;

export const TABLES = [
  'networks',
  'endpoints',
  'pools',
  'leases',
  'conflicts',
  'names',
  'tenancies',
] as const satisfies TableName[];

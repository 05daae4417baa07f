/**
 * Docker's JSON shapes exactly as on the wire (moby libnetwork drivers/remote/api/api.go, ipams/remote/api/api.go).
 *
 * A body is `unknown` until a reader here has checked it, once, and turned it into our own types; nobody checks again.
 * Keys nobody asked for are ignored, wrong types are refused. Docker's PascalCase exists only in this file.
 */
import * as v from 'valibot';
import { formatInterfaceAddress, parseInterfaceAddress } from '../address.ts';
import type { InterfaceAddress, LeasedRoute, Subnet } from '../model.ts';
import type {
  AddressRequest,
  AllocationRequest,
  Attachment,
  CreatedEndpoint,
  EndpointRequest,
  GatewayCheck,
  NetworkRequest,
  PoolRequest,
  Unlimited,
} from '../requests.ts';

import {
  anyObject,
  knownName,
  NAME_LENGTH,
  object,
  optionalText,
  reader,
  SHORT_TEXT,
  text,
  TEXT_LENGTH,
} from './shapes.ts';

// --- shapes ------------------------------------------------------------------------------------------------------

/** Hexadecimal (64 digits) for networks and endpoints of one engine, 25 letters and digits for networks of a swarm. */
const id = v.pipe(
  v.string(),
  v.regex(/^[A-Za-z0-9][\w.-]{0,255}$/, 'an id of 1 to 256 letters, digits, ".", "_" or "-"'),
);

/** Ours, as ipam/pool.ts made it. */
const poolId = v.pipe(text, v.regex(/^\P{C}+$/u, 'the PoolID that RequestPool answered'));

/** A Go map of texts, null when empty. Every key stays, also `__proto__` (as an own key), so that it can be refused. */
const textMap = v.pipe(
  v.nullish(anyObject, {}),
  v.rawTransform<Record<string, unknown>, Record<string, string>>(({ dataset, addIssue, NEVER }) => {
    const entries: [string, string][] = [];
    for (const [key, value] of Object.entries(dataset.value)) {
      if (typeof value !== 'string' || value.length > TEXT_LENGTH) {
        const item = { type: 'object', origin: 'value', input: dataset.value, key, value } as const;
        addIssue({ message: SHORT_TEXT, input: value, path: [item] });
        return NEVER;
      }
      entries.push([key, value]);
    }
    return Object.fromEntries(entries);
  }),
);

/** One of IPv4Data, IPv6Data. The gateway comes with its prefix length; Go prints a missing one as `<nil>` in a swarm. */
const subnet = v.pipe(
  object({ AddressSpace: v.nullish(text, ''), Pool: text, Gateway: optionalText }),
  v.transform(
    ({ AddressSpace, Pool, Gateway }): Subnet => ({
      addressSpace: AddressSpace,
      subnet: Pool,
      gateway: Gateway === null || Gateway === '<nil>' ? null : withoutLength(Gateway),
    }),
  ),
);

const subnets = v.nullish(v.array(subnet), []);

/**
 * Goes with a swarm network's options once a leader has allocated it: the managers keep what AllocateNetwork answers, send
 * it with every repetition, and to the nodes. Nothing else tells a repetition from a new network of the same description.
 */
const ALLOCATED = 'tsmacvlan.allocated';

function withoutMark({ [ALLOCATED]: _mark, ...options }: Readonly<Record<string, string>>): Record<string, string> {
  return options;
}

const networkOptions = v.pipe(
  v.nullish(
    object({
      'com.docker.network.generic': textMap,
      'com.docker.network.internal': v.nullish(v.boolean(), false),
      // Engines before 28 know no IPv6-only networks and do not send it.
      'com.docker.network.enable_ipv4': v.nullish(v.boolean(), null),
      'com.docker.network.enable_ipv6': v.nullish(v.boolean(), false),
    }),
    {},
  ),
  v.transform((options) => ({
    options: withoutMark(options['com.docker.network.generic']),
    internal: options['com.docker.network.internal'],
    enableIPv4: options['com.docker.network.enable_ipv4'] ?? true,
    enableIPv6: options['com.docker.network.enable_ipv6'],
    skipsGateways: options['com.docker.network.enable_ipv4'] !== null,
  })),
);

const portNumber = v.nullish(v.number(), 0);

/** `-p 127.0.0.1:8080:80` reads `127.0.0.1:8080->80/tcp`, as `docker ps` prints it. */
const publishedPort = v.pipe(
  object({ Proto: portNumber, Port: portNumber, HostIP: optionalText, HostPort: portNumber, HostPortEnd: portNumber }),
  v.transform(({ Proto, Port, HostIP, HostPort, HostPortEnd }) => {
    const host = HostPortEnd > HostPort ? `${HostPort}-${HostPortEnd}` : `${HostPort || ''}`;
    const from = [HostIP, host].filter(Boolean).join(':');
    return `${from && `${from}->`}${Port}/${PROTOCOLS.get(Proto) ?? Proto}`;
  }),
);

/** IANA protocol numbers of what Docker publishes. */
const PROTOCOLS: ReadonlyMap<number, string> = new Map([
  [6, 'tcp'],
  [17, 'udp'],
  [132, 'sctp'],
]);

const endpointOptions = v.nullish(
  object({
    'com.docker.network.endpoint.ifname': optionalText,
    'com.docker.network.portmap': v.nullish(v.array(publishedPort), []),
    ip: optionalText,
    hostname: optionalText,
  }),
  {},
);

// --- NetworkDriver: what the engine asks -------------------------------------------------------------------------

export const readCreateNetwork = reader(
  v.pipe(
    object({ NetworkID: id, Options: networkOptions, IPv4Data: subnets, IPv6Data: subnets }),
    v.transform(
      ({ NetworkID, Options, IPv4Data, IPv6Data }): NetworkRequest => ({
        networkId: NetworkID,
        ...Options,
        subnets: [...IPv4Data, ...IPv6Data],
      }),
    ),
  ),
);

/** Swarm managers: here the `-o` options are the map itself. */
export const readAllocateNetwork = reader(
  v.pipe(
    // IPv6 subnets come among the others (moby cnmallocator allocateDriverState).
    object({ NetworkID: id, Options: textMap, IPv4Data: subnets }),
    v.transform(
      ({ NetworkID, Options, IPv4Data }): AllocationRequest => ({
        networkId: NetworkID,
        options: withoutMark(Options),
        isRepeated: ALLOCATED in Options,
        subnets: IPv4Data,
      }),
    ),
  ),
);

export const readGatewayCheck = reader(
  v.pipe(
    object({ Options: networkOptions }),
    v.transform(({ Options }): GatewayCheck => Options),
  ),
);

export const readNetwork = reader(
  v.pipe(
    object({ NetworkID: id }),
    v.transform(({ NetworkID }) => ({ networkId: NetworkID })),
  ),
);

export const readEndpoint = reader(
  v.pipe(
    object({ NetworkID: id, EndpointID: id }),
    v.transform(({ NetworkID, EndpointID }) => ({ networkId: NetworkID, endpointId: EndpointID })),
  ),
);

export const readCreateEndpoint = reader(
  v.pipe(
    object({
      NetworkID: id,
      EndpointID: id,
      Interface: v.nullish(object({ Address: optionalText, AddressIPv6: optionalText, MacAddress: optionalText }), {}),
      Options: endpointOptions,
    }),
    v.transform(
      ({ NetworkID, EndpointID, Interface, Options }): Unlimited<EndpointRequest> => ({
        networkId: NetworkID,
        endpointId: EndpointID,
        ...readAddresses([Interface.Address, Interface.AddressIPv6]),
        macAddress: Interface.MacAddress,
        interfaceName: Options['com.docker.network.endpoint.ifname'],
        publishedPorts: Options['com.docker.network.portmap'],
        wishedAddress: Options.ip,
        hostname: Options.hostname,
      }),
    ),
  ),
);

/** The one place where an endpoint's addresses are parsed: from here on they are values. */
function readAddresses(texts: readonly (string | null)[]): Pick<EndpointRequest, 'addresses' | 'malformedAddresses'> {
  const addresses: InterfaceAddress[] = [];
  const malformedAddresses: string[] = [];
  for (const text of texts.filter((one) => one !== null)) {
    const address = parseInterfaceAddress(text);
    if (address === undefined) malformedAddresses.push(text);
    else addresses.push(address);
  }
  return { addresses: addresses.toSorted((a, b) => a.family.localeCompare(b.family)), malformedAddresses };
}

/** DiscoverNew and DiscoverDelete tell of swarm nodes; nothing in them is used. */
export const readDiscovery = reader(
  v.pipe(
    anyObject,
    v.transform(() => ({})),
  ),
);

// --- NetworkDriver: what we answer -------------------------------------------------------------------------------

/** Only fields that were "" in the request: the engine takes any other, also an equal one, for a change (driver.go). */
export function writeEndpoint({ macAddress, leased = [] }: CreatedEndpoint) {
  const fields: [string, string][] = [
    ...(macAddress === null ? [] : [['MacAddress', macAddress] as [string, string]]),
    ...leased.map((one): [string, string] => [FIELD_OF[one.family], formatInterfaceAddress(one)]),
  ];
  return { Interface: fields.length === 0 ? null : Object.fromEntries(fields) };
}

const FIELD_OF = { IPv4: 'Address', IPv6: 'AddressIPv6' } as const;

/** libnetwork types.RouteType: by a gateway, or on the link itself. */
const NEXT_HOP = 0;
const CONNECTED = 1;

function writeRoute({ destination, gateway }: LeasedRoute) {
  return gateway === null
    ? { Destination: destination, RouteType: CONNECTED }
    : { Destination: destination, RouteType: NEXT_HOP, NextHop: gateway };
}

/** DisableGatewayService: without it the engine joins a container that has no default route to docker_gwbridge. */
export function writeAttachment({ linkName, interfaceName, gateway, gatewayIPv6, routes }: Attachment) {
  return {
    InterfaceName: {
      SrcName: linkName,
      DstPrefix: interfacePrefix(interfaceName),
      ...(interfaceName !== null && { DstName: interfaceName }),
    },
    Gateway: gateway ?? '',
    GatewayIPv6: gatewayIPv6 ?? '',
    StaticRoutes: routes.map(writeRoute),
    DisableGatewayService: true,
  };
}

/**
 * Engines up to 29 ignore DstName of remote drivers (moby#52866) and append a number to DstPrefix: `net0` is attained by
 * `net`, `lan` becomes `lan0`. A name must fit IFNAMSIZ (15 bytes) with that number.
 */
function interfacePrefix(interfaceName: string | null): string {
  const prefix = interfaceName?.replace(/\d+$/, '') ?? '';
  return prefix === '' || Buffer.byteLength(prefix) > 13 ? 'eth' : prefix;
}

/** Whether the engine need not ask for a gateway (GwAllocCheck). */
export function writeGatewaySkip({ ipv4, ipv6 }: { ipv4: boolean; ipv6: boolean }) {
  return { SkipIPv4: ipv4, SkipIPv6: ipv6 };
}

/** Only port maps and MAC addresses would be read from it. */
export function writeOperInfo() {
  return { Value: {} };
}

/** What is answered here becomes the generic options of CreateNetwork on every node. */
export function writeAllocation({ options }: { options: Readonly<Record<string, string>> }) {
  return { Options: { ...options, [ALLOCATED]: 'true' } };
}

// --- IpamDriver: what the engine asks ----------------------------------------------------------------------------

export const readRequestPool = reader(
  v.pipe(
    object({
      AddressSpace: v.nullish(text, ''),
      Pool: optionalText,
      SubPool: optionalText,
      Options: textMap,
      V6: v.nullish(v.boolean(), false),
    }),
    v.transform(
      ({ AddressSpace, Pool, SubPool, Options, V6 }): PoolRequest => ({
        addressSpace: AddressSpace,
        pool: Pool,
        subPool: SubPool,
        options: withoutEngineKeys(Options),
        v6: V6,
      }),
    ),
  ),
);

export const readPool = reader(
  v.pipe(
    object({ PoolID: poolId }),
    v.transform(({ PoolID }) => ({ poolId: PoolID })),
  ),
);

export const readRequestAddress = reader(
  v.pipe(
    object({ PoolID: poolId, Address: optionalText, Options: textMap }),
    v.transform(
      ({ PoolID, Address, Options }): Unlimited<AddressRequest> => ({
        poolId: PoolID,
        address: Address,
        isGateway: Options['RequestAddressType'] === 'com.docker.network.gateway',
        serial: Options['com.docker.network.ipam.serial'] === 'true',
        name: readName(Options['com.docker.network.endpoint.name']),
      }),
    ),
  ),
);

/** Of an endpoint, which is its container's. A store keeps it and a terminal shows it; a longer one, as no engine forbids, is remembered nowhere. */
function readName(name: string | undefined): string | null {
  return name === undefined || name === '' || name.length > NAME_LENGTH ? null : knownName(name);
}

export const readReleaseAddress = reader(
  v.pipe(
    // Empty for an address that did not come from an IPAM (libnetwork endpoint.go releaseIPAddresses): nobody has leased it.
    object({ PoolID: v.pipe(text, v.regex(/^\P{C}*$/u, 'the PoolID that RequestPool answered')), Address: text }),
    v.transform(({ PoolID, Address }) => ({ poolId: PoolID, address: Address })),
  ),
);

/** Swarm managers use one map for all their requests: the second RequestPool carries what the first address wanted. */
function withoutEngineKeys(options: Readonly<Record<string, string>>): Record<string, string> {
  const isEngineKey = (key: string) => key === 'RequestAddressType' || key.startsWith('com.docker.network.');
  return Object.fromEntries(Object.entries(options).filter(([key]) => !isEngineKey(key)));
}

// --- IpamDriver: what we answer ----------------------------------------------------------------------------------

/** GetDefaultAddressSpaces. */
export function writeAddressSpaces({ local, global }: { local: string; global: string }) {
  return { LocalDefaultAddressSpace: local, GlobalDefaultAddressSpace: global };
}

/** The pool as `192.168.1.0/24`. */
/** `gateway`: with prefix length; null where the engine is to ask for one (libnetwork netlabel.Gateway). */
export function writePool({ poolId, pool, gateway }: { poolId: string; pool: string; gateway: string | null }) {
  return { PoolID: poolId, Pool: pool, Data: gateway === null ? {} : { 'com.docker.network.gateway': gateway } };
}

/** With prefix length: `192.168.1.2/24`. */
export function writeAddress({ address }: { address: string }) {
  return { Address: address, Data: {} };
}

// --- both --------------------------------------------------------------------------------------------------------

/** The answer of a call that only succeeds. */
export function writeNothing() {
  return {};
}

/** `192.168.1.2/24` → `192.168.1.2`. */
export function withoutLength(address: string): string {
  return address.replace(/\/\d+$/, '');
}

/**
 * Every sentence a user can see. One maker per mistake with typed arguments, so that no message can forget its value.
 *
 * House style: one line, lower case first, no full stop. First what is wrong, with the value as typed; after the
 * semicolon what to do, in the words of the option. No stack, no errno alone, no 64-digit ids.
 */

import type { LeaseKind } from './model.ts';

/** `mistake`: the user can mend it (HTTP 400, one log line). `fault`: we or the world (HTTP 500, logged with cause). */
export type Kind = 'mistake' | 'fault';

/** A sentence for the user, as `message`; what caused it, if anything did, as `cause` for the log. */
export class PluginError extends Error {
  /** Stable, for tests and logs: `PARENT_MISSING`. */
  readonly code: string;
  readonly kind: Kind;

  constructor(kind: Kind, code: string, message: string, cause?: unknown) {
    super(message, cause === undefined ? undefined : { cause });
    this.name = 'PluginError';
    this.kind = kind;
    this.code = code;
  }
}

function mistake(code: string, message: string): PluginError {
  return new PluginError('mistake', code, message);
}

function fault(code: string, message: string, cause?: unknown): PluginError {
  return new PluginError('fault', code, message, cause);
}

/** Twelve digits of an id, as Docker prints it. */
export function short(id: string): string {
  return id.slice(0, 12);
}

/** A value as typed, quoted; control characters escaped and long values cut, so that nothing reaches a terminal raw. */
export function quote(value: unknown): string {
  return quoteWhole(typeof value === 'string' && value.length > 80 ? `${value.slice(0, 77)}...` : value);
}

/** A value of a known length that is to be copied. */
function quoteWhole(value: unknown): string {
  return escapeControls(JSON.stringify(value) ?? 'undefined');
}

/** What a terminal would obey (controls), or turn round or hide (U+202E and other format characters), is printed as an escape. */
export function escapeControls(text: string): string {
  const escape = (unit: string) => `\\u${unit.charCodeAt(0).toString(16).padStart(4, '0')}`;
  return text.replace(/[\p{Cc}\p{Cf}\u2028\u2029]/gu, (c) => c.split('').map(escape).join(''));
}

// --- the engine's calls ------------------------------------------------------------------------------------------

export const emptyBody = (call: string) =>
  mistake(
    'EMPTY_BODY',
    `empty request body for ${call} (an engine's retry after a broken connection, moby#35459); nothing was changed, run the command again`,
  );

/** `call` is what the URL said, `Plugin.Activate` without the slash. */
export const unknownCall = (call: string) =>
  mistake('UNKNOWN_CALL', `unknown call ${quote(call)}; this plugin answers NetworkDriver and IpamDriver calls`);

export const wrongMethod = (method: string, call: string) =>
  mistake('WRONG_METHOD', `${call} was asked with ${quote(method)}; use POST`);

export const bodyTooLarge = (limitBytes: number) =>
  mistake('BODY_TOO_LARGE', `request body is larger than ${limitBytes} bytes; nothing was changed, send a smaller one`);

export const bodyNotJson = (bytes: number) =>
  mistake(
    'BODY_NOT_JSON',
    `request body of ${bytes} bytes is not complete JSON; nothing was changed, run the command again`,
  );

/** `reason`: what the HTTP library said. */
export const bodyUnreadable = (reason: string) =>
  mistake('BODY_UNREADABLE', `request body cannot be read (${reason}); nothing was changed, run the command again`);

export const missingField = (field: string) =>
  mistake(
    'MISSING_FIELD',
    `field ${quote(field)} is missing in the request; nothing was changed, please report this with the output of docker version`,
  );

/** `expected` and `received` as nouns: `text`, `a list`. An empty `field` is the whole body. */
export const wrongField = (field: string, expected: string, received: string) =>
  mistake(
    'WRONG_FIELD',
    `${field === '' ? 'the request body' : `field ${quote(field)}`} must be ${expected}, not ${received}; nothing was changed, please report this with the output of docker version`,
  );

/** What the user typed is in it: a name, an address, an option. Lengths in characters. */
export const textTooLong = (field: string, length: number, most: number) =>
  mistake(
    'TEXT_TOO_LONG',
    `field ${quote(field)} must be text of at most ${most} characters, not of ${length}; nothing was changed, give a shorter one`,
  );

export const containerNameLong = (name: string, length: number, most: number) =>
  mistake(
    'CONTAINER_NAME_LONG',
    `container name ${quote(name)} has ${length} characters, and an address is reserved for at most ${most}; choose a shorter name`,
  );

export const containerName = (name: string) =>
  mistake(
    'CONTAINER_NAME',
    `container name ${quote(name)} has white space or control characters in it; nothing was changed, choose another name`,
  );

export const callTooSlow = (call: string, deadlineMs: number) =>
  fault(
    'CALL_TOO_SLOW',
    `${call} was not done within ${deadlineMs / 1000} s and was given up; look for the cause in the log of tsmacvlan and try again`,
  );

export const hungUp = (call: string) =>
  fault('HUNG_UP', `the engine hung up before ${call} was done, and nothing of it is left; start the container again`);

export const stopping = () =>
  fault('STOPPING', 'tsmacvlan is stopping and could not wait for the end of this call; try again when it is back');

export const internalError = (call: string, cause: unknown) =>
  fault('INTERNAL', `internal error in ${call}; its cause is in the log of tsmacvlan, please report it`, cause);

// --- the socket --------------------------------------------------------------------------------------------------

/** `setting`: which names the path, SOCKET or ALIAS_SOCKET. */
export const socketHeld = (path: string, setting: string) =>
  mistake(
    'SOCKET_HELD',
    `socket ${quote(path)} belongs to a program that answers on it; stop that one first, or set ${setting} to another path`,
  );

export const socketBlocked = (path: string, setting: string) =>
  mistake(
    'SOCKET_BLOCKED',
    `${quote(path)} exists and is not a socket; move it away, or set ${setting} to another path`,
  );

/** sockaddr_un has 108 bytes with the closing zero (unix(7)). */
export const socketPathTooLong = (path: string, bytes: number, limit: number, setting: string) =>
  mistake(
    'SOCKET_TOO_LONG',
    `socket path ${quote(path)} takes ${bytes} bytes; set ${setting} to one of at most ${limit}`,
  );

/** `reason`: the system's words, `permission denied`. */
export const socketFailed = (path: string, reason: string, setting: string) =>
  mistake(
    'SOCKET_FAILED',
    `cannot listen on socket ${quote(path)} (${reason}); make its directory writable for this user, or set ${setting} to another path`,
  );

// --- one daemon per network namespace ------------------------------------------------------------------------------

/** `pid`: null when it cannot be seen from here, or is out of this PID namespace. `says`: null when it does not answer. */
export const daemonHeld = (
  pid: number | null,
  says: { readonly sockets: readonly string[]; readonly stateDirectory: string } | null,
) => {
  const who = pid === null ? 'in another PID namespace, as the managed plugin is (docker plugin ls)' : `process ${pid}`;
  const where =
    says && `, socket ${says.sockets.map(quote).join(' and ')}, state directory ${quote(says.stateDirectory)}`;
  return mistake(
    'DAEMON_HELD',
    `another tsmacvlan runs in this network namespace (${who}${where ?? ''}); one is enough for a host, and two would remove the links of each other's containers: stop that one first`,
  );
};

// --- settings ----------------------------------------------------------------------------------------------------

export const unknownSettingValue = (name: string, value: string, allowed: string) =>
  mistake('SETTING_INVALID', `invalid value ${quote(value)} for ${name}; use ${allowed}`);

/** `given`: METRICS as it was typed. */
export const metricsNotLocal = (given: string, port: number) =>
  mistake(
    'METRICS_NOT_LOCAL',
    `setting METRICS=${quote(given)} is an address that other machines reach, and whoever reaches it can read what it tells; say METRICS_OPEN=on as well, or use 127.0.0.1:${port}`,
  );

/** `place`: as METRICS says it. */
export const metricsTaken = (place: string) =>
  fault(
    'METRICS_TAKEN',
    `another program listens at METRICS=${place} already, and answers whoever asks there for metrics; end it ("ss -ltnp" shows which it is), or give METRICS another port`,
  );

export const hookUnusable = (path: string, reason: string) =>
  mistake(
    'HOOK_UNUSABLE',
    `setting HOOK=${quote(path)} cannot be run (${reason}); give the absolute path of an executable file that only root can change, as all directories above it`,
  );

export const hookManaged = (path: string) =>
  mistake(
    'HOOK_MANAGED',
    `setting HOOK=${quote(path)} is a program of the host, which the managed plugin cannot run; leave HOOK empty, and have a service of the host read "tsmacvlan watch --json"`,
  );

export const watchersMany = (most: number) =>
  mistake('WATCHERS_MANY', `${most} commands are watching already; end one of them, and run this one again`);

// --- network options ---------------------------------------------------------------------------------------------

const didYouMean = (word: string | undefined) => (word === undefined ? '' : ` (did you mean ${word}?)`);

export const unknownOption = (key: string, near: string | undefined, known: readonly string[]) =>
  mistake('OPTION_UNKNOWN', `unknown option -o ${quote(key)}${didYouMean(near)}; the options are ${known.join(', ')}`);

export const unknownMode = (value: string, near: string | undefined, modes: readonly string[]) =>
  mistake('MODE_UNKNOWN', `unknown macvlan_mode ${quote(value)}${didYouMean(near)}; use one of ${modes.join(', ')}`);

/** `near`: the word that was meant, if it was one. */
export const optionValue = (key: string, value: string, expected: string, near?: string) =>
  mistake('OPTION_VALUE', `invalid value ${quote(value)} for -o ${key}${didYouMean(near)}; use ${expected}`);

export const vlanIdRange = (id: string, parent: string) =>
  mistake('VLAN_ID', `VLAN id ${id} in ${quote(parent)} is out of range; use 1 to 4094`);

export const vlanProtocolWithoutVlan = () =>
  mistake('VLAN_PROTOCOL', 'option -o vlan_protocol= has no VLAN to apply to; give the VLAN ids with -o vlan=');

export const optionNeedsParent = (key: string) =>
  mistake('OPTION_NEEDS_PARENT', `option -o ${key}= needs a parent interface; add -o parent=`);

export const modeNeedsParent = (mode: string) =>
  mistake(
    'MODE_NEEDS_PARENT',
    `option -o macvlan_mode=${mode} needs a parent interface, without which containers would reach nobody; add -o parent=, or leave the mode out`,
  );

export const mtuBelowIPv6 = (mtu: number) =>
  mistake(
    'MTU_TOO_SMALL',
    `mtu ${mtu} is below 1280, the least that IPv6 works with; give at least 1280 or leave IPv6 out`,
  );

export const mtuAboveParent = (mtu: number, parent: string, parentMtu: number) =>
  mistake(
    'MTU_TOO_LARGE',
    `mtu ${mtu} is above the ${parentMtu} of parent ${quote(parent)}; give at most ${parentMtu}`,
  );

export const hostAddressWithoutAccess = () =>
  mistake('HOST_IP_ALONE', 'option -o host_ip= is the address for host access, which is off; add -o host_access=true');

export const hostAccessMode = (mode: string) =>
  mistake(
    'HOST_ACCESS_MODE',
    `host access works in mode bridge only: in mode ${mode} sub-interfaces of one parent do not see each other; leave host_access out or use -o macvlan_mode=bridge`,
  );

export const hostAccessInternal = () =>
  mistake(
    'HOST_ACCESS_INTERNAL',
    'an --internal network keeps everybody out, the host too; leave --internal or host_access=true out',
  );

export const hostAddressNeeded = (subnet: string) =>
  mistake(
    'HOST_IP_NEEDED',
    `the addresses of ${quote(subnet)} come from another IPAM driver, so none can be reserved for the host; name one that containers do not get with -o host_ip=, or add --ipam-driver tsmacvlan`,
  );

export const hostAddressOutside = (address: string, subnets: readonly string[]) =>
  mistake(
    'HOST_IP_OUTSIDE',
    `host address ${address} is in no subnet of the network (${subnets.join(', ')}); choose one inside`,
  );

// --- parents -----------------------------------------------------------------------------------------------------

export const gatewayOutside = (address: string, subnets: readonly string[]) =>
  mistake(
    'GATEWAY_OUTSIDE',
    `option -o gateway=${quote(address)} lies in none of the network's subnets (${subnets.join(', ')}); give an address inside one of them`,
  );

export const gatewayInternal = (addresses: readonly string[]) =>
  mistake(
    'GATEWAY_INTERNAL',
    `an --internal network has no default route, and option -o gateway=${quote(addresses.join(','))} names one; leave --internal or gateway= out`,
  );

/** `link`: what the setting PARENTS has for the parent that was typed. */
export const parentMissing = (parent: string, existing: readonly string[], link = parent) =>
  mistake(
    'PARENT_MISSING',
    link === parent
      ? `parent interface ${quote(parent)} does not exist on this host (${listed(existing)}); give one of these with -o parent=, or NAME.ID for a VLAN`
      : `parent interface ${quote(link)}, which the setting PARENTS has for ${quote(parent)}, does not exist on this host (${listed(existing)}); give one of these there, and restart or reload tsmacvlan`,
  );

export const parentGone = (parent: string, network: string, existing: readonly string[]) =>
  mistake(
    'PARENT_GONE',
    `parent interface ${quote(parent)} of network ${short(network)} is not on this host any more (${listed(existing)}); bring it back, then start the container again`,
  );

const listed = (existing: readonly string[]) =>
  existing.length === 0 ? 'there is none' : `there are ${existing.slice(0, 20).join(', ')}`;

export const parentLoopback = (parent: string) =>
  mistake(
    'PARENT_LOOPBACK',
    `parent ${quote(parent)} is the loopback interface, which reaches no LAN; give an Ethernet interface with -o parent=`,
  );

export const parentWireless = (parent: string) =>
  mistake(
    'PARENT_WIRELESS',
    `parent ${quote(parent)} is a Wi-Fi interface, and access points drop frames from MAC addresses that have not joined them; use a wired parent`,
  );

export const parentIsChild = (parent: string, kind: string, lower: string | null) =>
  mistake(
    'PARENT_IS_CHILD',
    `parent ${quote(parent)} is itself a ${kind} sub-interface; give ${lower === null ? 'the interface below it' : quote(lower)} with -o parent=`,
  );

export const parentEnslaved = (parent: string, master: string, kind: string) =>
  mistake(
    'PARENT_ENSLAVED',
    `parent ${quote(parent)} belongs to the ${kind} ${quote(master)}, which takes all of its frames; give ${quote(master)} with -o parent=, or an interface that is in no ${kind}`,
  );

export const parentNotEthernet = (parent: string) =>
  mistake(
    'PARENT_NOT_ETHERNET',
    `parent ${quote(parent)} is not an Ethernet interface; give an Ethernet interface with -o parent=`,
  );

export const parentNameTooLong = (name: string) =>
  mistake(
    'PARENT_NAME_LENGTH',
    `interface name ${quote(name)} has ${Buffer.byteLength(name)} bytes, and Linux allows 15; give a shorter parent or make the VLAN yourself under a shorter name`,
  );

export const parentNameInvalid = (name: string) =>
  mistake('PARENT_NAME', `${quote(name)} is not an interface name; give one such as eth0 or eth0.50 with -o parent=`);

export const vlanNameTaken = (name: string, kind: string) =>
  mistake(
    'VLAN_NAME_TAKEN',
    `an interface ${quote(name)} exists and is a ${kind}, not that VLAN; give the VLAN by -o parent= under another name, or rename the interface`,
  );

export const noDefaultRoute = () =>
  mistake(
    'PARENT_AUTO',
    'parent=auto takes the interface of the default route, and this host has no default route; name the parent with -o parent=',
  );

export const parentTaken = (parent: string, network: string) =>
  mistake(
    'PASSTHRU_TAKEN',
    `parent ${quote(parent)} already carries network ${short(network)}, and mode passthru needs a parent of its own; use another parent or another mode`,
  );

export const parentOwnedByPassthru = (parent: string, network: string) =>
  mistake(
    'PASSTHRU_OWNS',
    `parent ${quote(parent)} belongs to network ${short(network)} in mode passthru, which takes the whole interface; use another parent or remove that network`,
  );

// --- networks and endpoints --------------------------------------------------------------------------------------

export const networkUnknown = (network: string) =>
  mistake(
    'NETWORK_UNKNOWN',
    `network ${short(network)} is not known to this plugin (was its state directory emptied?); remove the network and create it again`,
  );

export const networkDiffers = (network: string) =>
  mistake(
    'NETWORK_DIFFERS',
    `network ${short(network)} exists with other options and has containers; remove those containers first`,
  );

export const subnetMissing = (family: string) =>
  mistake(
    'SUBNET_MISSING',
    `the network has no ${family} subnet, or one of all addresses; give that of your LAN with --subnet, or switch ${family} off for this network`,
  );

// --- addresses of the LAN's DHCP server ----------------------------------------------------------------------------

export const dhcpNeedsNull = (subnet: string) =>
  mistake(
    'DHCP_SUBNET',
    `with -o source=dhcp the server of the LAN chooses the addresses, not the IPAM that has subnet ${subnet}; create the network with --ipam-driver null, without --subnet, or with --ipam-driver tsmacvlan and --ipam-opt source=dhcp`,
  );

export const dhcpPoolAlone = (subnet: string) =>
  mistake(
    'DHCP_POOL_ALONE',
    `the addresses of subnet ${subnet} come from a DHCP server (--ipam-opt source=dhcp), and the network does not say so; add -o source=dhcp`,
  );

export const dhcpSubnetHere = (subnet: string) =>
  mistake(
    'DHCP_SUBNET_HERE',
    `the subnet of the DHCP server, ${subnet}, is one in which this host has an address, and Docker takes such a one only where it is named; add --subnet ${subnet}`,
  );

/** `option`: `--ip-range`, `--ipam-opt order=`. */
export const dhcpPoolOption = (option: string) =>
  mistake(
    'DHCP_POOL_OPTION',
    `with --ipam-opt source=dhcp the DHCP server chooses the addresses, and ${option} changes nothing of that; leave one of the two out`,
  );

export const dhcpPoolParent = () =>
  mistake(
    'DHCP_POOL_PARENT',
    'option --ipam-opt source=dhcp does not say on which LAN the server is; add --ipam-opt parent= with the interface of -o parent=',
  );

export const dhcpPoolSwarm = () =>
  mistake(
    'DHCP_POOL_SWARM',
    'option --ipam-opt source=dhcp needs the LAN, which a manager of a swarm may not be on; create a config-only network on each node, and the swarm network from it',
  );

/** `subnet`: of the network. */
export const dhcpOutside = (server: string, given: string, subnet: string) =>
  mistake(
    'DHCP_OUTSIDE',
    `the DHCP server ${server} gives ${given}, which is not in ${subnet}; create the network again with that subnet, or with --ipam-driver null`,
  );

/** `address`: what the server has for the MAC address. */
export const dhcpMacLate = (server: string, address: string, macAddress: string) =>
  mistake(
    'DHCP_MAC_LATE',
    `the DHCP server ${server} has ${address} for ${macAddress}, and Docker says a MAC address only when the address is chosen; add --ip ${address}, or create the network with --ipam-driver null`,
  );

export const dhcpIPv6 = () =>
  mistake(
    'DHCP_IPV6',
    "with -o source=dhcp IPv6 addresses come from the LAN's router as well, not from Docker; leave --ipv6 out and add -o ipv6=auto",
  );

export const releaseWithoutDhcp = () =>
  mistake(
    'RELEASE_WITHOUT_DHCP',
    'option -o release= is for addresses of a DHCP server; add -o source=dhcp or leave it out',
  );

export const ipv6WithoutDhcp = (method: string) =>
  mistake(
    'IPV6_WITHOUT_DHCP',
    `option -o ipv6=${method} is for networks whose addresses are the LAN's; add -o source=dhcp, or give the network an IPv6 subnet instead`,
  );

export const ipv6Internal = (method: string) =>
  mistake(
    'IPV6_INTERNAL',
    `option -o ipv6=${method} gives containers the default route that the router advertises, and a network with --internal has none; leave one of the two out`,
  );

export const dhcpParentAddress = (parent: string, address: string) =>
  mistake(
    'DHCP_PASSTHRU',
    `mode passthru gives the container the MAC address of parent ${quote(parent)}, and a DHCP server would take it for this host, which has ${address} there; take the address off ${quote(parent)}, or use another mode`,
  );

export const endpointAddress = (value: string) =>
  mistake('ENDPOINT_ADDRESS', `endpoint option ip=${quote(value)} is no IPv4 address; give one, or leave it out`);

export const endpointHostname = (value: string) =>
  mistake(
    'ENDPOINT_HOSTNAME',
    `endpoint option hostname=${quote(value)} is no host name; give up to 63 letters, digits and dashes, neither beginning nor ending with a dash`,
  );

export const dhcpSilent = (parent: string, seconds: number) =>
  mistake(
    'DHCP_SILENT',
    `no DHCP server answered on ${quote(parent)} within ${seconds} s; check that one serves this LAN and has addresses left (tsmacvlan dhcp ${parent}), or create the network without -o source=dhcp`,
  );

/** `reason`: in the server's own words; null when it says none. */
export const dhcpRefused = (server: string, reason: string | null) =>
  mistake(
    'DHCP_REFUSED',
    `the DHCP server ${server} refuses the address that it has offered${reason === null ? '' : ` (${quote(reason)})`}; look for the cause in its log`,
  );

export const dhcpOther = (server: string, given: string, wished: string) =>
  mistake(
    'DHCP_OTHER',
    `the DHCP server ${server} gives ${given}, not ${wished}; free that address there, or give another one (--ip, or the endpoint option ip= with --ipam-driver null)`,
  );

/** `address`: the last of them. */
export const dhcpUsed = (count: number, address: string, macAddress: string) =>
  mistake('DHCP_USED', usedOffers('DHCP', count, address, macAddress));

/** `seconds`: for which it was waited for. */
export const routerSilent = (parent: string, seconds: number) =>
  mistake(
    'ROUTER_SILENT',
    `no router on ${quote(parent)} advertised IPv6 within ${seconds} s; switch router advertisements on at the router of this LAN, or create the network with -o ipv6=auto or without IPv6`,
  );

export const routerPrefix = (parent: string) =>
  mistake(
    'ROUTER_PREFIX',
    `the router on ${quote(parent)} advertises no IPv6 prefix of which hosts make their addresses (autonomous, 64 bits); switch SLAAC on there, or create the network with -o ipv6=auto or without IPv6`,
  );

/** `seconds`: for which it was waited for. */
export const dhcp6Silent = (parent: string, seconds: number) =>
  mistake(
    'DHCP6_SILENT',
    `no DHCPv6 server answered on ${quote(parent)} within ${seconds} s; check that one serves this LAN, or create the network with -o ipv6=auto or without IPv6`,
  );

/** `reason`: in the server's own words; null when it says none. */
export const dhcp6Refused = (parent: string, reason: string | null) =>
  mistake(
    'DHCP6_REFUSED',
    `the DHCPv6 server on ${quote(parent)} has no address for the container${reason === null ? '' : ` (${quote(reason)})`}; make its range larger, or create the network with -o ipv6=auto or without IPv6`,
  );

/** `address`: the last of them. */
export const dhcp6Used = (count: number, address: string, macAddress: string) =>
  mistake('DHCP6_USED', usedOffers('DHCPv6', count, address, macAddress));

const usedOffers = (protocol: string, count: number, address: string, macAddress: string) => {
  const [what, which] =
    count === 1 ? ['an address that another uses', ''] : [`${count} addresses that others use`, 'at last '];
  return `the ${protocol} server gave ${what}, ${which}${address}, which ${macAddress} has; look for static addresses in the server's range`;
};

export const ipv6Used = (address: string, macAddress: string) =>
  mistake(
    'IPV6_USED',
    `the container's MAC address makes the IPv6 address ${address}, which ${macAddress} on the LAN has; give the container another MAC address with --mac-address, or create the network with -o ipv6=auto`,
  );

export const endpointUnknown = (endpoint: string, network: string) =>
  mistake(
    'ENDPOINT_UNKNOWN',
    `endpoint ${short(endpoint)} of network ${short(network)} is not known to this plugin; start the container again`,
  );

export const endpointDiffers = (endpoint: string) =>
  mistake('ENDPOINT_DIFFERS', `endpoint ${short(endpoint)} exists with other addresses; start the container again`);

export const addressOutsideNetwork = (address: string, network: string, subnets: readonly string[]) =>
  mistake(
    'ADDRESS_OUTSIDE_NETWORK',
    `address ${quote(address)} is in no subnet of network ${short(network)} (${subnets.join(', ')}); choose one inside`,
  );

export const macMalformed = (value: string) =>
  mistake(
    'MAC_MALFORMED',
    `MAC address ${quote(value)} is malformed; give six pairs of hexadecimal digits, as 02:42:c0:a8:01:02`,
  );

export const macMulticast = (value: string) =>
  mistake(
    'MAC_MULTICAST',
    `MAC address ${quote(value)} is a multicast address, which no interface can have; make the second digit even, as in 02:42:c0:a8:01:02`,
  );

export const macTaken = (value: string, endpoint: string, parent: string) =>
  mistake(
    'MAC_TAKEN',
    `MAC address ${value} is already used on parent ${quote(parent)} by endpoint ${short(endpoint)}; choose another --mac-address`,
  );

export const macOfParent = (value: string, parent: string) =>
  mistake(
    'MAC_OF_PARENT',
    `MAC address ${value} is that of parent ${quote(parent)} itself, which no sub-interface can share; choose another --mac-address`,
  );

export const addressTaken = (address: string, endpoint: string, parent: string) =>
  mistake(
    'ADDRESS_TAKEN',
    `address ${address} is already used on parent ${quote(parent)} by endpoint ${short(endpoint)}; choose another --ip, and give one IPAM driver to all networks of a LAN`,
  );

export const macFixedByParent = (value: string, parent: string, parentMac: string) =>
  mistake(
    'MAC_PASSTHRU',
    `mode passthru gives the container the MAC address of parent ${quote(parent)}, ${parentMac}, not ${value}; leave --mac-address out`,
  );

export const passthruOccupied = (parent: string, endpoint: string) =>
  mistake(
    'PASSTHRU_OCCUPIED',
    `parent ${quote(parent)} is in mode passthru and already belongs to endpoint ${short(endpoint)}; stop that container first`,
  );

// --- what the kernel refuses (translated once, in network/refusal.ts) ----------------------------------------------

export const notPermitted = (operation: string, cause: unknown) =>
  fault(
    'NOT_PERMITTED',
    `not allowed to ${operation} (EPERM); run tsmacvlan as root, or reinstall the managed plugin and grant CAP_NET_ADMIN and CAP_NET_RAW`,
    cause,
  );

export const parentBusy = (parent: string, cause: unknown) =>
  new PluginError(
    'mistake',
    'PARENT_BUSY',
    `the kernel says parent ${quote(parent)} is busy (EBUSY): an ipvlan, a bridge or a bond has taken it; free it or use another parent`,
    cause,
  );

export const passthruRefusedByKernel = (parent: string, cause: unknown) =>
  new PluginError(
    'mistake',
    'PASSTHRU_REFUSED',
    `the kernel refuses another sub-interface on parent ${quote(parent)} (EINVAL): one of mode passthru must be alone there, also beside sub-interfaces that other programs made; remove the others or use another parent`,
    cause,
  );

export const macInUseOnParent = (mac: string, parent: string, cause: unknown) =>
  new PluginError(
    'mistake',
    'MAC_IN_USE',
    `MAC address ${mac} is in use on parent ${quote(parent)} (EADDRINUSE), by a sub-interface this plugin did not make or one that is just leaving; wait a second, or choose another --mac-address`,
    cause,
  );

export const parentVanished = (parent: string, cause: unknown) =>
  new PluginError(
    'mistake',
    'PARENT_VANISHED',
    `parent interface ${quote(parent)} went away at this moment (ENODEV); bring it back, then start the container again`,
    cause,
  );

export const kindUnsupported = (kind: string, module: string, cause: unknown) =>
  fault(
    'KIND_UNSUPPORTED',
    `this kernel cannot make ${kind} interfaces; load the module with "modprobe ${module}" or install the kernel package that has it`,
    cause,
  );

export const kernelRefused = (operation: string, code: string, detail: string | null, cause: unknown) =>
  fault(
    'KERNEL_REFUSED',
    `the kernel refused to ${operation} (${code}${detail === null ? '' : `, "${detail}"`}); nothing was changed`,
    cause,
  );

// --- the state store ---------------------------------------------------------------------------------------------

export const storeHeld = (directory: string, pid: number | null) =>
  mistake(
    'STORE_HELD',
    `state directory ${quote(directory)} is in use by another running tsmacvlan${pid === null ? '' : ` (process ${pid})`}; stop that one first`,
  );

export const storeGone = (file: string) =>
  fault(
    'STORE_GONE',
    `state file ${quote(file)} was deleted or moved while tsmacvlan runs, or something was mounted over it; nothing was changed, put it back, or restart tsmacvlan to go on with what is there now`,
  );

export const storeNewer = (file: string, found: number, known: number) =>
  mistake(
    'STORE_NEWER',
    `state file ${quote(file)} was written by a newer tsmacvlan (schema ${found}, this program knows up to ${known}); nothing was changed, start that version or a later one`,
  );

export const storeOlder = (file: string) =>
  mistake(
    'STORE_OLDER',
    `state file ${quote(file)} was written by an older tsmacvlan; start tsmacvlan serve of this version, which brings it up to date, or use the older program`,
  );

export const storeDamaged = (file: string, cause?: unknown) =>
  fault(
    'STORE_DAMAGED',
    `state file ${quote(file)} is damaged or not a tsmacvlan state; nothing was changed, put a backup in its place, or move it away to begin with an empty state`,
    cause,
  );

/** `reason`: the system's words, `read-only file system`. */
export const storeNotWritable = (directory: string, reason: string) =>
  mistake(
    'STORE_NOT_WRITABLE',
    `cannot keep state in directory ${quote(directory)} (${reason}); make it writable for this user${reason === READ_ONLY ? `, in the systemd service with mkdir -p ${directory} and ReadWritePaths=${directory} (systemctl edit tsmacvlan)` : ''}, or set STATE_DIR to one that is`,
  );

/** EROFS, which is also what the sandbox of a unit says of all that it does not name. */
const READ_ONLY = 'read-only file system';

export const storeMissing = (file: string) =>
  mistake(
    'STORE_MISSING',
    `there is no state file ${quote(file)}, and no tsmacvlan runs here; start it, or set STATE_DIR to the directory it uses`,
  );

export const storeNotReadable = (file: string, reason: string) =>
  mistake(
    'STORE_NOT_READABLE',
    `cannot read state file ${quote(file)} (${reason}); run the command as root, with sudo`,
  );

export const storeFull = (file: string, cause?: unknown) =>
  fault(
    'STORE_FULL',
    `no space left on the disk of state file ${quote(file)}; nothing was changed, free some space and try again`,
    cause,
  );

export const storeBusy = (file: string, cause?: unknown) =>
  fault(
    'STORE_BUSY',
    `state file ${quote(file)} is locked by another program; nothing was changed, end its transaction (an open sqlite3 session?) and try again`,
    cause,
  );

export const storeFailed = (file: string, reason: string, cause?: unknown) =>
  fault(
    'STORE_FAILED',
    `state file ${quote(file)} failed (${reason}); nothing was changed, check its disk and try again`,
    cause,
  );

/** What was written may be on the disk or not, and the kernel says so only once (fsync(2), EIO). */
export const storeUnsynced = (file: string, reason: string, cause?: unknown) =>
  fault(
    'STORE_UNSYNCED',
    `the disk of state file ${quote(file)} did not take what was written (${reason}); no change is accepted any more, check the disk and restart tsmacvlan`,
    cause,
  );

// --- the store that hosts share -------------------------------------------------------------------------------------

/** `endpoints`: as in STORE, without the scheme. `reason`: the system's or etcd's words. */
export const clusterUnreachable = (endpoints: string, reason: string, cause?: unknown) =>
  fault(
    'CLUSTER_UNREACHABLE',
    `the shared store has no quorum or cannot be reached (etcd at ${endpoints}: ${reason}); running containers go on, and no new addresses are given out until a majority of its members is back`,
    cause,
  );

export const clusterFull = (endpoints: string, cause?: unknown) =>
  fault(
    'CLUSTER_FULL',
    `the database of the shared store is full (etcd at ${endpoints}), so nothing can be changed there and no new addresses are given out; compact and defragment it, then run "etcdctl alarm disarm"`,
    cause,
  );

export const clusterLogin = (endpoints: string, reason: string, cause?: unknown) =>
  fault(
    'CLUSTER_LOGIN',
    `the shared store refuses this host (etcd at ${endpoints}: ${reason}); correct STORE_USER and STORE_PASSWORD, or grant that user the keys below /tsmacvlan/`,
    cause,
  );

export const clusterTls = (endpoints: string, reason: string, cause?: unknown) =>
  fault(
    'CLUSTER_TLS',
    `no TLS connection to the shared store (etcd at ${endpoints}: ${reason}); renew the certificate that is wrong, or correct STORE_CA, STORE_CERT and STORE_KEY`,
    cause,
  );

export const clusterFailed = (endpoints: string, reason: string, cause?: unknown) =>
  fault('CLUSTER_FAILED', `the shared store failed (etcd at ${endpoints}: ${reason}); look into its log`, cause);

export const clusterSchema = (prefix: string, found: string, known: string) =>
  mistake(
    'CLUSTER_SCHEMA',
    `the shared store below ${prefix} has schema ${quote(found)}, this program knows ${known}; run the same version of tsmacvlan on all hosts`,
  );

/** `seconds`: how long the record of a run that ended without a word may last. */
export const clusterNodeTaken = (node: string, host: string, seconds: number, file: string) =>
  mistake(
    'CLUSTER_NODE_TAKEN',
    `host ${quote(host)} is in the shared store as node ${node}, as which this one starts: an earlier run of it ends there within ${seconds} s, so try again then; if this machine is a copy of that one, stop tsmacvlan here and remove the directory of ${quote(file)}, which leaves all that the other one has`,
  );

export const clusterNodeCopied = (node: string, file: string) =>
  mistake(
    'CLUSTER_NODE_COPIED',
    `another machine was alive as node ${node} of the shared store for a minute while this one asked, so this one counts as a copy of it; if it is, stop tsmacvlan here and remove the directory of ${quote(file)}; if it is not, stop tsmacvlan on the other one, remove the word "copied" from that file, and restart tsmacvlan here`,
  );

/** `clusterId`: as etcdctl prints it with `endpoint status -w json`, in hexadecimal. */
export const clusterOther = (endpoints: string, clusterId: string) =>
  fault(
    'CLUSTER_OTHER',
    `only a member of another cluster answers (etcd at ${endpoints}: cluster ${clusterId}), so no new addresses are given out; bring back the members that this host knows, and let the other one join them with an empty data directory`,
  );

/** `answers`: the clusters that answered at each endpoint; null where nobody did. `kept`: of this host's claims; null before the first. */
export const clusterSplit = (answers: ReadonlyMap<string, readonly string[] | null>, kept: string | null) => {
  const found = Array.from(answers, ([endpoint, ids]) =>
    ids === null ? `${endpoint} is silent` : `${endpoint} is of cluster ${ids.join(' and ')}`,
  );
  const ours =
    kept === null
      ? 'at the first contact most of them must be of one'
      : `the claims of this host are in cluster ${kept}`;
  return fault(
    'CLUSTER_SPLIT',
    `the members named in STORE are not one cluster: ${found.join(', ')}, and ${ours}; a member whose data was lost must join the others again (etcdctl member remove, member add, --initial-cluster-state existing), not begin a cluster of its own`,
  );
};

export const clusterRestored = (seconds: number) =>
  fault(
    'CLUSTER_RESTORED',
    `the shared store was restored or replaced a moment ago, and its hosts are claiming their addresses again; try again in ${seconds} s`,
  );

export const clusterUnproven = (address: string) =>
  fault(
    'CLUSTER_UNPROVEN',
    `address ${address} can only be given out after a check on the LAN, and its network has no LAN; try again when the shared store is back and has free addresses`,
  );

export const addressOfNode = (address: string, node: string, option: string) =>
  mistake('ADDRESS_TAKEN', `address ${address} is used on host ${node} of the shared store; choose another ${option}`);

/** It was leased to a container that had not begun when this host stood still or was cut off for too long. */
export const addressGone = (address: string, node: string) =>
  mistake(
    'ADDRESS_TAKEN',
    `address ${address} went to host ${node} of the shared store while this host was not heard of; start the container again, without --ip if it had one`,
  );

export const addressNotLeased = (address: string) =>
  mistake('ADDRESS_NOT_LEASED', `address ${address} is not leased to this host any more; start the container again`);

export const storeFileUnreadable = (setting: string, file: string, reason: string) =>
  mistake(
    'STORE_FILE',
    `cannot read file ${quote(file)} of setting ${setting} (${reason}); correct its path, its mode or what it holds`,
  );

export const storeIsLocal = () =>
  mistake(
    'USAGE',
    'setting STORE is local, so no addresses are shared; set STORE=etcd://HOST:PORT as for tsmacvlan serve',
  );

export const migrateUsage = () =>
  mistake(
    'USAGE',
    'it is not clear what to move; use tsmacvlan store migrate --from local --to etcd://HOST:PORT, or the other way round',
  );

export const migrateInUse = (count: number, address: string, others: number) =>
  mistake(
    'MIGRATE_IN_USE',
    `containers of this host have addresses (${count}, as ${address}) that the other hosts of the shared store (${others}) would give out again; remove them first, move the others out too, or keep their ranges apart and say --force`,
  );

export const storeUsage = (argument: string) =>
  mistake('USAGE', `unknown word ${quote(argument)} after tsmacvlan store; use migrate, nodes, or forget NODE`);

export const storeOption = (option: string, argument: string) =>
  mistake('USAGE', `option ${option} has no effect on tsmacvlan store ${argument}; leave it out`);

/** `argument`: `forget`, or empty. */
export const storeWordMissing = (argument: string) =>
  mistake(
    'USAGE',
    argument === 'forget'
      ? 'forget needs the name of a node; use tsmacvlan store forget NODE, with a name that tsmacvlan store nodes shows'
      : 'a word is missing after tsmacvlan store; use migrate, nodes, or forget NODE',
  );

export const nodeFile = (file: string) =>
  mistake(
    'NODE_FILE',
    `${quote(file)} does not hold the name of a node, such as web1-3f2a9c1d04be; put the name of this host back that tsmacvlan store nodes shows on another host, or remove the file where this host has no containers`,
  );

export const nodeAlive = (node: string) =>
  mistake(
    'NODE_ALIVE',
    `host ${node} of the shared store is alive; stop tsmacvlan there for good, and try again 15 seconds later`,
  );

export const nodeUnknown = (node: string) =>
  mistake(
    'NODE_UNKNOWN',
    `no host ${quote(node)} has an address in the shared store; tsmacvlan store nodes lists them`,
  );

export const settingsApart = (one: string, other: string, remedy: string) =>
  mistake('SETTINGS_APART', `settings ${one} and ${other} do not go together; ${remedy}`);

// --- the command line --------------------------------------------------------------------------------------------

export const unknownCommand = (name: string, near: string | undefined) =>
  mistake('USAGE', `unknown command ${quote(name)}${didYouMean(near)}; see tsmacvlan --help`);

/** `command`: null where none was named. */
export const unknownCommandOption = (option: string, near: string | undefined, command: string | null) =>
  mistake(
    'USAGE',
    command === null
      ? `unknown option ${quote(option)}${didYouMean(near)}; see tsmacvlan --help`
      : `${command} takes no option ${quote(option)}${didYouMean(near)}; see tsmacvlan ${command} --help`,
  );

export const optionMissing = (command: string, option: string, synopsis: string) =>
  mistake('USAGE', `${command} needs ${option}; call tsmacvlan ${synopsis}`);

export const optionNeedsValue = (option: string, value: string) =>
  mistake('USAGE', `option ${option} needs a value; write ${option} ${value}`);

export const optionTakesNoValue = (option: string, value: string) =>
  mistake('USAGE', `option ${option} takes no value, and ${quote(value)} was given; write ${option} alone`);

export const optionChoice = (option: string, value: string, known: readonly string[], near: string | undefined) =>
  mistake('USAGE', `unknown value ${quote(value)} for ${option}${didYouMean(near)}; use ${known.join(' or ')}`);

export const argumentMissing = (command: string, word: string, synopsis: string) =>
  mistake('USAGE', `${command} needs ${word}; call tsmacvlan ${synopsis}`);

/** `what`: the socket or the file that this user may not open. */
export const rootNeeded = (what: string) =>
  mistake('ROOT_NEEDED', `this user may not open ${what}; run the command as root, with sudo`);

export const severalStates = (directories: readonly string[]) =>
  mistake(
    'SEVERAL_STATES',
    `no tsmacvlan runs here, and several directories have a state (${directories.map(quote).join(', ')}); set STATE_DIR to one of them`,
  );

export const backupNotWritable = (file: string, reason: string) =>
  mistake(
    'BACKUP_NOT_WRITABLE',
    `cannot write backup ${quote(file)} (${reason}); nothing was changed, name another file`,
  );

export const backupNotReadable = (file: string, reason: string) =>
  mistake(
    'BACKUP_NOT_READABLE',
    `cannot read backup ${quote(file)} (${reason}); name a file that tsmacvlan backup wrote`,
  );

export const backupDamaged = (file: string, why: string) =>
  mistake('BACKUP_DAMAGED', `${quote(file)} is not a complete backup (${why}); nothing was changed, use another one`);

export const backupNewer = (file: string, found: number, known: number) =>
  mistake(
    'BACKUP_NEWER',
    `backup ${quote(file)} was written by a newer tsmacvlan (schema ${found}, this program knows up to ${known}); nothing was changed, restore it with that version or a later one`,
  );

export const restoreWhileRunning = (socket: string) =>
  mistake(
    'RESTORE_WHILE_RUNNING',
    `a tsmacvlan runs here (socket ${quote(socket)}), and would go on with what it knows; stop it first, with systemctl stop tsmacvlan or docker plugin disable --force (containers run on), and start it afterwards`,
  );

/** `tried`: directories, each with what kept the library from being loaded from there. */
export const libraryNowhere = (tried: readonly (readonly [string, string])[]) =>
  fault(
    'LIBRARY_NOWHERE',
    `no directory is writable and mounted without noexec, for a library to be loaded from (${tried.map(([place, reason]) => `${quote(place)}: ${escapeControls(reason)}`).join(', ')}); set TMPDIR to one that is`,
  );

export const outputFailed = (reason: string) =>
  fault('OUTPUT_FAILED', `the output cannot be written (${reason}); the printed text is incomplete`);

export const surplusArgument = (argument: string, command: string) =>
  mistake('USAGE', `unexpected argument ${quote(argument)} for tsmacvlan ${command}; see tsmacvlan --help`);

export const probeUsage = (argument: string) =>
  mistake('USAGE', `${quote(argument)} is not an IP address; call tsmacvlan probe ADDRESS --parent LINK`);

export const conflictsUsage = (argument: string) =>
  mistake('USAGE', `${quote(argument)} is not an IP address; call tsmacvlan conflicts [ADDRESS] [--clear]`);

/** `places`: subnets where it is in none, else the ranges it is not in. */
export const reserveOutside = (address: string, places: readonly string[]) =>
  mistake(
    'RESERVE_OUTSIDE',
    `address ${address} is not given out from ${places.join(', ') || 'any network here'}; choose one that is, or start the container with --ip`,
  );

/** `entry`: of the option, as typed. */
export const reserveExcluded = (address: string, entry: string) =>
  mistake(
    'RESERVE_EXCLUDED',
    `address ${address} is excluded by --ipam-opt exclude=${quote(entry)}; choose another one, or start the container with --ip`,
  );

export const reserveHeld = (address: string, macAddress: string, link: string) =>
  mistake(
    'RESERVE_HELD',
    `address ${address} is used on the LAN by ${macAddress}, which answered on ${link}; choose another one, or give that device another address`,
  );

export const reserveElsewhere = (name: string, address: string, wanted: string) =>
  mistake(
    'RESERVE_ELSEWHERE',
    `container ${quote(name)} has ${address} on this network at this moment; stop it and reserve ${wanted} then`,
  );

export const reserveUnnamed = (address: string, endpoint: string, network: string | null, name: string) =>
  mistake(
    'RESERVE_UNNAMED',
    `address ${address} is used by endpoint ${short(endpoint)} ${ofNetwork(network)}, and the engine did not name its container (tsmacvlan who ${address} does); if that is ${quote(name)} stop it first, else choose another address`,
  );

export const nameUnknown = (name: string) =>
  mistake('NAME_UNKNOWN', `nothing is reserved or remembered for ${quote(name)}; tsmacvlan leases lists the names`);

/** `networks`: ids; empty for one that is gone. */
export const nameAmbiguous = (what: string, networks: readonly string[]) =>
  mistake(
    'RESERVE_AMBIGUOUS',
    `${quote(what)} is on several networks (${networks.map((id) => short(id) || 'one that is gone').join(', ')}); say which with --network NETWORK`,
  );

/** `reason`: the system's words. */
export const daemonAbsent = (socket: string, reason: string) =>
  mistake(
    'DAEMON_ABSENT',
    `no tsmacvlan answers on socket ${quote(socket)} (${reason}); start tsmacvlan serve, or set SOCKET to the path it uses`,
  );

/** `sentence`: the daemon's own, of what the user can mend. */
export const daemonSays = (sentence: string) => mistake('DAEMON_SAYS', sentence);

/** `sentence`: the daemon's own. */
export const daemonRefused = (call: string, sentence: string) =>
  fault('DAEMON_REFUSED', `the running tsmacvlan refused ${call}; it says: ${sentence}`);

/** `where`: what takes the id. */
export const networkNotNamed = (typed: string, count: number, where: string) =>
  mistake(
    'USAGE',
    count === 0
      ? `no network ID starts with ${quote(typed)}; ${where} with an ID that tsmacvlan networks --no-trunc lists, not with Docker's name of it`
      : `${count} network IDs start with ${quote(typed)}; ${where} with more digits of the ID, as tsmacvlan networks --no-trunc lists it`,
  );

/** `host`: as DOCKER_HOST or the context has it. These five are printed once beside what is shown with ids. */
export const engineScheme = (host: string, scheme: string) =>
  mistake(
    'ENGINE_SCHEME',
    `names of containers are not shown: Docker's address ${quote(host)} is of the kind ${quote(scheme)}, which tsmacvlan cannot use; run it where the engine is, or set DOCKER_HOST to unix:///var/run/docker.sock`,
  );

export const engineAddress = (host: string) =>
  mistake(
    'ENGINE_ADDRESS',
    `names of containers are not shown: ${quote(host)} is not an address of Docker; set DOCKER_HOST to unix:///var/run/docker.sock or tcp://HOST:PORT`,
  );

export const engineContext = (name: string) =>
  mistake(
    'ENGINE_CONTEXT',
    `names of containers are not shown: the Docker context ${quote(name)} does not exist or names no engine; docker context ls lists them`,
  );

/** `reason`: the system's words. */
export const engineSilent = (host: string, reason: string) =>
  mistake(
    'ENGINE_SILENT',
    `names of containers are not shown: Docker at ${quote(host)} cannot be asked (${reason}); start it, run tsmacvlan as a user who may use it, or set DOCKER_HOST`,
  );

export const engineRefused = (host: string, status: string) =>
  mistake(
    'ENGINE_REFUSED',
    `names of containers are not shown: Docker at ${quote(host)} answered ${status}; tsmacvlan only lists containers and networks, so let it do that`,
  );

export const whoUsage = () =>
  mistake('USAGE', 'who needs an address, a MAC address or a name; call tsmacvlan who 192.168.1.70');

export const whoUnknown = (typed: string) =>
  mistake(
    'WHO_UNKNOWN',
    `${quote(typed)} is not an address, and no container, network, endpoint or MAC address here is called so; tsmacvlan leases and map show them`,
  );

export const doctorUnknown = (typed: string) =>
  mistake('DOCTOR_UNKNOWN', `no network or running container here is called ${quote(typed)}; tsmacvlan map shows them`);

// --- the page of tsmacvlan map -----------------------------------------------------------------------------------

export const mapOptions = (option: string, needed: string) =>
  mistake('USAGE', `option ${option} has no effect on tsmacvlan map without ${needed}; add it, or leave ${option} out`);

export const mapForms = () =>
  mistake('USAGE', 'options --html, --serve and --json of tsmacvlan map do not go together; use one of them');

export const listenForm = (typed: string) =>
  mistake(
    'USAGE',
    `tsmacvlan cannot listen at ${quote(typed)}; use --listen 127.0.0.1:8099, [::1]:8099 or unix:/run/tsmacvlan-map.sock`,
  );

export const listenOpen = (typed: string) =>
  mistake(
    'USAGE',
    `other machines may reach ${quote(typed)}, and whoever does sees all containers without a password; use 127.0.0.1 or unix:PATH, or say --open as well`,
  );

/** `reason`: the system's words. */
export const listenFailed = (typed: string, reason: string) =>
  mistake(
    'LISTEN_FAILED',
    `cannot listen at ${quote(typed)} (${reason}); stop the program that does, or name another --listen`,
  );

/** `reason`: the system's words. */
export const pageNotWritten = (file: string, reason: string) =>
  mistake('PAGE_NOT_WRITTEN', `cannot write ${quote(file)} (${reason}); name a file in a directory that you may write`);

/** These two are shown in the page. */
export const noDaemonInPicture = () =>
  fault(
    'NO_DAEMON',
    'no tsmacvlan runs on this host, so this page shows the last records; systemctl start tsmacvlan, or docker plugin enable',
  );

/** `at`: ISO 8601. */
export const namesAreOld = (at: string) =>
  fault('NAMES_OLD', `names are those of ${at.slice(11, 19)} UTC, since Docker does not answer; start Docker again`);

/** `host`: as the request has it. The next five are what a browser or curl gets. */
export const pageHost = (host: string) =>
  mistake(
    'PAGE_HOST',
    `host name ${quote(host)} is not served, so that no other web site can read this page; open it by localhost or by an IP address`,
  );

export const pageMethod = (method: string) =>
  mistake('PAGE_METHOD', `method ${quote(method)} is not served: this page is only read; use GET`);

export const pageUnknown = (path: string) => mistake('PAGE_UNKNOWN', `nothing is served at ${quote(path)}; open /`);

export const pageForeign = () => mistake('PAGE_FOREIGN', 'another web site may not ask for this; open the page itself');

export const pageFull = (most: number) =>
  mistake('PAGE_FULL', `${most} pages are open already, and more are not served; close one of them`);

export const networkHasContainers = (network: string, endpoint: string) =>
  mistake(
    'NETWORK_HAS_CONTAINERS',
    `network ${short(network)} has a container (endpoint ${short(endpoint)}), so Docker knows it; remove its containers and call docker network rm`,
  );

export const networkInDocker = (network: string, name: string) =>
  mistake(
    'NETWORK_IN_DOCKER',
    `network ${short(network)} is there in Docker, as ${quote(name)}, and its containers would not start again; call docker network rm ${short(network)} instead`,
  );

// --- pools (ipam) ------------------------------------------------------------------------------------------------

export const addressSpaceUnknown = (addressSpace: string, known: readonly string[]) =>
  mistake(
    'ADDRESS_SPACE_UNKNOWN',
    `unknown address space ${quote(addressSpace)}; this plugin has ${known.join(' and ')}`,
  );

export const ipamOptionUnknown = (key: string, near: string | undefined, known: readonly string[]) =>
  mistake(
    'IPAM_OPTION_UNKNOWN',
    `unknown option --ipam-opt ${quote(key)}${didYouMean(near)}; the options are ${known.join(', ')}`,
  );

/** `near`: as optionValue()'s. */
export const ipamOptionValue = (key: string, value: string, expected: string, near?: string) =>
  mistake(
    'IPAM_OPTION_VALUE',
    `invalid value ${quote(value)} for --ipam-opt ${key}${didYouMean(near)}; use ${expected}`,
  );

export const excludeMalformed = (entry: string) =>
  mistake(
    'EXCLUDE_MALFORMED',
    `${quote(entry)} in --ipam-opt exclude= is not an address, a CIDR or an A-B range; give, for example, exclude=192.168.1.5,192.168.1.64/29,192.168.1.100-192.168.1.150`,
  );

export const excludeOutside = (entry: string, subnet: string) =>
  mistake(
    'EXCLUDE_OUTSIDE',
    `${quote(entry)} in --ipam-opt exclude= is not inside subnet ${subnet}; leave it out or correct it`,
  );

export const subnetMalformed = (subnet: string) =>
  mistake(
    'SUBNET_MALFORMED',
    `subnet ${quote(subnet)} is not an address with a prefix length; give one such as --subnet 192.168.1.0/24`,
  );

export const subnetHostBits = (subnet: string, corrected: string) =>
  mistake('SUBNET_HOST_BITS', `subnet ${quote(subnet)} names an address inside a subnet; give --subnet ${corrected}`);

export const subnetFamily = (subnet: string) =>
  mistake(
    'SUBNET_FAMILY',
    `subnet ${quote(subnet)} is IPv4, and an IPv6 one is needed here; give one such as --subnet fd00::/64`,
  );

export const subnetTooLarge = (subnet: string, shortest: number) =>
  mistake('SUBNET_TOO_LARGE', `subnet ${quote(subnet)} is too large; give a --subnet of /${shortest} or smaller`);

export const subnetNotForHosts = (subnet: string, block: string, meaning: string) =>
  mistake(
    'SUBNET_NOT_FOR_HOSTS',
    `subnet ${quote(subnet)} overlaps ${block}, which is ${meaning} and for no container; give the --subnet of your LAN`,
  );

export const rangeWithoutSubnet = (range: string) =>
  mistake(
    'RANGE_WITHOUT_SUBNET',
    `range ${quote(range)} has no subnet to lie in; give --subnet together with --ip-range`,
  );

export const rangeMalformed = (range: string) =>
  mistake(
    'RANGE_MALFORMED',
    `range ${quote(range)} is not an address with a prefix length; give one such as --ip-range 192.168.1.64/26`,
  );

export const rangeHostBits = (range: string, corrected: string) =>
  mistake(
    'RANGE_HOST_BITS',
    `range ${quote(range)} does not start at a multiple of its size; give --ip-range ${corrected}`,
  );

export const rangeOutside = (range: string, subnet: string) =>
  mistake('RANGE_OUTSIDE', `range ${quote(range)} is not inside subnet ${subnet}; give an --ip-range inside it`);

const ofNetwork = (network: string | null) =>
  network === null ? 'of another network' : `of network ${short(network)}`;

/** Engines forget a network that is removed while the plugin is away. */
const orForget = (network: string | null) =>
  network === null ? '' : ` (if Docker lists no such network: tsmacvlan forget ${short(network)})`;

export const poolOverlaps = (subnet: string, pool: string, network: string | null) =>
  mistake(
    'POOL_OVERLAPS',
    `subnet ${subnet} overlaps pool ${pool} ${ofNetwork(network)}; to share its addresses give --ip-range on both networks, or use another --subnet${orForget(network)}`,
  );

export const poolTaken = (pool: string, network: string) =>
  mistake(
    'POOL_TAKEN',
    `pool ${pool} belongs to network ${short(network)}; to share the subnet give another --ip-range, or use another --subnet; for the same subnet on another LAN give --ipam-opt parent= with its interface to both networks${orForget(network)}`,
  );

export const dhcpPoolTaken = (pool: string, network: string) =>
  mistake(
    'DHCP_POOL_TAKEN',
    `subnet ${pool} of the DHCP server belongs to network ${short(network)}, and no second one can have it; use that network, or create this one with --ipam-driver null${orForget(network)}`,
  );

export const poolPending = (pool: string) =>
  mistake(
    'POOL_PENDING',
    `pool ${pool} belongs to a network of another driver or to one that is just being created; try again in a minute, or give another --ip-range or --subnet`,
  );

export const poolNeedsParent = (subnet: string, pool: string, network: string | null) =>
  mistake(
    'POOL_NEEDS_PARENT',
    `subnet ${subnet} overlaps pool ${pool} ${ofNetwork(network)}, and only one of the two says which LAN it is on; give --ipam-opt parent= to both or to none`,
  );

export const defaultSubnetsUsedUp = (family: string) =>
  mistake(
    'DEFAULT_SUBNETS_USED_UP',
    `no ${family} subnet is left to choose from; give one with --subnet, or remove unused networks`,
  );

export const poolUnknown = (pool: string) =>
  mistake(
    'POOL_UNKNOWN',
    `pool ${quote(pool)} is not known to this plugin (was its state directory emptied?); remove the network and create it again`,
  );

// --- addresses (ipam) --------------------------------------------------------------------------------------------

export const addressMalformed = (address: string, option: string) =>
  mistake('ADDRESS_MALFORMED', `${quote(address)} is not an IP address; give one such as ${option} 192.168.1.10`);

export const addressOutside = (address: string, subnet: string, option: string) =>
  mistake('ADDRESS_OUTSIDE', `address ${address} is not inside subnet ${subnet}; choose another ${option}`);

export const addressReserved = (address: string, subnet: string, meaning: string, option: string) =>
  mistake('ADDRESS_RESERVED', `address ${address} is the ${meaning} of ${subnet}; choose another ${option}`);

export const addressIsGateway = (address: string, network: string | null, option: string) =>
  mistake('ADDRESS_TAKEN', `address ${address} is the gateway ${ofNetwork(network)}; choose another ${option}`);

export const addressIsAuxiliary = (address: string, network: string | null, option: string) =>
  mistake(
    'ADDRESS_TAKEN',
    `address ${address} is an auxiliary address ${ofNetwork(network)}; choose another ${option}`,
  );

/** `kind`: what it is there already. */
export const addressNamedTwice = (address: string, kind: LeaseKind, option: string) =>
  mistake(
    'ADDRESS_TWICE',
    `address ${address} is named twice for this network, also as its ${kind === 'auxiliary' ? 'auxiliary address' : kind}; leave it out of ${option}`,
  );

export const addressIsNoHosts = (address: string, option: string) =>
  mistake(
    'ADDRESS_TAKEN',
    `address ${address} cannot be a gateway and this host's own end on the same subnet; choose another ${option}`,
  );

export const addressReservedFor = (address: string, name: string, option: string) =>
  mistake(
    'ADDRESS_RESERVED_FOR',
    `address ${address} is reserved for container ${quote(name)}; choose another ${option}, or free it: tsmacvlan unreserve ${quoteWhole(name)}`,
  );

export const addressOfHost = (address: string, network: string | null, option: string) =>
  mistake(
    'ADDRESS_TAKEN',
    `address ${address} is that of this host on the LAN ${ofNetwork(network)}; choose another ${option}`,
  );

export const addressOfEndpoint = (address: string, endpoint: string, network: string | null, option: string) =>
  mistake(
    'ADDRESS_TAKEN',
    `address ${address} is used by endpoint ${short(endpoint)} ${ofNetwork(network)}; choose another ${option} or remove that container (tsmacvlan who ${address} names it)`,
  );

/** `waitSeconds`: when the lease can be taken over at the latest; null when only its own network gives it back. */
export const addressLeased = (address: string, network: string | null, waitSeconds: number | null, option: string) =>
  mistake(
    'ADDRESS_TAKEN',
    waitSeconds === null
      ? `address ${address} is leased to a container ${ofNetwork(network)}; choose another ${option} or remove that container`
      : `address ${address} is leased to a container ${ofNetwork(network)} that is starting or was stopped; choose another ${option} or try again in ${waitSeconds} s`,
  );

export const addressOfTask = (address: string, option: string) =>
  mistake(
    'ADDRESS_TAKEN',
    `address ${address} is given to a task of this swarm already; choose another ${option} or remove that task`,
  );

export const addressHeld = (address: string, macAddress: string, link: string, option: string) =>
  mistake(
    'ADDRESS_HELD',
    `address ${address} is already used on the LAN by ${macAddress}, which answered on ${link}; choose another ${option}, or give that device another address and start again; a network made with -o conflict=warn lets containers start anyway`,
  );

/** `link`: of the host itself, or the parent of a container's. */
export const addressOnHost = (address: string, macAddress: string, link: string, option: string) =>
  mistake(
    'ADDRESS_HELD',
    `address ${address} is already used on this host by ${macAddress} on ${link}, the host's own link or a container's; choose another ${option}`,
  );

/** `option`: the option that names an address. */
export const addressOffered = (address: string, macAddress: string, link: string, option: string) =>
  mistake(
    'ADDRESS_HELD',
    `address ${address} is already used on the LAN by ${macAddress}, which answered on ${link}; choose another ${option}, ${orKeep(address)}`,
  );

/** As addressOffered(), of the host itself or a container on it. */
export const addressOfferedHere = (address: string, macAddress: string, link: string, option: string) =>
  mistake(
    'ADDRESS_HELD',
    `address ${address} is already used on this host by ${macAddress} on ${link}, the host's own link or a container's; choose another ${option}, ${orKeep(address)}`,
  );

const orKeep = (address: string) =>
  `or keep the network's IPAM from offering it again: make the network with --aux-address used=${address}, or with --ipam-driver tsmacvlan, which passes over used addresses`;

/** Who asks may or may not take it. */
export const addressWanted = (address: string, macAddress: string, link: string, option: string) =>
  mistake(
    'ADDRESS_WANTED',
    `address ${address} is being checked on the LAN by ${macAddress}, seen on ${link}, which may be about to use it; try again in a few seconds, or choose another ${option}`,
  );

export const addressLost = (address: string, macAddress: string, link: string, option: string) =>
  mistake(
    'ADDRESS_LOST',
    `address ${address} was free when it was chosen, but is now used on the LAN by ${macAddress}, seen on ${link}; start the container again, with another ${option} if you named this one`,
  );

export const recordContended = (key: string) =>
  fault('RECORD_CONTENDED', `the record of ${key} is being changed by others all the time; try again`);

/** How many addresses are used for what; those that are zero are left out. */
type Uses = readonly (readonly [bigint | number, string])[];

const counted = (uses: Uses) =>
  uses
    .filter(([count]) => count > 0)
    .map(([count, use]) => `${count} ${use}`)
    .join(', ');

/** Hosts of the shared store that are not heard of, and how many addresses of the range they have. */
export type LostHosts = readonly (readonly [node: string, count: number])[];

/** What to do where a lost host has addresses; they are its own as long as its containers answer. */
function remedyFor(lost: LostHosts, otherwise: string): string {
  const [first] = lost;
  if (first === undefined) return otherwise;
  const has = lost.map(([node, count]) => `${node} has ${count}`).join(', ');
  return `of hosts that are not heard of ${has}: bring them back, or free what they do not use with tsmacvlan store forget ${first[0]}`;
}

export const rangeExhausted = (ranges: readonly string[], uses: Uses, isRangeGiven: boolean, lost: LostHosts = []) => {
  const isAny = (use: string) => uses.some(([count, name]) => name === use && count > 0);
  const remedies = [
    ...(isRangeGiven ? ['widen --ip-range'] : []),
    ...(isAny('excluded') ? ['exclude less with --ipam-opt exclude='] : []),
    ...(isAny('reserved for containers') ? ['free reservations with tsmacvlan unreserve'] : []),
    ...(isAny('leased') || !isAny('excluded') ? ['remove unused containers'] : []),
    ...(isRangeGiven ? [] : ['create the network with a larger --subnet']),
  ];
  const usual = `${remedies.slice(0, -1).join(', ')}${isRangeGiven ? ' or ' : ', or '}${remedies.at(-1)}`;
  const remedy = remedyFor(lost, usual);
  return mistake(
    'RANGE_EXHAUSTED',
    `no free address in ${ranges.join(', ')}: ${counted(uses) || 'it has none'}; ${remedy}`,
  );
};

/** Whom a search met last. */
interface Holder {
  readonly address: string;
  readonly macAddress: string;
  readonly linkName: string;
  /** It only asked for the address. */
  readonly isWanted: boolean;
}

/** The search went on until its time was used up. */
export const rangeHeld = (ranges: readonly string[], uses: Uses, last: Holder, lost: LostHosts = []) => {
  const [verb, usual] = last.isWanted
    ? ['being checked', 'try again in a few seconds, or keep --ip-range apart from other hosts']
    : [
        'used',
        'keep --ip-range apart from other hosts, name them in --ipam-opt exclude=, or try again when some are gone',
      ];
  return mistake(
    'RANGE_HELD',
    `no free address found in ${ranges.join(', ')}: ${counted(uses)}, the last one tried (${last.address}) ${verb} by ${last.macAddress}, seen on ${last.linkName}; ${remedyFor(lost, usual)}`,
  );
};

/** `suspect`: its MAC address, or in words that it has many. */
export const rangeAnsweredByOne = (ranges: readonly string[], uses: Uses, last: Holder, suspect: string) =>
  mistake(
    'RANGE_ANSWERED_BY_ONE',
    `no free address found in ${ranges.join(', ')}: ${counted(uses)}, but one device (${suspect}) seems to answer for all of them, seen on ${last.linkName}; find it and stop it, or keep --ip-range apart from what is its own`,
  );

// --- the check of an address on the LAN ----------------------------------------------------------------------------

export const probeParentGone = (address: string, parent: string, cause?: unknown) =>
  new PluginError(
    'mistake',
    'PROBE_PARENT_GONE',
    `cannot check address ${address} on the LAN, because parent interface ${quote(parent)} is not on this host; bring it back and try again`,
    cause,
  );

export const probeParentDown = (address: string, parent: string, cause?: unknown) =>
  new PluginError(
    'mistake',
    'PROBE_PARENT_DOWN',
    `cannot check address ${address} on the LAN, because parent interface ${quote(parent)} is down; set it up with "ip link set ${parent} up" and try again`,
    cause,
  );

export const dhcpParentGone = (parent: string, existing: readonly string[]) =>
  mistake(
    'DHCP_PARENT_GONE',
    `interface ${quote(parent)} does not exist on this host (${listed(existing)}); give one of these, as in tsmacvlan dhcp eth0`,
  );

export const dhcpParentDown = (parent: string) =>
  mistake(
    'DHCP_PARENT_DOWN',
    `interface ${quote(parent)} is down, so that no DHCP server hears a question; set it up with "ip link set ${parent} up" and try again`,
  );

export const probeFailed = (address: string, parent: string, code: string, cause: unknown) =>
  fault(
    'PROBE_FAILED',
    `the kernel refused to check address ${address} on parent ${quote(parent)} (${code}); try again`,
    cause,
  );

export const probeStopped = (address: string) =>
  fault(
    'PROBE_STOPPED',
    `the check of address ${address} on the LAN was cut short, because tsmacvlan is stopping or its parent was given to another network; try again`,
  );

/**
 * Every sentence a user can see. One maker per mistake with typed arguments, so that no message can forget its value.
 *
 * House style: one line, lower case first, no full stop. First what is wrong, with the value as typed; after the
 * semicolon what to do, in the words of the option. No stack, no errno alone, no 64-digit ids.
 */

/** `mistake`: the user can mend it (HTTP 400, one log line). `fault`: we or the world (HTTP 500, logged with cause). */
export type Kind = 'mistake' | 'fault';

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
  const text = JSON.stringify(typeof value === 'string' && value.length > 80 ? `${value.slice(0, 77)}...` : value);
  // JSON leaves C1 controls and DEL raw; a terminal would obey them.
  return (text ?? 'undefined').replace(
    /[\u007f-\u009f\u2028\u2029]/g,
    (c) => `\\u${c.charCodeAt(0).toString(16).padStart(4, '0')}`,
  );
}

// --- the engine's calls ------------------------------------------------------------------------------------------

export const emptyBody = (call: string) =>
  mistake(
    'EMPTY_BODY',
    `empty request body for ${call} (an engine's retry after a broken connection, moby#35459); nothing was changed, run the command again`,
  );

// --- settings ----------------------------------------------------------------------------------------------------

export const unknownSettingValue = (name: string, value: string, allowed: string) =>
  mistake('SETTING_INVALID', `setting ${name}=${quote(value)} is not known; use ${allowed}`);

// --- network options ---------------------------------------------------------------------------------------------

const didYouMean = (word: string | undefined) => (word === undefined ? '' : `, did you mean ${word}?`);

export const unknownOption = (key: string, near: string | undefined, known: readonly string[]) =>
  mistake('OPTION_UNKNOWN', `unknown option -o ${quote(key)}${didYouMean(near)}; the options are ${known.join(', ')}`);

export const unknownMode = (value: string, near: string | undefined, modes: readonly string[]) =>
  mistake('MODE_UNKNOWN', `unknown macvlan_mode ${quote(value)}${didYouMean(near)}; use one of ${modes.join(', ')}`);

export const optionValue = (key: string, value: string, expected: string) =>
  mistake('OPTION_VALUE', `option -o ${key}=${quote(value)} is not usable; give ${expected}`);

export const vlanIdRange = (id: string, parent: string) =>
  mistake('VLAN_ID', `VLAN id ${id} in ${quote(parent)} is out of range; use 1 to 4094`);

export const vlanProtocolWithoutVlan = () =>
  mistake('VLAN_PROTOCOL', 'option -o vlan_protocol= has no VLAN to apply to; give the VLAN ids with -o vlan=');

export const optionNeedsParent = (key: string) =>
  mistake('OPTION_NEEDS_PARENT', `option -o ${key}= needs a parent interface; add -o parent=`);

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

// --- parents -----------------------------------------------------------------------------------------------------

export const parentMissing = (parent: string, existing: readonly string[]) =>
  mistake(
    'PARENT_MISSING',
    `parent interface ${quote(parent)} does not exist on this host (${listed(existing)}); give one of these with -o parent=, or NAME.ID for a VLAN`,
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
    `the network has no ${family} subnet; give one with --subnet, or switch ${family} off for this network`,
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
    'ADDRESS_OUTSIDE',
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
    `state directory ${quote(directory)} is in use by another running tsmacvlan${pid === null ? '' : ` (process ${pid})`}; stop that one first, or give this one a STATE_DIR of its own`,
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
    `cannot keep state in directory ${quote(directory)} (${reason}); make it writable for this user, or set STATE_DIR to one that is`,
  );

export const storeMissing = (file: string) =>
  mistake(
    'STORE_MISSING',
    `there is no state file ${quote(file)}; start tsmacvlan serve once, or set STATE_DIR to the directory it uses`,
  );

export const storeNotReadable = (file: string, reason: string) =>
  mistake(
    'STORE_NOT_READABLE',
    `cannot read state file ${quote(file)} (${reason}); run this command as the user of tsmacvlan serve, usually root`,
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

// --- the command line --------------------------------------------------------------------------------------------

export const unknownCommand = (name: string, near: string | undefined) =>
  mistake('USAGE', `unknown command ${quote(name)}${didYouMean(near)}; see tsmacvlan --help`);

export const surplusArgument = (argument: string, command: string) =>
  mistake('USAGE', `argument ${quote(argument)} is one too many for tsmacvlan ${command}; see tsmacvlan --help`);

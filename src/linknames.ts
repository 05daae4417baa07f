/**
 * The names and aliases of the links that are made here. A name only has to be one that nobody else has, within the 15
 * bytes of IFNAMSIZ; what shows that a link is ours is its alias (IFLA_IFALIAS), which stays with it wherever it is moved, unless
 * somebody in a container writes another one there: what is recorded is known by more (network/identity.ts).
 */
import { createHash, randomBytes } from 'node:crypto';

const ENDPOINT_ALIAS_PREFIX = 'tsmacvlan endpoint ';
/** On a VLAN sub-interface or an isolated link that was made for networks. */
export const PARENT_ALIAS = 'tsmacvlan parent';
/** On the host's own sub-interface of a parent, for host access. */
export const HOST_ALIAS = 'tsmacvlan host';
/** On a link that is there for a moment: to ask the LAN, or to ask the kernel whether a MAC address is in use. */
export const PROBE_ALIAS = 'tsmacvlan probe';

/** The alias of an endpoint's sub-interface; `endpointId` is the engine's, of 64 digits. */
export function endpointAlias(endpointId: string): string {
  return ENDPOINT_ALIAS_PREFIX + endpointId;
}

/** The endpoint whose sub-interface carries this alias; null for every other alias. */
export function endpointOfAlias(alias: string | null): string | null {
  return alias?.startsWith(ENDPOINT_ALIAS_PREFIX) === true ? alias.slice(ENDPOINT_ALIAS_PREFIX.length) : null;
}

/** 15 bytes: the engine moves the link into the container under this name, so no container may have it already. */
export function endpointLinkName(endpointId: string): string {
  return `tsm${endpointId.slice(0, 12)}`;
}

/** Whether an endpoint's sub-interface may have this name. */
export function isEndpointLinkName(name: string): boolean {
  return /^tsm[0-9a-f]{12}$/.test(name);
}

/** The parent of an isolated network. */
export function isolatedLinkName(networkId: string): string {
  return `tsmi${networkId.slice(0, 11)}`;
}

/** It follows from the parent's name, which may itself have 15 bytes. */
export function hostLinkName(parentName: string): string {
  return `tsmh${createHash('sha256').update(parentName).digest('hex').slice(0, 11)}`;
}

/** A new name for a link that asks the LAN. */
export function makeProbeLinkName(): string {
  return `tsmp${randomBytes(4).toString('hex')}`;
}

/** A new name for a link that asks the kernel whether a MAC address is in use (network/trial.ts). */
export function makeTrialLinkName(): string {
  return `tsmt${randomBytes(4).toString('hex')}`;
}

/** What the doctor's checks have in common: what they look at, and what they say. */
import type { EngineInventory } from '../engine/inventory.ts';
import type { Link, LinkAddress, Neighbour, Route } from '../kernel/link.ts';
import type { DhcpOffer } from '../lan/dhcpoffers.ts';
import type { HeardAnswers } from '../lan/survey.ts';
import type { Network, Records } from '../model.ts';
import type { Naming } from '../naming.ts';
import type { NetworkRemark } from '../remarks.ts';

/** One line of the doctor. */
export interface Diagnosis {
  readonly level: 'ok' | 'warning' | 'failure';
  /** The network's or the container's name, or `host`. */
  readonly subject: string;
  readonly says: string;
  /** What to do; empty for what is well. */
  readonly todo: string;
}

/** A link with what is on it. */
export interface ExaminedLink {
  readonly link: Link;
  readonly isWireless: boolean;
  /** Of a card that is another's (SR-IOV). */
  readonly isVirtualFunction: boolean;
  readonly addresses: readonly LinkAddress[];
  readonly neighbours: readonly Neighbour[];
  /** MAC addresses that it is to let through beside its own. */
  readonly filteredMacs: readonly string[];
}

/** All that the checks look at, read before. */
export interface Examined {
  readonly records: Records;
  /** Null where Docker could not be asked. */
  readonly inventory: EngineInventory | null;
  readonly naming: Naming;
  readonly filteredParents: readonly string[];
  /** Of the daemon that runs; of this command where none does. */
  readonly version: string;
  /** Of the state. */
  readonly schema: number;
  /** By name: parents, and the host's own links on them. */
  readonly links: ReadonlyMap<string, ExaminedLink>;
  readonly routes: readonly Route[];
  /** See remarks.ts. */
  readonly remarksOf: (network: Network) => readonly NetworkRemark[];
  /** By endpoint: its link, wherever it is, with its addresses. Null where the kernel does not tell of other namespaces. */
  readonly containerLinks: ReadonlyMap<string, ExaminedContainer> | null;
  readonly lan: LanAnswers;
}

/** What the LAN of a parent is asked. A sentence where it cannot be asked; asked a second time it answers the same. */
export interface LanAnswers {
  /** Who answers for an address. */
  readonly who: (parent: string, address: string) => Promise<HeardAnswers | string>;
  /** The MAC address of a device that answers for every address of a subnet; null where there is none. */
  readonly proxy: (parent: string, subnet: string) => Promise<string | null>;
  /** What DHCP servers offer there; nothing where they cannot be asked. Those that ping an address first need patience. */
  readonly offers: (parent: string, patience?: OfferPatience) => Promise<readonly DhcpOffer[]>;
}

/** How long offers are waited for. */
export type OfferPatience = 'patient' | 'hasty';

/** Where the records are. */
export interface ExaminedState {
  readonly directory: string;
  readonly freeBytes: number;
  /** Of its files. */
  readonly bytes: number;
  readonly isWritable: boolean;
}

/** A container's link. */
export interface ExaminedContainer {
  readonly link: Link;
  /** False for one that is back in the host's namespace, where its engine left it. */
  readonly isElsewhere: boolean;
  readonly addresses: readonly string[];
}

/** Null where there is nothing to say. */
export type Check<Subject> = (subject: Subject, seen: Examined) => Diagnosis | null | Promise<Diagnosis | null>;

/** All is as it should be. */
export function ok(subject: string, says: string): Diagnosis {
  return { level: 'ok', subject, says, todo: '' };
}

/** It works, and something will not. */
export function warning(subject: string, says: string, todo: string): Diagnosis {
  return { level: 'warning', subject, says, todo };
}

/** Something does not work. */
export function failure(subject: string, says: string, todo: string): Diagnosis {
  return { level: 'failure', subject, says, todo };
}

/** Containers get a gateway by which they reach others. */
export function hasGateway({ parent, internal, options }: Network): boolean {
  return parent.recipe !== 'isolated' && !internal && options.gateway;
}

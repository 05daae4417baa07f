/** What the page of `tsmacvlan map` shows, as the command line makes it and the browser gets it: plain data, as JSON. */

/** All of it, of one moment. */
export interface Picture {
  /** ISO 8601. */
  readonly at: string;
  /** The name of the host on which it was made. */
  readonly host: string;
  /** Sentences on what could not be asked. */
  readonly remarks: readonly string[];
  readonly tree: readonly PictureBranch[];
  readonly grids: readonly PictureGrid[];
  /** The latest first. */
  readonly conflicts: readonly PictureConflict[];
}

/** What the doctor says of something that is not as it should be. */
export interface PictureTrouble {
  readonly level: 'warning' | 'failure';
  readonly says: string;
  /** What to do. */
  readonly todo: string;
}

/** `stopped`: a container that does not run. `host`: another host of a shared store, and `address` one that it has. */
export type BranchKind = 'host' | 'parent' | 'vlan' | 'network' | 'container' | 'stopped' | 'address';

/** A parent, a VLAN on it, a network there, a container in it. */
export interface PictureBranch {
  readonly kind: BranchKind;
  /** The same in each picture. */
  readonly id: string;
  /** Docker's, else what there is. */
  readonly name: string;
  /** `bridge · 192.168.1.0/24 via 192.168.1.1`; may be empty. */
  readonly facts: string;
  /** Without prefix length. */
  readonly addresses: readonly string[];
  /** Empty for what has none. */
  readonly macAddress: string;
  readonly troubles: readonly PictureTrouble[];
  readonly branches: readonly PictureBranch[];
}

/**
 * What an address is. `fixed`: gateway, host, or reserved by name. `stranger`: somebody else on the LAN has it, and `both`: a
 * container has it too. `elsewhere`: another host of a shared store has it. `unusable`: the network's own, or broadcast. `free`:
 * may be given to whoever comes, and `outside`: only to who asks for it.
 */
export type SquareKind =
  | 'container'
  | 'fixed'
  | 'stranger'
  | 'both'
  | 'elsewhere'
  | 'remembered'
  | 'excluded'
  | 'unusable'
  | 'free'
  | 'outside';

/** One address of which there is something to say. */
export interface PictureSquare {
  /** Counted from the first address of the subnet, as a decimal number. */
  readonly at: string;
  readonly kind: SquareKind;
  /** `container web, 02:42:c0:a8:01:46` */
  readonly words: string;
}

/** The first and the last, counted from the first address of the subnet, as decimal numbers. */
export type PictureSpan = readonly [first: string, last: string];

/** A subnet on one parent. */
export interface PictureGrid {
  readonly id: string;
  /** `lan · 192.168.1.0/24 on eth0` */
  readonly title: string;
  /** How much of each range is used, and what is next. */
  readonly counts: readonly string[];
  readonly family: 'IPv4' | 'IPv6';
  /** The first address as a decimal number, and how many there are. */
  readonly first: string;
  readonly size: string;
  /** Where addresses come from that nobody named. */
  readonly ranges: readonly PictureSpan[];
  readonly excluded: readonly PictureSpan[];
  /** In order. */
  readonly squares: readonly PictureSquare[];
}

/** Somebody else with an address or the MAC address of a container, once or still. */
export interface PictureConflict {
  readonly id: string;
  readonly address: string;
  readonly parent: string;
  /** Empty where no container had the address. */
  readonly container: string;
  /** Who has it, for people. */
  readonly holder: string;
  readonly count: number;
  /** ISO 8601. */
  readonly firstSeenAt: string;
  readonly seenAt: string;
  /** Null while it lasts. */
  readonly endedAt: string | null;
}

/** What `map --serve` tells a page that looks: a picture, or why there is none; neither where nothing has changed. */
export interface PictureEvent {
  /** ISO 8601. */
  readonly at: string;
  readonly picture?: Picture;
  readonly trouble?: string;
}

/** What a detection is to find out, whom it tells, and what it works with. */
import type { Address } from '../address.ts';
import type { Clock } from '../clock.ts';
import type { Profile } from './timing.ts';
import type { LossListener } from './verdict.ts';

/** The LAN as seen from one link. */
export interface Wire {
  /** Our frames come from it. */
  readonly macAddress: string;
  /** Sends a whole Ethernet frame. Never throws: a frame may get lost here as it may on the LAN. */
  send(frame: Buffer): void;
  /** Hands the frames that wait to those concerned, before it returns. */
  drain(): void;
  /** How many frames about awaited addresses were lost until now, because too many came at once; as of the last drain(). */
  readonly lostFrames: number;
  /** When this process was last woken too late to read the frames (LATE_MS in timing.ts), by the clock; -Infinity for never. */
  readonly lateAtMs: number;
  /** Reserves the next frame; how many milliseconds from now it has to be sent (pacer.ts). */
  turn(): number;
  /** Calls `run` when its frame may go, what somebody waits for first; null when that was at once, else how to call it off. */
  inTurn(isWaitedFor: boolean, run: () => void): (() => void) | null;
  /** Whether a frame that can as well be left out may go now. */
  spare(): boolean;
}

/** What one detection is to find out, and whom it tells. */
export interface DetectionSpec {
  readonly address: Address;
  /** The link that carries the LAN on this host, by the name that it has now; for the verdict. */
  readonly parentName: string;
  readonly profile: Profile;
  /** How long a free address is guarded; 0 not at all. */
  readonly guardMs: number;
  /** A container of ours, whose use of the address is no conflict. `isGiven`: it was found free and one has it by now. */
  readonly isOwn: (macAddress: string, isGiven: boolean) => boolean;
  /** Somebody began to use the address while it was guarded, which ends the guard. */
  readonly onLateConflict: (macAddress: string) => void;
  /** It is over: nothing more is sent or listened for. Loss `ended` as well when the address never was on standby. */
  readonly onOver: LossListener;
  /** Left out when a container waits for the address. */
  readonly standby?: StandbyTerms;
}

/** How an address is kept on standby for a container to come. */
export interface StandbyTerms {
  /** It is asked for again when the last time was this long ago. */
  readonly refreshMs: number;
  /** It has been a container's of ours until now: on standby from the first moment, and asked for meanwhile. */
  readonly isOurs: boolean;
  /** Nobody may ever want it: any other daemon that asks for it gets it. */
  readonly isGuess?: boolean | undefined;
  /** Whether it is the container that leaves the address, by whatever interface: what it said until now may be read a little later. */
  readonly isLeaver?: (macAddress: string) => boolean;
  /**
   * Whether the MAC address is that of a link of this host or of its containers. Linux answers for an address on all
   * interfaces of its container, so others than ours speak for an address until it is gone. Null where that cannot be.
   */
  readonly isOfHost: ((macAddress: string) => Promise<boolean>) | null;
}

/** What a detection works with. */
export interface DetectionContext {
  readonly wire: Wire;
  readonly clock: Clock;
  /** 0 to 1, as Math.random. */
  readonly random: () => number;
  /**
   * Whether this MAC address, which answered for the address, answers for every address (proxyarp.ts): then its answer
   * says nothing. Undefined where that cannot be told.
   */
  readonly answersForAll: ((macAddress: string) => Promise<boolean>) | undefined;
}

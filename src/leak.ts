/** What the rooms tell the collector. */

/**
 * `soon`: gone as far as the kernel and the records can tell; the next reading has to agree. `late`: a call may still be
 * on its way, so it must look like this for minutes.
 */
export type Patience = 'soon' | 'late';

/** Something that looks left over at this moment. */
export interface Leak {
  /** Two readings with the same key saw the same thing in the same state. */
  readonly key: string;
  readonly kind: 'network' | 'endpoint' | 'link' | 'pool' | 'lease';
  /** `7edcda37f0f2 192.168.1.2/24`, `tsm7edcda37f0f2`, `192.168.1.2` */
  readonly name: string;
  /** Why it is nobody's: `its link is gone and its MAC address is not in use on eth0`. */
  readonly why: string;
  readonly patience: Patience;
  /** Looks again and removes it; false when it was none after all. */
  collect(): Promise<boolean>;
}

/** A room that may have leaks. */
export interface LeakSource {
  leaks(): Promise<Leak[]>;
}

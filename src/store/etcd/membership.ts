/**
 * This host's own record among the nodes of the cluster. It ends when the host is not heard of for some time, and every
 * change that the host makes in etcd is made only while its record is the one that this process wrote: a process that stood
 * still for long, and a machine that is a copy of another, can change nothing.
 */
import { uptime } from 'node:os';
import * as errors from '../../errors.ts';
import type { Etcd } from './client.ts';
import { markCopied, noteStopped, type Self } from './identity.ts';
import type { Condition } from './messages.ts';

/** How long etcd keeps the record of a host that it does not hear of, in seconds. */
const RECORD_S = 15;
/** Two answers of etcd come 5 s apart. Less than a restored store gives out nothing (store.ts). */
const SURE_MS = 8000;
/** A record of another process that lasts so long is kept alive by somebody. */
const COPY_AFTER_MS = 60_000;
/** It is looked for more often than that. */
const GAP_MS = 5000;
const BRIEF_MS = 1000;
const TRIES = 5;

/** No key will ever have it. */
const NO_REVISION = Number.MAX_SAFE_INTEGER;

/** The keys of a node. */
export interface NodeKeys {
  /** Ends when the node is not heard of. */
  readonly record: string;
  /** Stays: where the node's processes ran. */
  readonly place: string;
}

/**
 * How long another process's record was seen without a break. An election gives every record its whole time again, as does a
 * start of etcd; while nobody answers nothing is known. So what stood through either is no sign that somebody keeps it alive.
 */
export class Sightings {
  #term = 0n;
  #sinceMs = 0;
  #lastMs = Number.NEGATIVE_INFINITY;

  /** It was seen once more, in an answer of that term of etcd. Whether somebody keeps it alive; `nowMs`: monotonic. */
  note(term: bigint, nowMs: number): boolean {
    if (term !== this.#term || nowMs - this.#lastMs > GAP_MS) [this.#term, this.#sinceMs] = [term, nowMs];
    this.#lastMs = nowMs;
    return nowMs - this.#sinceMs > COPY_AFTER_MS;
  }
}

/** The record `nodes/NODE`: entered, kept alive, withdrawn. */
export class Membership {
  readonly self: Self;
  readonly #etcd: Etcd;
  readonly #key: string;
  readonly #placeKey: string;
  #leaseId = 0;
  /** Of the record that this process wrote; 0 without one. */
  #revision = 0;
  /** When the record was certainly there for the last time: a clock that goes on while the host sleeps. */
  #aliveAtMs = Number.NEGATIVE_INFINITY;
  #entering: Promise<void> | undefined;
  /** Of the record while it is another process's. */
  readonly #sightings = new Sightings();
  #isCopy: boolean;
  #hasLeft = false;
  #isAlone = true;

  constructor(etcd: Etcd, { record, place }: NodeKeys, self: Self) {
    this.self = self;
    this.#etcd = etcd;
    this.#key = record;
    this.#placeKey = place;
    this.#isCopy = self.isCopy;
  }

  /** Holds as long as this process is the node. */
  get condition(): Condition {
    return { key: this.#key, revision: this.#revision };
  }

  /** The lease of etcd that ends with this process. */
  get leaseId(): number {
    return this.#leaseId;
  }

  /**
   * All that this node has was claimed from this place. Else the machine has booted since, or it is a copy, or there is one: a
   * container that is not here may run there.
   */
  get isAlone(): boolean {
    return this.#isAlone;
  }

  /** No other host can have taken this one for lost. */
  get isSurelyAlive(): boolean {
    return this.#revision > 0 && sleeplessMs() - this.#aliveAtMs < SURE_MS;
  }

  /** Enters this node where it is not entered. Throws CLUSTER_NODE_TAKEN. */
  async ensure(): Promise<void> {
    if (this.#revision === 0) await this.enter();
  }

  /** Enters this node again, which from then on is kept alive. Throws CLUSTER_NODE_TAKEN. */
  enter(): Promise<void> {
    this.#entering ??= this.#enter().finally(() => (this.#entering = undefined));
    return this.#entering;
  }

  async #enter(): Promise<void> {
    const { node, host, life, place, file } = this.self;
    if (this.#isCopy) throw errors.clusterNodeCopied(node, file);
    if (this.#hasLeft) throw this.#etcd.silence();
    const leaseId = 1 + Math.floor(Math.random() * 2 ** 48);
    const beganAtMs = sleeplessMs();
    await this.#etcd.grant(leaseId, RECORD_S);
    const put = { put: { key: this.#key, value: JSON.stringify({ host, life, place }), lease: leaseId } };
    for (let tries = 0, revision = 0; tries < TRIES; tries++) {
      const outcome = await this.#etcd.transaction([{ key: this.#key, revision }], [put], [this.#key]);
      if (outcome.isDone) {
        await this.#notePlace({ key: this.#key, revision: outcome.revision });
        [this.#leaseId, this.#revision, this.#aliveAtMs] = [leaseId, outcome.revision, beganAtMs];
        return;
      }
      const [found] = outcome.found;
      if (found !== undefined && !this.#isOwn(found.value)) this.#refuse(found.value, outcome.term);
      revision = found?.revision ?? 0;
    }
    throw errors.recordContended(this.#key);
  }

  /** Before anything is changed. Where processes ran at several places that stays so until settlePlace(). */
  async #notePlace(condition: Condition): Promise<void> {
    const { place } = this.self;
    if (place === '') return;
    const key = this.#placeKey;
    const [standing] = (await this.#etcd.transaction([{ key, revision: NO_REVISION }], [], [key])).found;
    this.#isAlone = (standing?.value ?? place) === place;
    const value = this.#isAlone ? place : '';
    if (standing?.value !== value) await this.#etcd.transaction([condition], [{ put: { key, value } }], []);
  }

  /** The LAN was asked for all that this node had from another place. */
  async settlePlace(): Promise<void> {
    const put = { put: { key: this.#placeKey, value: this.self.place } };
    const { isDone } = await this.#etcd.transaction([this.condition], [put], []);
    if (isDone) this.#isAlone = true;
  }

  /** This process entered it, or one before it on the same state directory: its lock says that it is dead, or it stopped in order. */
  #isOwn(value: string): boolean {
    const { life, place } = readRecord(value);
    const { self } = this;
    const isKnown = (word: string, ...own: readonly string[]) => word !== '' && own.includes(word);
    return isKnown(life, self.life, self.stopped) || isKnown(place, self.place);
  }

  #refuse(value: string, term: bigint): never {
    const { node, file } = this.self;
    if (this.#sightings.note(term, performance.now())) {
      this.#isCopy = true;
      markCopied(this.self);
    }
    throw errors.clusterNodeTaken(node, readRecord(value).host, RECORD_S, file);
  }

  /** False when this node has to be entered again. */
  async keepAlive(): Promise<boolean> {
    const [leaseId, askedAtMs] = [this.#leaseId, sleeplessMs()];
    if (leaseId === 0) return false;
    const isAlive = await this.#etcd.keepAlive(leaseId);
    if (leaseId !== this.#leaseId) return this.#leaseId !== 0;
    if (isAlive) this.#aliveAtMs = askedAtMs;
    else this.forfeit(this.#revision);
    return isAlive;
  }

  /** The record of that revision is not there any more. */
  forfeit(revision: number): void {
    if (revision === this.#revision) [this.#leaseId, this.#revision] = [0, 0];
  }

  /** Of a command: its record goes at once. Never throws. */
  async leave(): Promise<void> {
    const { condition } = this;
    this.#end();
    if (condition.revision === 0) return;
    await this.#etcd.transaction([condition], [{ delete: this.#key }], [this.#key], BRIEF_MS).catch(() => undefined);
  }

  /**
   * Of a daemon: its record stays when it stops, and ends by itself, so that no copy comes in its place meanwhile. The same state
   * directory takes it over at once, also when the machine boots in between. Never throws.
   */
  stop(): void {
    const wasEntered = this.#revision > 0;
    this.#end();
    try {
      if (wasEntered) noteStopped(this.self);
    } catch {
      // On a disk that is full the next start may wait for the end of the record.
    }
  }

  #end(): void {
    this.#hasLeft = true;
    this.forfeit(this.#revision);
  }
}

/** What stands at a node's key; of what is no record every word is empty. */
function readRecord(value: string): { host: string; life: string; place: string } {
  let record: { host?: unknown; life?: unknown; place?: unknown } = {};
  try {
    record = Object(JSON.parse(value)) as object;
  } catch {
    // Another program wrote it.
  }
  const word = (one: unknown) => (typeof one === 'string' ? one : '');
  return { host: word(record.host), life: word(record.life), place: word(record.place) };
}

/** CLOCK_BOOTTIME. */
function sleeplessMs(): number {
  return uptime() * 1000;
}

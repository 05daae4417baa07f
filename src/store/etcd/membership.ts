/**
 * This host's own record among the nodes of the cluster. It ends when the host is not heard of for some time, and every
 * change that the host makes in etcd is made only while its record is the one that this process wrote: a process that stood
 * still for long, and a machine that is a copy of another, can change nothing.
 */
import { uptime } from 'node:os';
import * as errors from '../../errors.ts';
import type { Etcd } from './client.ts';
import { markCopied, type Self } from './identity.ts';
import type { Condition } from './messages.ts';

/** How long etcd keeps the record of a host that it does not hear of, in seconds. */
const RECORD_S = 15;
/** Two answers of etcd come 5 s apart. Less than a restored store gives out nothing (store.ts). */
const SURE_MS = 8000;
/** A record of another process that lasts so long is kept alive by somebody. An election prolongs it, some times over. */
const COPY_AFTER_MS = 60_000;
const BRIEF_MS = 1000;
const TRIES = 5;

/** The record `nodes/NODE`: entered, kept alive, withdrawn. */
export class Membership {
  readonly self: Self;
  readonly #etcd: Etcd;
  readonly #key: string;
  #leaseId = 0;
  /** Of the record that this process wrote; 0 without one. */
  #revision = 0;
  /** When the record was certainly there for the last time: a clock that goes on while the host sleeps. */
  #aliveAtMs = Number.NEGATIVE_INFINITY;
  #entering: Promise<void> | undefined;
  /** Since when the record is another process's. */
  #otherSinceMs: number | null = null;
  #isCopy: boolean;
  #hasLeft = false;

  /** `key`: of the record. */
  constructor(etcd: Etcd, key: string, self: Self) {
    this.self = self;
    this.#etcd = etcd;
    this.#key = key;
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

  /** No other host can have taken this one for lost. */
  get isSurelyAlive(): boolean {
    return this.#revision > 0 && sleeplessMs() - this.#aliveAtMs < SURE_MS;
  }

  /** Enters this node where it is not entered. Throws CLUSTER_NODE_TAKEN. */
  async ensure(): Promise<void> {
    if (this.#revision === 0) await this.enter();
  }

  /** Enters this node anew, which from then on is kept alive. Throws CLUSTER_NODE_TAKEN. */
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
        [this.#leaseId, this.#revision, this.#aliveAtMs] = [leaseId, outcome.revision, beganAtMs];
        this.#otherSinceMs = null;
        return;
      }
      const [found] = outcome.found;
      if (found !== undefined && !this.#isOwn(found.value)) this.#refuse(found.value);
      revision = found?.revision ?? 0;
    }
    throw errors.recordContended(this.#key);
  }

  /** This process entered it, or one before it on the same state directory, which the directory's lock says is dead. */
  #isOwn(value: string): boolean {
    const { life, place } = readRecord(value);
    return life === this.self.life || (place !== '' && place === this.self.place);
  }

  #refuse(value: string): never {
    const { node, file } = this.self;
    this.#otherSinceMs ??= performance.now();
    if (performance.now() - this.#otherSinceMs > COPY_AFTER_MS) {
      this.#isCopy = true;
      markCopied(this.self);
    }
    throw errors.clusterNodeTaken(node, readRecord(value).host, RECORD_S, file);
  }

  /** False when this node has to be entered anew. */
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

  /**
   * Of a command: its record goes at once. That of a daemon stays when it stops, and ends by itself: the same state directory takes
   * it over at once, and a copy of it does not come in its place meanwhile. Never throws.
   */
  async leave(): Promise<void> {
    const { condition } = this;
    this.#hasLeft = true;
    if (condition.revision === 0) return;
    this.forfeit(condition.revision);
    await this.#etcd.transaction([condition], [{ delete: this.#key }], [this.#key], BRIEF_MS).catch(() => undefined);
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

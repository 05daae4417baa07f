/**
 * Who this host is for the others, and in which cluster of etcd its claims stand: files beside its state.
 *
 *     STATE_DIR/node      web1-3f2a9c1d04be      named at the first start; the host may be renamed afterwards
 *     STATE_DIR/stopped   77c5b1d60a3e           the process that stopped in order last; the node's record names it until the next start
 *     STATE_DIR/cluster   {"id":"cdf818194e3a8c32","revision":4711,"lease":"TsmacvlanLocal/192.168.1.7","changed":4692}
 */
import { createHash, randomBytes } from 'node:crypto';
import { existsSync, readFileSync, renameSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { hostname } from 'node:os';
import { dirname, join, resolve } from 'node:path';
import * as errors from '../../errors.ts';
import type { Position } from './client.ts';

/** A node, and the process that speaks for it. */
export interface Self {
  readonly node: string;
  /** As the host is called now. */
  readonly host: string;
  /** Where the node's name is kept, for the sentence. */
  readonly file: string;
  /** Of this process alone. */
  readonly life: string;
  /**
   * The same for every process on this state directory since this kernel booted, and for no other: not for a copy of the
   * directory, nor for a clone of the machine. The lock of the directory lets only one of them live.
   */
  readonly place: string;
  /**
   * The life of the process that stopped in order here last; empty where none did. Whose record that is has ended, also when the
   * machine has booted since; a copy that was made while it ran does not know it.
   */
  readonly stopped: string;
  /** It was found out before that another machine is this node: see markCopied(). */
  readonly isCopy: boolean;
}

/** Begins the name of a command that changes something; no host is called so. */
export const COMMAND = ':command-';

/** Behind the name in the file of a node that is a copy. */
const COPIED = 'copied';
/** A host's name as hostname(7) has it, or as it was when it was given, and twelve random digits. */
const NODE_FILE = /^[^\s/]+-[0-9a-f]{12}(\s+copied)?\s*$/;
const BOOT_ID = '/proc/sys/kernel/random/boot_id';

/** Who this host is. Named at the first call. */
export function readSelf(stateDirectory: string): Self {
  const { node, file } = peekSelf(stateDirectory);
  if (!existsSync(file)) writeWhole(file, `${node}\n`);
  return peekSelf(stateDirectory);
}

/** Who it is, or would be, without writing anything. */
export function peekSelf(stateDirectory: string): Self {
  const file = join(resolve(stateDirectory), 'node');
  const host = hostname();
  const [name = '', mark] = existsSync(file) ? readName(file) : [];
  const life = randomBytes(6).toString('hex');
  const node = name === '' ? `${host}-${randomBytes(6).toString('hex')}` : name;
  return { node, host, file, life, place: placeOf(file), stopped: readStopped(file), isCopy: mark === COPIED };
}

/** This process changes nothing any more. Throws where that cannot be written. */
export function noteStopped({ file, life }: Pick<Self, 'file' | 'life'>): void {
  writeWhole(stoppedFile(file), `${life}\n`);
}

function readStopped(file: string): string {
  try {
    return readFileSync(stoppedFile(file), 'utf8').trim();
  } catch {
    return '';
  }
}

function stoppedFile(file: string): string {
  return join(dirname(file), 'stopped');
}

/** Its name without more; null where it has none. */
export function peekNode(stateDirectory: string): string | null {
  const file = join(resolve(stateDirectory), 'node');
  return existsSync(file) ? (readName(file)[0] ?? null) : null;
}

/** From now on it is this node: what it claimed in a shared store stands there by this name. What is answered undoes it. */
export function renameNode(stateDirectory: string, node: string): () => void {
  const file = join(resolve(stateDirectory), 'node');
  const before = existsSync(file) ? readFileSync(file, 'utf8') : null;
  // What a backup says could be anything.
  if (!NODE_FILE.test(node)) return () => undefined;
  writeWhole(file, `${node}\n`);
  return () => (before === null ? rmSync(file, { force: true }) : writeWhole(file, before));
}

/** From now on this host refuses to be the node, also while the other machine is off. */
export function markCopied({ file, node }: Pick<Self, 'file' | 'node'>): void {
  if (existsSync(file)) writeWhole(file, `${node}\n${COPIED}\n`);
}

/** Its words. Throws NODE_FILE for what is no name: as another node this host would leave its claims with one that is dead for good. */
function readName(file: string): string[] {
  const text = readFileSync(file, 'utf8');
  if (!NODE_FILE.test(text)) throw errors.nodeFile(file);
  return text.trim().split(/\s+/);
}

/** Whole or not at all, also on a disk that is full. */
function writeWhole(file: string, text: string): void {
  writeFileSync(`${file}.new`, text, { mode: 0o600, flush: true });
  renameSync(`${file}.new`, file);
}

function placeOf(file: string): string {
  try {
    const { dev, ino } = statSync(file, { bigint: true });
    return createHash('sha256')
      .update(`${readFileSync(BOOT_ID, 'utf8')}${dev}:${ino}`)
      .digest('hex')
      .slice(0, 16);
  } catch {
    return '';
  }
}

/** A claim, by the key of its lease, and the revision of its last change. */
export interface LastClaim {
  readonly lease: string;
  readonly revision: number;
}

/** How far the cluster had come, and the claim that was changed last of those that stood. */
export interface KnownPosition extends Position {
  readonly lastClaim: LastClaim | undefined;
}

/** How far the cluster had come that this host knew last; kept so that another one is known for another one. */
export class KnownCluster {
  readonly #file: string;
  #position: KnownPosition | undefined;

  constructor(stateDirectory: string) {
    this.#file = join(resolve(stateDirectory), 'cluster');
    this.#position = existsSync(this.#file) ? readPosition(readFileSync(this.#file, 'utf8')) : undefined;
  }

  /** Undefined before the first. */
  get position(): KnownPosition | undefined {
    return this.#position;
  }

  /** Written when it has changed. On a disk that is full the next one is. */
  keep(position: KnownPosition): void {
    const known = this.#position;
    if (known?.clusterId === position.clusterId && known.revision === position.revision) return;
    this.#position = position;
    const { clusterId: id, revision, lastClaim } = position;
    const text = JSON.stringify({ id, revision, lease: lastClaim?.lease, changed: lastClaim?.revision });
    try {
      // Whole or not at all.
      writeFileSync(`${this.#file}.new`, text, { mode: 0o600, flush: known?.clusterId !== position.clusterId });
      renameSync(`${this.#file}.new`, this.#file);
    } catch {
      this.#position = known;
    }
  }
}

/** Whether this host has been in a cluster and did not move out. */
export function isInCluster(stateDirectory: string): boolean {
  return existsSync(join(resolve(stateDirectory), 'cluster'));
}

/** It moved out. */
export function forgetCluster(stateDirectory: string): void {
  rmSync(join(resolve(stateDirectory), 'cluster'), { force: true });
}

/** A file that is no such thing, as after a power cut, is as none. */
function readPosition(text: string): KnownPosition | undefined {
  try {
    const { id, revision, lease, changed } = Object(JSON.parse(text)) as Record<string, unknown>;
    const lastClaim =
      typeof lease === 'string' && typeof changed === 'number' ? { lease, revision: changed } : undefined;
    return typeof id === 'string' && typeof revision === 'number' ? { clusterId: id, revision, lastClaim } : undefined;
  } catch {
    return undefined;
  }
}

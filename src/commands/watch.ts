/**
 * `watch`: what happens, as it comes, until it is interrupted or nobody reads it any more. Names come from Docker, which is asked by
 * this command alone, and a little later than the daemon knows of a container.
 */
import { once } from 'node:events';
import { setTimeout as sleep } from 'node:timers/promises';
import { escapeControls } from '../errors.ts';
import type { ToldHappening } from '../happenings.ts';
import { hasNoReader } from '../kernel/libc.ts';
import { keepNames, Naming } from '../naming.ts';
import { followDaemon, type WatchLine } from '../server/client.ts';
import type { Options } from './command.ts';
import { findDaemon, findOrThrow } from './daemon.ts';
import { namingOf, readInventory } from './docker.ts';
import { happeningLine, watchLine, type WatchState } from './watchlines.ts';

/** A name is waited for so long, and Docker asked so often meanwhile, or three times as long after as it took to answer. */
const NAME_MS = 2000;
const NAME_AGAIN_MS = 100;
/** A Docker that did not answer is not asked again before. */
const SILENT_MS = 30_000;
/** Names of what Docker has no more, which are kept for what is told late. */
const MOST_GONE = 5000;
/** How often a daemon that ended is looked for, and whether anybody reads still. */
const AGAIN_MS = 500;
const READER_MS = 1000;
const STDOUT = 1;

/** `watch` */
export async function watch(options: Pick<Options, 'json' | 'no-trunc'>): Promise<void> {
  const reader = new AbortController();
  process.stdout.once('error', () => reader.abort());
  const looking = setInterval(() => hasNoReader(STDOUT) && reader.abort(), READER_MS);
  try {
    await new Watching(options, reader.signal).run();
  } finally {
    clearInterval(looking);
  }
}

class Watching {
  readonly #options: Pick<Options, 'json' | 'no-trunc'>;
  /** Nobody reads any more. */
  readonly #signal: AbortSignal;
  readonly #names: Names;
  /** Why it is not connected any more, which was said; null before that. */
  #away: 'gone' | 'slow' | null = null;

  constructor(options: Pick<Options, 'json' | 'no-trunc'>, signal: AbortSignal) {
    this.#options = options;
    this.#signal = signal;
    this.#names = new Names(options['no-trunc'] === true);
  }

  async run(): Promise<void> {
    let socket: string | null = await findOrThrow();
    await this.#names.ask();
    while (!this.#signal.aborted) {
      const hasBegun = socket !== null && (await followDaemon(socket, (line) => this.#hear(line), this.#signal));
      if (hasBegun) await this.#tellAway('gone');
      await sleep(AGAIN_MS, null, { signal: this.#signal }).catch(() => undefined);
      if (!this.#signal.aborted) socket = await findDaemon();
    }
  }

  async #hear(line: ToldHappening | WatchLine): Promise<void> {
    if (line.what === 'watching') {
      await this.#say(this.#away === 'gone' ? 'back' : 'listening');
      this.#away = null;
    } else if (line.what === 'end') {
      await this.#tellAway(line.reason === 'slow' ? 'slow' : 'gone');
    } else await this.#show(line);
  }

  async #tellAway(state: 'gone' | 'slow'): Promise<void> {
    if (this.#away !== null || this.#signal.aborted) return;
    this.#away = state;
    await this.#say(state);
  }

  async #say(state: WatchState): Promise<void> {
    const time = new Date().toISOString();
    await this.#print(this.#options.json ? JSON.stringify({ time, what: 'watch', state }) : watchLine(time, state));
  }

  async #show(happening: ToldHappening): Promise<void> {
    const naming = await this.#names.of(happening);
    await this.#print(this.#options.json ? jsonLine(happening, naming) : happeningLine(happening, naming));
    this.#names.noteShown(happening);
  }

  /** Who reads slowly slows this command down, and the daemon notices that. */
  async #print(text: string): Promise<void> {
    if (process.stdout.write(`${text}\n`)) return;
    await once(process.stdout, 'drain', { signal: this.#signal }).catch(() => undefined);
  }
}

function jsonLine(happening: ToldHappening, naming: Naming): string {
  const { endpointId, networkId } = idsOf(happening);
  const told = {
    ...happening,
    ...(endpointId !== undefined && { container: naming.known.containers.get(endpointId ?? '') ?? null }),
    ...(networkId !== undefined && { networkName: naming.nameOf(networkId ?? '') }),
  };
  return escapeControls(JSON.stringify(told));
}

function idsOf(happening: ToldHappening): { endpointId?: string | null; networkId?: string | null } {
  return 'networkId' in happening ? happening : {};
}

/** Docker's names, also of what has gone since. */
class Names {
  readonly #containers = new Map<string, string>();
  readonly #networks = new Map<string, string>();
  readonly #isWhole: boolean;
  #hasComplained = false;
  #silentUntilMs = Number.NEGATIVE_INFINITY;

  constructor(isWhole: boolean) {
    this.#isWhole = isWhole;
  }

  /** Why Docker cannot be asked goes to the standard error output, once. */
  async ask(): Promise<void> {
    if (performance.now() < this.#silentUntilMs) return;
    const inventory = await readInventory((sentence) => {
      this.#silentUntilMs = performance.now() + SILENT_MS;
      if (!this.#hasComplained) process.stderr.write(`tsmacvlan: ${escapeControls(sentence)}\n`);
      this.#hasComplained = true;
    });
    const { known } = namingOf(inventory, this.#isWhole);
    keepNames(this.#containers, known.containers, MOST_GONE);
    keepNames(this.#networks, known.networks, MOST_GONE);
  }

  /** Waits a moment for names that Docker is about to have. */
  async of(happening: ToldHappening): Promise<Naming> {
    const ageMs = Math.max(0, Date.now() - Date.parse(happening.time));
    const untilMs = performance.now() + NAME_MS - ageMs;
    while (this.#lacks(happening)) {
      const askedAtMs = performance.now();
      await this.ask();
      const nowMs = performance.now();
      if (nowMs < this.#silentUntilMs || nowMs >= untilMs || !this.#lacks(happening)) break;
      await sleep(Math.max(NAME_AGAIN_MS, 3 * (nowMs - askedAtMs)));
    }
    return new Naming({ networks: this.#networks, containers: this.#containers, stopped: new Map() }, this.#isWhole);
  }

  /** What has ended is not told of again. */
  noteShown(happening: ToldHappening): void {
    if (happening.what === 'endpoint' && happening.state === 'ended') this.#containers.delete(happening.endpointId);
    if (happening.what === 'network' && happening.state === 'removed') this.#networks.delete(happening.networkId);
  }

  /** Docker does not know any more what has ended. */
  #lacks(happening: ToldHappening): boolean {
    const isOver = 'state' in happening && ['ended', 'removed'].includes(happening.state);
    const { endpointId, networkId } = idsOf(happening);
    if (isOver) return false;
    return (
      (typeof endpointId === 'string' && !this.#containers.has(endpointId)) ||
      (typeof networkId === 'string' && !this.#networks.has(networkId))
    );
  }
}

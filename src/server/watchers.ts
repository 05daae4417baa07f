/**
 * Those who listen to what happens, each over an answer of HTTP that does not end: one JSON object a line. Each costs a bounded
 * amount of memory, also one that does not read: what is written to it waits in this process, and too much of that ends it.
 */
import type { ServerResponse } from 'node:http';
import * as errors from '../errors.ts';
import type { ConflictNews, Happenings, ToldHappening } from '../happenings.ts';

/** At once. Whoever watches is a person or a program for the whole host. */
const MOST_WATCHERS = 64;
/** That one of them may leave unread here, beside what the kernel holds for it (some 200 kB). */
const MOST_UNREAD_BYTES = 128 * 1024;
/** Lines of what lasts. */
const STANDING_AT_ONCE = 50;
/** Who does not even read his last line is left. */
const LAST_LINE_MS = 60_000;

interface WatchersParts {
  readonly happenings: Pick<Happenings, 'listen'>;
  /** What a new one is told first: what lasts at this moment. */
  readonly standing: () => Promise<readonly object[]>;
  readonly mostUnreadBytes?: number;
}

/** All who listen. */
export class Watchers {
  readonly #parts: WatchersParts;
  readonly #mostUnread: number;
  /** Also those whose last line is on its way. */
  readonly #open = new Set<ServerResponse>();
  readonly #listening = new Set<ServerResponse>();
  #stop: (() => void) | undefined;
  #dropped = 0;

  constructor(parts: WatchersParts) {
    this.#parts = parts;
    this.#mostUnread = parts.mostUnreadBytes ?? MOST_UNREAD_BYTES;
  }

  /** How many listen, and how many were too slow until now. */
  get counts(): { readonly listening: number; readonly dropped: number } {
    return { listening: this.#listening.size, dropped: this.#dropped };
  }

  /** The answer is this one's from now on. Throws WATCHERS_MANY. `head`: the first line. */
  add(response: ServerResponse, head: object): void {
    if (this.#open.size >= MOST_WATCHERS) throw errors.watchersMany(MOST_WATCHERS);
    this.#open.add(response);
    this.#listening.add(response);
    response.once('close', () => this.#forget(response));
    // What breaks is told by 'close'.
    response.on('error', () => undefined);
    response.write(lineOf(head));
    this.#stop ??= this.#parts.happenings.listen((happening) => this.#tell(happening));
    void this.#tellStanding(response).catch(() => undefined);
  }

  /** There may be more of it than may wait: as fast as it is read. */
  async #tellStanding(response: ServerResponse): Promise<void> {
    // What was told of meanwhile is newer: a conflict that has ended must not last again.
    const told = new Set<string>();
    const stop = this.#parts.happenings.listen((one) => one.what === 'conflict' && told.add(keyOf(one)));
    try {
      await this.#tellAll(response, await this.#parts.standing(), told);
    } finally {
      stop();
    }
  }

  async #tellAll(response: ServerResponse, standing: readonly object[], told: ReadonlySet<string>): Promise<void> {
    for (let at = 0; at < standing.length && this.#listening.has(response); at += STANDING_AT_ONCE) {
      const text = standing
        .slice(at, at + STANDING_AT_ONCE)
        .filter((one) => !told.has(keyOf(one)))
        .map(lineOf)
        .join('');
      if (response.write(text)) continue;
      const { promise, resolve } = Promise.withResolvers<void>();
      response.once('drain', resolve).once('close', resolve);
      await promise.finally(() => response.off('drain', resolve).off('close', resolve));
    }
  }

  /** Each gets a last line. */
  close(): void {
    for (const response of this.#listening) this.#end(response, { what: 'end', reason: 'stopped' });
  }

  #tell(happening: ToldHappening): void {
    const bytes = Buffer.from(lineOf(happening));
    for (const response of this.#listening) {
      if (response.writableLength + bytes.length <= this.#mostUnread) response.write(bytes);
      else {
        this.#dropped++;
        this.#end(response, { what: 'end', reason: 'slow' });
      }
    }
  }

  #end(response: ServerResponse, last: object): void {
    this.#listening.delete(response);
    this.#listenOn();
    response.end(lineOf(last));
    setTimeout(() => response.destroy(), LAST_LINE_MS).unref();
  }

  #forget(response: ServerResponse): void {
    this.#open.delete(response);
    this.#listening.delete(response);
    this.#listenOn();
  }

  #listenOn(): void {
    if (this.#listening.size > 0) return;
    this.#stop?.();
    this.#stop = undefined;
  }
}

/** What a conflict is the same by. */
function keyOf(one: object): string {
  const { kind, parent, address, macAddress } = one as Partial<ConflictNews>;
  return `${kind} ${parent} ${kind === 'mac' ? macAddress : address}`;
}

function lineOf(one: object): string {
  return `${JSON.stringify(one)}\n`;
}

/**
 * Leak collection: what nobody will ever take back is found and removed, at the start and from time to time. Each room
 * says what looks left over to it; here it is waited until readings some time apart agree, and only then acted on.
 *
 * Time is monotonic, so neither a clock that is set nor records from the future make a leak look old.
 */
import type { Leak, LeakSource } from './leak.ts';
import type { Log } from './log.ts';
import { Serial } from './serial.ts';

/** What became of a leak in the reading that found it. */
export interface FoundLeak extends Pick<Leak, 'kind' | 'name' | 'why'> {
  /** `collected` now; `certain`, but left alone, since this is a dry run or the daemon stops; `suspected`: readings go on. */
  readonly state: 'collected' | 'certain' | 'suspected';
}

interface Parts {
  /** In the order in which they are read: what one collects may be the next one's leak. */
  readonly sources: readonly LeakSource[];
  readonly log: Log;
  /** Between two readings that have to agree. */
  readonly agreeMs?: number;
  /** The time of `late`. */
  readonly patienceMs?: number;
  /** Between readings while nothing is suspected. */
  readonly periodMs?: number;
}

const AGREE_MS = 4000;
/**
 * An engine tries a call for 15 s, and five calls (76 s in all) when a container ends; CreateEndpoint is followed by Join
 * within seconds.
 */
const PATIENCE_MS = 120_000;
const PERIOD_MS = 300_000;
/** An engine that was killed starts its plugins first, and only then ends the containers it left behind. */
const EARLY_MS = 120_000;
const EARLY_PERIOD_MS = 20_000;

/** Reads all sources at the start and from time to time, and collects what two readings agree on. stop() ends it. */
export class Collector {
  readonly #parts: Required<Parts>;
  readonly #serial = new Serial();
  /** When each suspected leak was seen first without a break, by key. */
  readonly #since = new Map<string, number>();
  /** Only between two readings. */
  #timer: NodeJS.Timeout | undefined;
  #startedAtMs: number | null = null;
  #isStopped = false;

  constructor(parts: Parts) {
    this.#parts = { agreeMs: AGREE_MS, patienceMs: PATIENCE_MS, periodMs: PERIOD_MS, ...parts };
  }

  /** First reading at once, others as long as the process lives. Never throws. */
  start(): void {
    this.#startedAtMs = performance.now();
    void this.#round();
  }

  /** An engine takes up with the plugin, perhaps after it was killed: readings are as frequent again as after the start. */
  hurry(): void {
    if (this.#startedAtMs === null) return;
    this.#startedAtMs = performance.now();
    if (this.#timer === undefined || this.#isStopped) return;
    clearTimeout(this.#timer);
    void this.#round();
  }

  /** Resolves when a reading under way is done; it collects nothing more. */
  async stop(): Promise<void> {
    this.#isStopped = true;
    clearTimeout(this.#timer);
    await this.#serial.run('reading', async () => undefined);
  }

  /** Two readings now. A dry run removes nothing. */
  async collect({ isDryRun }: { isDryRun: boolean }): Promise<FoundLeak[]> {
    const first = await this.#read(isDryRun);
    if (first.every(({ state }) => state !== 'suspected')) return first;
    await new Promise((resolve) => setTimeout(resolve, this.#parts.agreeMs));
    const collected = first.filter(({ state }) => state === 'collected');
    return [...collected, ...(await this.#read(isDryRun))];
  }

  async #round(): Promise<void> {
    this.#timer = undefined;
    try {
      await this.#read(false);
    } catch (error) {
      this.#parts.log.warn('looking for leaks failed; it is tried again', { error: String(error) });
    }
    if (this.#isStopped) return;
    this.#timer = setTimeout(() => void this.#round(), this.#pauseMs()).unref();
  }

  #pauseMs(): number {
    const { agreeMs, periodMs } = this.#parts;
    if (this.#since.size > 0) return agreeMs;
    return performance.now() - (this.#startedAtMs ?? 0) < EARLY_MS ? Math.min(periodMs, EARLY_PERIOD_MS) : periodMs;
  }

  #read(isDryRun: boolean): Promise<FoundLeak[]> {
    return this.#serial.run('reading', async () => {
      const found: FoundLeak[] = [];
      const seen = new Set<string>();
      for (const source of this.#parts.sources) {
        for (const leak of await source.leaks()) {
          seen.add(leak.key);
          found.push({ kind: leak.kind, name: leak.name, why: leak.why, state: await this.#judge(leak, isDryRun) });
        }
      }
      for (const key of this.#since.keys()) if (!seen.has(key)) this.#since.delete(key);
      return found;
    });
  }

  async #judge(leak: Leak, isDryRun: boolean): Promise<FoundLeak['state']> {
    const since = this.#since.get(leak.key);
    if (since === undefined) this.#since.set(leak.key, performance.now());
    const { agreeMs, patienceMs } = this.#parts;
    const waitMs = leak.patience === 'soon' ? agreeMs : patienceMs;
    if (since === undefined || performance.now() - since < waitMs - TIMER_SLACK_MS) return 'suspected';
    if (isDryRun || this.#isStopped) return 'certain';
    return (await this.#collect(leak)) ? 'collected' : 'suspected';
  }

  async #collect(leak: Leak): Promise<boolean> {
    const { kind, name, why } = leak;
    try {
      if (!(await leak.collect())) return false;
      this.#since.delete(leak.key);
      this.#parts.log.warn(`collected a leak: ${kind} ${name}`, { why });
      return true;
    } catch (error) {
      this.#parts.log.error(`could not collect ${kind} ${name}; it is tried again`, { why, error: String(error) });
      return false;
    }
  }
}

/** Timers may fire a millisecond early. */
const TIMER_SLACK_MS = 2;

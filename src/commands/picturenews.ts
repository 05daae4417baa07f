/** When a picture may be another one: what the daemon tells as it happens, and with `--cluster` what changes in the shared store. */
import { setTimeout as sleep } from 'node:timers/promises';
import { followDaemon } from '../server/client.ts';
import { settingsHere } from './places.ts';
import { daemonToAsk } from './records.ts';

/** Before what broke off is followed again; after a refusal, as where very many watch, it is asked seldom. */
const AGAIN_MS = 1000;
const REFUSED_MS = 30_000;

/** Calls `began` once it hears what happens, and resolves or rejects when it does not any more. */
type Follow = (began: () => void, tell: () => void, signal: AbortSignal) => Promise<unknown>;

/** One such source. */
export class NewsSource {
  #isHeard = false;
  readonly #follow: Follow;

  constructor(follow: Follow) {
    this.#follow = follow;
  }

  /** Whether what happens is told, so that it need not be asked for. */
  get isHeard(): boolean {
    return this.#isHeard;
  }

  /** Listens until the signal, and begins again after whatever breaks. */
  async listen(tell: () => void, signal: AbortSignal): Promise<void> {
    while (!signal.aborted) {
      let restMs = AGAIN_MS;
      const began = () => {
        this.#isHeard = true;
        // What happened before was told to nobody.
        tell();
      };
      await this.#follow(began, tell, signal).catch(() => (restMs = REFUSED_MS));
      const wasHeard = this.#isHeard;
      this.#isHeard = false;
      if (wasHeard && !signal.aborted) tell();
      await sleep(restMs, undefined, { signal }).catch(() => undefined);
    }
  }
}

/** What the daemon tells every watcher. */
export function toldByDaemon(): NewsSource {
  return new NewsSource(async (began, tell, signal) => {
    const socket = await daemonToAsk();
    if (socket === null) return;
    await followDaemon(socket, ({ what }) => (what === 'watching' ? began() : tell()), signal);
  });
}

/** Each change of the shared store. */
export function toldByStore(): NewsSource {
  return new NewsSource(async (began, tell, signal) => {
    const { cluster } = settingsHere();
    if (cluster === null) return;
    const { followShared } = await import('../store/etcd/migrate.ts');
    await followShared(cluster, { began, tell }, signal);
  });
}

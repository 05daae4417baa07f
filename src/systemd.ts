/**
 * What systemd is told by a service that it started (sd_notify(3)): that it is up, that it is ending, and, as long as it is
 * alive, that it is. Nothing is told where NOTIFY_SOCKET is not set.
 */

/** A start that is refused is not tried again sooner: systemd 252 has no delay that grows. */
const REFUSED_MS = 3000;

/** The manager of this process, if it is systemd. */
export class Systemd {
  readonly #send: (text: string) => void;
  /** Null where systemd does not watch. */
  readonly #watchdogMs: number | null;
  readonly isThere: boolean;

  /** `send`: one datagram to the socket at a path; what fails is passed over, as systemd then finds out by itself. */
  constructor(environment: Readonly<Record<string, string | undefined>>, send: (path: string, text: string) => void) {
    const { NOTIFY_SOCKET: path, WATCHDOG_USEC: watchdog } = environment;
    this.isThere = path !== undefined && path !== '';
    this.#send = this.isThere ? (text) => send(path ?? '', text) : () => undefined;
    this.#watchdogMs = watchdog === undefined ? null : Number(watchdog) / 1000;
  }

  /** It is up. From now on it says all the time that it is alive, as long as its event loop turns. */
  ready(status: string): void {
    this.#send(`READY=1\nSTATUS=${status}`);
    if (this.#watchdogMs === null) return;
    setInterval(() => this.#send('WATCHDOG=1'), this.#watchdogMs / 3).unref();
  }

  /** It ends; how long that may take systemd knows. */
  stopping(): void {
    this.#send('STOPPING=1\nSTATUS=stopping');
  }

  /** It could not start: it ends a moment later, so that what starts it for ever does not take a core for it. SIGTERM ends it at once. */
  refused(reason: string): void {
    if (!this.isThere) return;
    this.#send(`STATUS=not started: ${reason.replaceAll('\n', ' ')}`);
    const wait = setTimeout(() => undefined, REFUSED_MS);
    process.once('SIGTERM', () => {
      clearTimeout(wait);
      process.exitCode = 0;
    });
  }
}

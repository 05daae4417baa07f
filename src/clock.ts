/** Time as the rooms see it, so that tests can run two daemons on one imagined LAN. */
export interface Clock {
  /** Monotonic. */
  nowMs(): number;
  /** Calls `run` once, not before `delayMs` have passed. Returns how to call it off. */
  after(delayMs: number, run: () => void): () => void;
}

/** The time of this machine's kernel. A process lives as long as a call is due. */
export const systemClock: Clock = {
  nowMs: () => performance.now(),
  after: (delayMs, run) => {
    const timer = setTimeout(run, delayMs);
    return () => clearTimeout(timer);
  },
};

/** The same time, for what nobody waits for: a call that is due does not keep the process alive. */
export const backgroundClock: Clock = {
  nowMs: () => performance.now(),
  after: (delayMs, run) => {
    const timer = setTimeout(run, delayMs).unref();
    return () => clearTimeout(timer);
  },
};

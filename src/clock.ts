/** Time as the rooms see it, so that tests can run two daemons on one imagined LAN. */
export interface Clock {
  /** Monotonic. */
  nowMs(): number;
  /** Calls `run` once, not before `delayMs` have passed. Returns how to call it off. */
  after(delayMs: number, run: () => void): () => void;
}

/** The time of this machine's kernel. */
export const systemClock: Clock = {
  nowMs: () => performance.now(),
  after: (delayMs, run) => {
    const timer = setTimeout(run, delayMs);
    return () => clearTimeout(timer);
  },
};

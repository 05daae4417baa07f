/**
 * What this host knows of one address that is its own or was: whether its own store and etcd say the same. leases.ts keeps a
 * state for each address and does what the state asks for; here is how one follows from another, and nothing else.
 *
 *                    gone, doubted                doubted
 *     agreed ─────────────────────────► doubted   contested ─────────► contested-doubted
 *        ▲                                 │ ▲          ▲                   │
 *        └────────── agreed, givenBack ────┘ └─ gone ───┴───── refused ─────┘
 *
 * An address given out without quorum is `unclaimed` until etcd agrees, refuses it, or the address is gone.
 */

/**
 * `agreed`: both say the same. `doubted`: they perhaps differ. `unclaimed`: given out without quorum, so they surely differ.
 * `contested`: this host has it and etcd says that another one does; `contested-doubted`: that may have changed.
 */
export type Phase = 'agreed' | 'doubted' | 'unclaimed' | 'contested' | 'contested-doubted';

/**
 * `grantedUnclaimed`: given out without quorum. `doubted`: a claim failed, of which perhaps only the answer was lost, or
 * something changed on either side. `gone` from this host's store. `givenBack` in etcd. `agreed`: looked at, and both say the
 * same. `refused`: another host has it in etcd.
 */
export type ClaimEvent = 'grantedUnclaimed' | 'doubted' | 'gone' | 'givenBack' | 'agreed' | 'refused';

/** Whether the two sides have to be brought in line. */
export function isDoubted(phase: Phase): boolean {
  return phase === 'doubted' || phase === 'unclaimed' || phase === 'contested-doubted';
}

/** Whether another host has it in etcd, as far as was known last. */
export function isContested(phase: Phase): boolean {
  return phase === 'contested' || phase === 'contested-doubted';
}

/** The phase after an event. */
export function transition(phase: Phase, event: ClaimEvent): Phase {
  switch (event) {
    case 'grantedUnclaimed':
      return 'unclaimed';
    case 'doubted':
      if (isDoubted(phase)) return phase;
      return isContested(phase) ? 'contested-doubted' : 'doubted';
    case 'gone':
      return 'doubted';
    case 'givenBack':
    case 'agreed':
      return 'agreed';
    case 'refused':
      return 'contested';
  }
}

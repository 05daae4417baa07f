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
import type { Claim } from './claims.ts';

/**
 * `agreed`: both say the same. `doubted`: they perhaps differ. `unclaimed`: given out without quorum, so they surely differ.
 * `contested`: this host has it and etcd says that another one does; `contested-doubted`: that may have changed.
 */
export type Phase = 'agreed' | 'doubted' | 'unclaimed' | 'contested' | 'contested-doubted';

/** The state of one address. */
export interface ClaimState {
  readonly phase: Phase;
  /** The lost host's claim that was taken over: it goes back to that host if the LAN says that its container is there. */
  readonly heir: Claim | undefined;
}

/**
 * `claimed` by this host in etcd, from the lost `heir` if there is one. `grantedUnclaimed`: given out without quorum. `doubted`:
 * a claim failed, of which perhaps only the answer was lost, or something changed on either side. `tied` to an endpoint, so the
 * LAN was asked. `gone` from this host's store. `givenBack` in etcd. `agreed`: looked at, and both say the same. `refused`:
 * another host has it in etcd.
 */
export type ClaimEvent =
  | { readonly type: 'claimed'; readonly heir: Claim | undefined }
  | { readonly type: 'grantedUnclaimed' | 'doubted' | 'tied' | 'gone' | 'givenBack' | 'agreed' | 'refused' };

/** The state of an address of which nothing is kept. */
export const AGREED: ClaimState = { phase: 'agreed', heir: undefined };

/** Whether the two sides have to be brought in line. */
export function isDoubted({ phase }: ClaimState): boolean {
  return phase === 'doubted' || phase === 'unclaimed' || phase === 'contested-doubted';
}

/** Whether another host has it in etcd, as far as was known last. */
export function isContested({ phase }: ClaimState): boolean {
  return phase === 'contested' || phase === 'contested-doubted';
}

/** The state after an event; the same object where nothing changes. */
export function transition(state: ClaimState, event: ClaimEvent): ClaimState {
  switch (event.type) {
    case 'claimed':
      return event.heir === undefined ? state : { ...state, heir: event.heir };
    case 'grantedUnclaimed':
      return { ...state, phase: 'unclaimed' };
    case 'doubted':
      return isDoubted(state) ? state : { ...state, phase: isContested(state) ? 'contested-doubted' : 'doubted' };
    case 'tied':
      return { ...state, heir: undefined };
    case 'gone':
      return { ...state, phase: 'doubted' };
    case 'givenBack':
      return AGREED;
    case 'agreed':
      return { ...state, phase: 'agreed' };
    case 'refused':
      return { ...state, phase: 'contested' };
  }
}

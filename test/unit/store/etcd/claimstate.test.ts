/** Every event in every state of an address that hosts share. */
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import type { Claim } from '../../../../src/store/etcd/claims.ts';
import {
  AGREED,
  type ClaimEvent,
  isContested,
  isDoubted,
  type Phase,
  transition,
} from '../../../../src/store/etcd/claimstate.ts';

const LOST: Claim = { kind: 'container', nodes: ['lost'] };
const OTHER: Claim = { kind: 'container', nodes: ['lost too'] };
const PHASES: readonly Phase[] = ['agreed', 'doubted', 'unclaimed', 'contested', 'contested-doubted'];

/** The phase after each event, in the order of PHASES. */
const TABLE: Readonly<Record<ClaimEvent['type'], readonly Phase[]>> = {
  claimed: PHASES,
  grantedUnclaimed: ['unclaimed', 'unclaimed', 'unclaimed', 'unclaimed', 'unclaimed'],
  doubted: ['doubted', 'doubted', 'unclaimed', 'contested-doubted', 'contested-doubted'],
  tied: PHASES,
  gone: ['doubted', 'doubted', 'doubted', 'doubted', 'doubted'],
  givenBack: ['agreed', 'agreed', 'agreed', 'agreed', 'agreed'],
  agreed: ['agreed', 'agreed', 'agreed', 'agreed', 'agreed'],
  refused: ['contested', 'contested', 'contested', 'contested', 'contested'],
};
/** After these nobody is left to whom the address would go back. */
const WITHOUT_HEIR: readonly ClaimEvent['type'][] = ['tied', 'givenBack'];

function eventOf(type: ClaimEvent['type'], heir?: Claim): ClaimEvent {
  return type === 'claimed' ? { type, heir } : { type };
}

describe('the state of a claim', () => {
  for (const [type, after] of Object.entries(TABLE) as [ClaimEvent['type'], readonly Phase[]][])
    test(`${type}: in every state`, () => {
      const phases = PHASES.map((phase) => transition({ phase, heir: undefined }, eventOf(type)));
      assert.deepEqual(
        phases,
        after.map((phase) => ({ phase, heir: undefined })),
      );
    });

  test('to whom an address goes back is kept until the LAN was asked or it went back', () => {
    for (const type of Object.keys(TABLE) as ClaimEvent['type'][])
      for (const phase of PHASES) {
        const { heir } = transition({ phase, heir: LOST }, eventOf(type));
        assert.equal(heir, WITHOUT_HEIR.includes(type) ? undefined : LOST, `${type} when ${phase}`);
      }
  });

  test('a claim that was taken over names its heir, and one that was not leaves the heir of before', () => {
    assert.deepEqual(transition(AGREED, { type: 'claimed', heir: LOST }), { phase: 'agreed', heir: LOST });
    const inherited = { phase: 'doubted', heir: LOST } as const;
    assert.equal(transition(inherited, { type: 'claimed', heir: OTHER }).heir, OTHER);
    assert.equal(transition(inherited, { type: 'claimed', heir: undefined }), inherited);
  });

  test('what has to be brought in line, and what is known to be contested', () => {
    assert.deepEqual(
      PHASES.map((phase) => [isDoubted({ phase, heir: undefined }), isContested({ phase, heir: undefined })]),
      [
        [false, false],
        [true, false],
        [true, false],
        [false, true],
        [true, true],
      ],
    );
  });
});

/** Every event in every state of an address that hosts share. */
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import {
  type ClaimEvent,
  isContested,
  isDoubted,
  type Phase,
  transition,
} from '../../../../src/store/etcd/claimstate.ts';

const PHASES: readonly Phase[] = ['agreed', 'doubted', 'unclaimed', 'contested', 'contested-doubted'];

/** The phase after each event, in the order of PHASES. */
const TABLE: Readonly<Record<ClaimEvent, readonly Phase[]>> = {
  grantedUnclaimed: ['unclaimed', 'unclaimed', 'unclaimed', 'unclaimed', 'unclaimed'],
  doubted: ['doubted', 'doubted', 'unclaimed', 'contested-doubted', 'contested-doubted'],
  gone: ['doubted', 'doubted', 'doubted', 'doubted', 'doubted'],
  givenBack: ['agreed', 'agreed', 'agreed', 'agreed', 'agreed'],
  agreed: ['agreed', 'agreed', 'agreed', 'agreed', 'agreed'],
  refused: ['contested', 'contested', 'contested', 'contested', 'contested'],
};

describe('the state of a claim', () => {
  for (const [event, after] of Object.entries(TABLE) as [ClaimEvent, readonly Phase[]][])
    test(`${event}: in every state`, () => {
      assert.deepEqual(
        PHASES.map((phase) => transition(phase, event)),
        after,
      );
    });

  test('what has to be brought in line, and what is known to be contested', () => {
    assert.deepEqual(
      PHASES.map((phase) => [isDoubted(phase), isContested(phase)]),
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

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Sightings } from '../../../../src/store/etcd/membership.ts';

/** Seen every second from `fromMs` on, for so long, in a term of etcd; the last answer. */
function seen(sightings: Sightings, term: bigint, fromMs: number, forMs: number): boolean {
  let isKept = false;
  for (let atMs = fromMs; atMs <= fromMs + forMs; atMs += 1000) isKept = sightings.note(term, atMs);
  return isKept;
}

test('a record that another process keeps alive for a minute is that of another machine', () => {
  const sightings = new Sightings();
  assert.equal(seen(sightings, 2n, 5000, 60_000), false);
  assert.equal(sightings.note(2n, 66_000), true);
});

test('a record that stands longer since etcd was silent or held elections is no sign of another machine', () => {
  const sightings = new Sightings();
  assert.equal(seen(sightings, 2n, 0, 14_000), false);
  // No quorum meanwhile; whoever leads gives the record its whole time again.
  assert.equal(seen(sightings, 3n, 100_000, 15_000), false);
  for (let term = 4n; term < 12n; term++)
    assert.equal(seen(sightings, term, 116_000 + Number(term) * 14_000, 13_000), false);
  // A member alone that stood still.
  const alone = new Sightings();
  assert.equal(seen(alone, 2n, 0, 14_000), false);
  assert.equal(seen(alone, 2n, 90_000, 15_000), false);
});

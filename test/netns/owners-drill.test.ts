/** Four daemons, three members, and whatever may befall them: no address has two owners. */
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { outsideLab } from '../lab/enclosure.ts';
import { OwnersDrill } from '../lab/ownersdrill.ts';

/** `make owners MINUTES=30` */
const MINUTES = Number(process.env.MINUTES ?? 1.5);
/** `make owners` draws one. This one strikes in every way within the usual run. */
const SEED = Number(process.env.SEED ?? 16_355);

describe('owners', { skip: outsideLab(), timeout: 7_200_000 }, () => {
  test(`${MINUTES} minutes of freezes, kills, cuts, restores and rotations, seed ${SEED}`, async () => {
    const score = await new OwnersDrill({ minutes: MINUTES, seed: SEED }).run();
    console.log(JSON.stringify({ seed: SEED, ...score }, null, 2));
    assert.deepEqual(score.doubled, []);
    assert.deepEqual(score.unexplained, []);
    assert.ok(score.claims > MINUTES * 10, `${score.claims} claims only`);
  });
});

/** The daemon is killed at random moments under load: nothing doubled, nothing lost, nothing left that is not known. */
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { describe, test } from 'node:test';
import { Drill } from '../lab/drill.ts';
import { outsideLab } from '../lab/enclosure.ts';
import { temporaryDirectory } from '../unit/temporary.ts';

const ip = (words: string) => execFileSync('ip', words.split(' '));

/** `make kills KILLS=500`; in the usual run a few, and without the two minutes that the collector waits. */
const KILLS = Number(process.env.KILLS ?? 8);
const SEED = Number(process.env.SEED ?? Date.now() % 1_000_000);

describe('kill -9', { skip: outsideLab(), timeout: 3_600_000 }, () => {
  test(`${KILLS} kills of the daemon under load, seed ${SEED}`, async (t) => {
    ip('link add lan0 type veth peer name lan1');
    for (const name of ['lan0', 'lan1']) ip(`link set ${name} up`);
    const directory = temporaryDirectory(t);
    const isLong = process.env.KILLS !== undefined;
    const plan = { directory, kills: KILLS, workers: 6, seed: SEED, untilClean: isLong };
    const score = await new Drill(plan).run();
    console.log(JSON.stringify({ seed: SEED, ...score }, null, 2));
    assert.deepEqual(score.faults, []);
    assert.ok(score.containers > 0 && score.broken > 0, JSON.stringify(score));
  });
});

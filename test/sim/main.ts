/**
 * `node test/sim/main.ts`: MINUTES=1 SEED=1 for many seeds from that one on (LAST=40: up to that one), KIND=life|etcd|'etcd life' for those of one kind;
 * MINUTES are those of one core; UNTIL=double ends with the first seed that breaks that rule. STORY=7 for one seed or 'STORY=7,etcd 7' for some, LOG=yes with
 * all that they log; SEEDS='kill 18 1500,etcd 12' for these alone; WHOLE='day 5' for one seed that has to end with the same records when nothing is cut out of it.
 */
import './install.ts';

const { MINUTES = '1', SEED = '1', LAST = 'Infinity', STRIDE = '1', KIND = '', UNTIL = '' } = process.env;
const { JSON: asJson, STORY, LOG, SEEDS, WHOLE } = process.env;
const { runSeeds, runStory, runThese, runWhole } = await import('./run.ts');
const numbers = { first: Number(SEED), last: Number(LAST), stride: Number(STRIDE), minutes: Number(MINUTES) };
const selection = { ...numbers, kind: KIND, until: UNTIL };
if (WHOLE) process.exitCode = await runWhole(WHOLE);
else if (SEEDS) process.exitCode = await runThese(SEEDS.split(','));
else if (STORY) for (const seed of STORY.split(',')) process.exitCode ||= await runStory(seed, LOG !== undefined);
else process.exitCode = await runSeeds({ ...selection, asJson: asJson === 'yes' });

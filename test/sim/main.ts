/** `node test/sim/main.ts`: MINUTES=1 SEED=1 for many seeds from that one on, ETCD=yes for those of hosts that share one; STORY=7 for one seed, LOG=yes with all that it logs. */
import './install.ts';

const { MINUTES = '1', SEED = '1', ETCD, STORY, LOG } = process.env;
const { runSeeds, runStory } = await import('./run.ts');
process.exitCode = STORY
  ? await runStory(STORY, LOG !== undefined)
  : await runSeeds(Number(SEED), Number(MINUTES), Boolean(ETCD));

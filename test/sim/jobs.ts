/** `node test/sim/jobs.ts`: as main.ts, with JOBS=2 processes that share the seeds between them. */
import { spawn } from 'node:child_process';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { type Sum, addSum, describeSum, newSum } from './sum.ts';

const MAIN = join(import.meta.dirname, 'main.ts');
const { JOBS = '2', SEED = '1' } = process.env;

/** What one process came to; its other lines are passed on. */
async function runJob(position: number): Promise<Sum> {
  const env = { ...process.env, SEED: String(Number(SEED) + position), STRIDE: JOBS, JSON: 'yes' };
  const child = spawn(process.execPath, [MAIN], { env, stdio: ['ignore', 'pipe', 'inherit'] });
  let sum: Sum | undefined;
  for await (const line of createInterface({ input: child.stdout })) {
    if (line.startsWith('{')) sum = JSON.parse(line) as Sum;
    else console.log(line);
  }
  if (sum === undefined) throw new Error(`the process with the seeds from ${env.SEED} on ended without a sum`);
  return sum;
}

const beganMs = performance.now();
const sum = newSum();
for (const one of await Promise.all(Array.from({ length: Number(JOBS) }, (_, position) => runJob(position))))
  addSum(sum, one);
console.log(describeSum(sum, performance.now() - beganMs).join('\n'));
process.exitCode = sum.failed.length === 0 ? 0 : 1;

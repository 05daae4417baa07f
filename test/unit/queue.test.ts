/** The order in which the runner takes test files, and how many at once. */
import assert from 'node:assert/strict';
import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, test } from 'node:test';
import { type Job, Queue } from '../queue.ts';

const TESTS = join(import.meta.dirname, '..');
const TWO_CORES = { cores: 2, memoryMb: 8000 };

function job(file: string, seconds: number, cores = 1, memoryMb = 100): Job {
  return { file, seconds, cores, memoryMb, needsCalm: false };
}

/** All that may begin now. */
function begin(queue: Queue<Job>, isReady?: (job: Job) => boolean): Job[] {
  const begun = [];
  for (let next = queue.next(isReady); next; next = queue.next(isReady)) begun.push(next);
  return begun;
}

const names = (jobs: readonly Job[]) => jobs.map(({ file }) => file).join();

describe('the queue of test files', () => {
  test('takes the longest first, as many as there are cores', () => {
    const queue = new Queue([job('short', 1), job('long', 9), job('middle', 5)], TWO_CORES);
    const [long, middle] = begin(queue);
    assert.equal(names([long as Job, middle as Job]), 'long,middle');
    assert.equal(queue.next(), undefined);
    queue.ended(middle as Job);
    assert.equal(names(begin(queue)), 'short');
  });

  test('takes one that keeps a core busy before a somewhat longer one that waits, and a long one that waits before both', () => {
    const jobs = [job('waits', 10, 0.1), job('busy', 8, 1), job('waits long', 30, 0.1)];
    assert.equal(names(begin(new Queue(jobs, TWO_CORES))), 'waits long,busy,waits');
  });

  test('fills what a big one leaves with files that mostly wait', () => {
    const jobs = [
      job('swarm', 90, 1.5),
      job('other swarm', 80, 1.5),
      job('waits', 40, 0.25),
      job('waits too', 30, 0.25),
    ];
    assert.equal(names(begin(new Queue(jobs, TWO_CORES))), 'swarm,waits,waits too');
  });

  test('fractions of cores that make whole ones fit', () => {
    const jobs = Array.from({ length: 21 }, (_, at) => job(`${at}`, 1, 0.1));
    assert.equal(begin(new Queue(jobs, TWO_CORES)).length, 20);
  });

  test('does not take more memory than there is', () => {
    const jobs = [job('guest', 9, 0.1, 5000), job('other guest', 8, 0.1, 5000), job('small', 1, 0.1)];
    assert.equal(names(begin(new Queue(jobs, TWO_CORES))), 'guest,small');
  });

  test('what is too big for the machine runs alone', () => {
    const queue = new Queue([job('giant', 9, 4, 64_000), job('small', 30)], TWO_CORES);
    const [small] = begin(queue) as [Job];
    assert.equal(small.file, 'small');
    queue.ended(small);
    assert.equal(names(begin(queue)), 'giant');
  });

  test('what needs calm comes first, and the machine is not filled before it is over', () => {
    const calm = { ...job('calm', 1, 0.3), needsCalm: true };
    const queue = new Queue([job('busy', 90), job('waits', 80, 0.3), calm], TWO_CORES);
    assert.equal(names(begin(queue)), 'calm,waits');
    queue.ended(calm);
    assert.equal(names(begin(queue)), 'busy');
  });

  test('what needs calm and is not ready holds nothing up; once it is ready nothing big begins before it', () => {
    const calm = { ...job('calm', 1, 0.3), needsCalm: true };
    const queue = new Queue([job('busy', 90, 1.5), job('next', 80, 1.5), calm], TWO_CORES);
    const [busy] = begin(queue, ({ needsCalm }) => !needsCalm) as [Job];
    assert.equal(busy.file, 'busy');
    assert.equal(names(begin(queue)), '');
    queue.ended(busy);
    assert.equal(names(begin(queue)), 'calm');
  });

  test('what waits for its downloads lets others go first', () => {
    const queue = new Queue([job('docker', 9), job('unit', 1)], TWO_CORES);
    assert.equal(names(begin(queue, ({ file }) => file === 'unit')), 'unit');
    assert.equal(names(begin(queue)), 'docker');
  });

  test('the table of durations names no file that is gone', () => {
    const table = JSON.parse(readFileSync(join(TESTS, 'durations.json'), 'utf8')) as Record<string, unknown>;
    assert.deepEqual(
      Object.keys(table).filter((file) => !existsSync(join(TESTS, file))),
      [],
    );
  });
});

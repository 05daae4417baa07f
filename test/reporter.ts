/**
 * A node:test reporter that writes one JSON line per test to file descriptor 3: what `run.ts` reads from every test file,
 * apart from what the tests themselves print.
 */
import { writeSync } from 'node:fs';
import { inspect } from 'node:util';

/** What became of one test. A test that has subtests, and a suite, speak through them. */
export interface Outcome {
  /** Names of the suites around the test, then its own: `['engine 28.5.2', 'pings across hosts']`. */
  name: string[];
  result: 'passed' | 'failed' | 'skipped';
  durationMs: number;
  /** Why it was skipped, or the failure in full. */
  detail?: string;
}

interface Report {
  type: string;
  data: {
    name: string;
    testId: number;
    parentId: number;
    skip?: string | boolean;
    todo?: string | boolean;
    details: { type: string; duration_ms: number; error?: Failure };
  };
}

interface Failure {
  failureType: string;
  message: string;
  cause?: unknown;
}

const RUNNER = 3;

// A reporter is a generator; this one has nothing for the standard output.
export default async function* reporter(source: AsyncIterable<Report>): AsyncGenerator<string> {
  const tests = new Map<number, { name: string; parentId: number }>();
  const parents = new Set<number>();
  const path = (id: number): string[] => {
    const test = tests.get(id);
    return test ? [...path(test.parentId), test.name] : [];
  };
  for await (const { type, data } of source) {
    if (type === 'test:enqueue') {
      tests.set(data.testId, data);
      parents.add(data.parentId);
    }
    if (type !== 'test:pass' && type !== 'test:fail') continue;
    const outcome = judge(data, parents.has(data.testId));
    if (outcome) writeSync(RUNNER, `${JSON.stringify({ name: [...path(data.parentId), data.name], ...outcome })}\n`);
  }
}

function judge(data: Report['data'], isParent: boolean): Omit<Outcome, 'name'> | undefined {
  const { type, duration_ms: durationMs, error } = data.details;
  const excuse = data.skip ?? data.todo;
  if (excuse !== undefined && excuse !== false) {
    return { result: 'skipped', durationMs, detail: excuse === true ? 'no reason given' : String(excuse) };
  }
  if (error) {
    if (error.failureType === 'subtestsFailed') return undefined;
    return { result: 'failed', durationMs, detail: describe(error) };
  }
  return type === 'suite' || isParent ? undefined : { result: 'passed', durationMs };
}

function describe(error: Failure): string {
  return error.cause instanceof Error ? inspect(error.cause, { depth: 8 }) : `${error.message}`;
}

/** Shows the tests that run inside a guest (test/lab/uml-reporter.ts) as subtests of a test outside, while they run. */
import { createInterface } from 'node:readline';
import type { Readable } from 'node:stream';
import type { TestContext } from 'node:test';
import type { GuestEvent } from './uml-reporter.ts';

type Start = Pick<Extract<GuestEvent, { type: 'start' }>, 'id' | 'parentId' | 'name'>;
type End = Extract<GuestEvent, { type: 'end' }>;

interface Subtest {
  readonly context: TestContext;
  /** Ends the subtest: well, or with the error given. */
  finish(error?: Error): Promise<void>;
}

/** Answers the exit status of the test process inside; undefined when the guest ended without telling it. */
export async function mirror(root: TestContext, stream: Readable): Promise<number | undefined> {
  const subtests = new Map<number, Subtest>();
  const parentOf = ({ parentId }: Start) => subtests.get(parentId ?? 0)?.context ?? root;
  for await (const line of createInterface({ input: stream, crlfDelay: Number.POSITIVE_INFINITY })) {
    const event = JSON.parse(line) as GuestEvent;
    if (event.type === 'exit' && event.status === 0 && subtests.size === 0) throw new Error('the guest held no test');
    if (event.type === 'exit') return event.status;
    if (event.type === 'start') subtests.set(event.id, await startSubtest(parentOf(event), event.name));
    if (event.type === 'diagnostic') root.diagnostic(event.message);
    if (event.type === 'end') {
      // A test that is cancelled before its turn ends without having started.
      await endSubtest(subtests.get(event.id) ?? (await startSubtest(parentOf(event), event.name)), event);
    }
  }
  return undefined;
}

/** Starts a subtest that runs until it is told how the test inside ended. */
async function startSubtest(parent: TestContext, name: string): Promise<Subtest> {
  const outcome = Promise.withResolvers<void>();
  const started = Promise.withResolvers<TestContext>();
  const ended = parent.test(name, (context) => {
    started.resolve(context);
    return outcome.promise;
  });
  return {
    context: await started.promise,
    finish: (error) => {
      if (error === undefined) outcome.resolve();
      else outcome.reject(error);
      return ended;
    },
  };
}

async function endSubtest(subtest: Subtest, { skip, error }: End): Promise<void> {
  if (skip !== undefined) subtest.context.skip(skip);
  await subtest.finish(error === undefined ? undefined : asError(error));
}

/** The failure as it was printed inside; its stack is the one of the guest. */
function asError(text: string): Error {
  const error = new Error(text.split('\n', 1)[0]);
  error.stack = text;
  return error;
}

/**
 * A reporter for the tests inside a guest: one JSON line per event that test/lab/uml-mirror.ts shows outside. It writes
 * to the serial line itself, because Node wants to fsync a reporter's destination and a terminal cannot.
 */
import { openSync, writeFileSync } from 'node:fs';
import type { TestEvent } from 'node:test/reporters';
import { inspect } from 'node:util';

/** `id` and `parentId` tell the tests of one file apart; no parent is above the outermost. */
export type GuestEvent =
  | { type: 'start'; id: number; parentId: number | undefined; name: string }
  | {
      type: 'end';
      id: number;
      parentId: number | undefined;
      name: string;
      skip?: string | undefined;
      error?: string | undefined;
    }
  /** Figures a test tells about itself, following its end. */
  | { type: 'diagnostic'; message: string }
  /** Written by uml-init.sh when the test process has ended. */
  | { type: 'exit'; status: number };

export default async function* report(source: AsyncIterable<TestEvent>): AsyncGenerator<string> {
  const serialLine = openSync('/dev/ttyS0', 'w');
  for await (const event of source) {
    const line = toGuestEvent(event);
    if (line !== undefined) writeFileSync(serialLine, `${JSON.stringify(line)}\n`);
  }
}

function toGuestEvent({ type, data }: TestEvent): GuestEvent | undefined {
  switch (type) {
    case 'test:dequeue':
      return { type: 'start', id: data.testId, parentId: data.parentId, name: data.name };
    case 'test:pass':
      return { type: 'end', id: data.testId, parentId: data.parentId, name: data.name, skip: excuse(data) };
    case 'test:fail':
      return {
        type: 'end',
        id: data.testId,
        parentId: data.parentId,
        name: data.name,
        skip: excuse(data),
        error: failure(data),
      };
    case 'test:diagnostic':
      return { type: 'diagnostic', message: data.message };
    default:
      return undefined;
  }
}

function excuse({ skip, todo }: { skip?: string | boolean; todo?: string | boolean }): string | undefined {
  const reason = skip ?? todo;
  return reason === undefined || reason === false ? undefined : String(reason);
}

/** A parent fails with its subtests outside as it did inside, so it needs no error of its own. */
function failure({ details: { error } }: Extract<TestEvent, { type: 'test:fail' }>['data']): string | undefined {
  const { failureType } = error as Error & { failureType?: string };
  return failureType === 'subtestsFailed' ? undefined : inspect(error.cause ?? error);
}

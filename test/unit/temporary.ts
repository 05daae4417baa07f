import { existsSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { TestContext } from 'node:test';

/** In memory where possible: kill -9 spares what a disk has not written yet either, and no fsync has to be waited for. */
const PLACE = existsSync('/dev/shm') ? '/dev/shm' : tmpdir();

/** A directory that goes with the test. Short, so that a socket's path fits into sockaddr_un. */
export function temporaryDirectory(t: TestContext): string {
  const directory = mkdtempSync(join(PLACE, 'tsm-'));
  t.after(() => rmSync(directory, { recursive: true, force: true }));
  return directory;
}

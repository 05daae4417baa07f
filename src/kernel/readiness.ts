/**
 * Waits in the kernel until a socket can be read, where a timer would look into it two hundred times a second and mostly find nothing:
 * Node has no words for that with sockets that it did not make. One thread of the pool waits for all of them, and another descriptor
 * (eventfd(2)) ends its wait when there is one more.
 */
import { readSync, writeSync } from 'node:fs';
import * as libc from './libc.ts';

/** A process that ends waits for its threads. */
const MOST_MS = 500;
/** What is added to the eventfd's number. */
const ONE = Buffer.from([1, 0, 0, 0, 0, 0, 0, 0]);

const waiting = new Map<number, () => void>();
/** Null before the first wait. */
let alarmFd: number | null = null;
let state: 'idle' | 'waiting' | 'telling' = 'idle';

/**
 * Calls `run` once, when the descriptor can be read, or its next reading tells an error; at once where the kernel cannot wait.
 * Answers how to call it off, which has to be done before it is closed; null where nothing can be waited for.
 */
export function whenReadable(fd: number, run: () => void): (() => void) | null {
  alarmFd ??= newAlarm();
  if (alarmFd === null) return null;
  waiting.set(fd, run);
  if (state === 'waiting') endWait(alarmFd);
  else if (state === 'idle') void waitForAll(alarmFd);
  return () => {
    if (waiting.get(fd) !== run) return;
    waiting.delete(fd);
    if (alarmFd !== null && state === 'waiting') endWait(alarmFd);
  };
}

function newAlarm(): number | null {
  const fd = libc.eventfd();
  return fd < 0 ? null : fd;
}

function endWait(alarm: number): void {
  writeSync(alarm, ONE);
}

/** Never rejects. */
async function waitForAll(alarm: number): Promise<void> {
  while (waiting.size > 0) {
    state = 'waiting';
    const asked = [...waiting];
    const readable = await libc.pollAsync([alarm, ...asked.map(([fd]) => fd)], MOST_MS).catch(() => null);
    state = 'telling';
    if (readable?.[0] === true) readSync(alarm, Buffer.alloc(ONE.length));
    for (const [position, [fd, run]] of asked.entries()) {
      if (readable?.[position + 1] === false || waiting.get(fd) !== run) continue;
      waiting.delete(fd);
      run();
    }
  }
  state = 'idle';
}

/**
 * Tells when a socket can be read, where a timer would look into it two hundred times a second and mostly find nothing. Node has no
 * words for that with sockets that it did not make, but its event loop has: one epoll instance of ours (epoll(7)) has all that are
 * waited for, and libuv watches it with Node's own (uv_poll_t). No thread is needed, and who is told is told in the event loop's next turn.
 */
import * as libc from './libc.ts';

const waiting = new Map<number, () => void>();
/** Undefined before the first wait; null where nothing can be waited for. */
let epoll: number | null | undefined;

/**
 * Calls `run` once, when the descriptor can be read or its next reading tells an error. Answers how to call it off, which has to be
 * done before it is closed; null where that cannot be waited for.
 */
export function whenReadable(fd: number, run: () => void): (() => void) | null {
  epoll ??= open();
  if (epoll === null || (!waiting.has(fd) && libc.epollAdd(epoll, fd) < 0)) return null;
  waiting.set(fd, run);
  return () => {
    if (waiting.get(fd) === run) forget(fd);
  };
}

function open(): number | null {
  const fd = libc.epollCreate();
  if (fd < 0) return null;
  if (libc.onReadable(fd, tell)) return fd;
  libc.close(fd);
  return null;
}

function forget(fd: number): void {
  waiting.delete(fd);
  if (typeof epoll === 'number') libc.epollRemove(epoll, fd);
}

function tell(): void {
  for (const fd of libc.readable([...waiting.keys()])) {
    const run = waiting.get(fd);
    // One that was told before may have called this one off.
    if (run === undefined) continue;
    forget(fd);
    run();
  }
}

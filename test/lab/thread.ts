/** This thread in another network namespace for a moment. */
import { closeSync, openSync } from 'node:fs';
import koffi from 'koffi';

const CLONE_NEWNET = 0x40000000;
const setns = koffi.load(null).func('int setns(int fd, int type)') as (fd: number, type: number) => number;

/** Calls `open` in the namespace: the sockets that it opens stay there. */
export function inNamespace<T>(name: string, open: () => T): T {
  const here = openSync('/proc/thread-self/ns/net', 'r');
  const there = openSync(`/run/netns/${name}`, 'r');
  try {
    enter(there, `namespace ${name}`);
    return open();
  } finally {
    enter(here, 'the namespace of the test');
    for (const fd of [here, there]) closeSync(fd);
  }
}

function enter(fd: number, what: string): void {
  if (setns(fd, CLONE_NEWNET) < 0) throw new Error(`cannot enter ${what}: errno ${koffi.errno()}`);
}

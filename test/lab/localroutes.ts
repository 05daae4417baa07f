/**
 * The IPv4 addresses of a namespace as its kernel has them in its table of local routes: a file, read without a program, for those who
 * look all the time. An address is there from the moment it is set, also on a link that is down (net/ipv4/fib_frontend.c, fib_add_ifaddr).
 */
import { readFileSync } from 'node:fs';
import { inNamespace } from './thread.ts';

/** `|-- 192.0.2.7` and below it `/32 host LOCAL`. */
const LOCAL_ADDRESS = /\|-- (\S+)\n\s+\/32 host LOCAL/g;

/** Those in /proc/PID/net/fib_trie but the loopback's; undefined when the process has ended. */
export function localAddressesIn(fibTrie: string): string[] | undefined {
  try {
    const found = Array.from(readFileSync(fibTrie, 'utf8').matchAll(LOCAL_ADDRESS), ([, address = '']) => address);
    return [...new Set(found)].filter((address) => !address.startsWith('127.'));
  } catch {
    return undefined;
  }
}

/** Those of the namespace with this name; none when it is gone. */
export function localAddressesOf(namespace: string): string[] {
  try {
    return inNamespace(namespace, () => localAddressesIn('/proc/thread-self/net/fib_trie')) ?? [];
  } catch {
    return [];
  }
}

/**
 * What has to be there before the first file of the product is loaded: virtual time, and in place of the product's doors to the
 * machine those of the simulation. A door is a file that the product has for that purpose alone; everything else is the product's.
 */
import { registerHooks } from 'node:module';
import { DatabaseSync } from 'node:sqlite';
import { replaceGlobals } from './globals.ts';
import { currentProcess } from './time.ts';
import type { Host } from './host.ts';

const DOORS: readonly (readonly [string, string])[] = [
  ['/src/kernel/libc.ts', './kernel/libc.ts'],
  ['/src/kernel/sysfs.ts', './kernel/sysfs.ts'],
  ['/src/server/socket.ts', './door.ts'],
  ['/src/store/etcd/connection.ts', './etcd/connection.ts'],
];

registerHooks({
  resolve(specifier, context, nextResolve) {
    const resolved = nextResolve(specifier, context);
    const door = DOORS.find(([place]) => resolved.url.endsWith(place));
    if (door === undefined) return resolved;
    return { ...resolved, url: new URL(door[1], import.meta.url).href };
  },
});

/**
 * A database of a process that is killed is closed, and with it its lock given up. It is known from its first statement on. SQLite
 * syncs nothing to the disk of the machine that simulates: what a simulated one has after a power cut is disk.ts's to say.
 */
const exec: unknown = Reflect.get(DatabaseSync.prototype, 'exec');
DatabaseSync.prototype.exec = function (this: DatabaseSync, sql: string): void {
  currentProcess()?.databases.add(this);
  Reflect.apply(exec as () => void, this, [sql.replaceAll(/synchronous = (?:FULL|NORMAL)/g, 'synchronous = OFF')]);
};

replaceGlobals(() => (currentProcess()?.machine as Host | undefined)?.disk);

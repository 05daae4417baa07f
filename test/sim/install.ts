/**
 * What has to be there before the first file of the product is loaded: virtual time, and in place of the product's doors to the
 * machine those of the simulation. A door is a file that the product has for that purpose alone; everything else is the product's.
 */
import { registerHooks } from 'node:module';
import { DatabaseSync, StatementSync } from 'node:sqlite';
import { type HostDisk, within } from './disk.ts';
import { replaceGlobals } from './globals.ts';
import { currentProcess } from './time.ts';
import type { Host } from './host.ts';

const DOORS: readonly (readonly [string, string])[] = [
  ['/src/kernel/libc.ts', './kernel/libc.ts'],
  ['/src/kernel/readiness.ts', './kernel/readiness.ts'],
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
 * syncs nothing to the disk of the machine that simulates, and what it writes may fail: both are disk.ts's to say. Its log is brought
 * over into the database a hundred times as often as usual, so that this happens in short stories too.
 */
const { exec, close } = methodsOf(DatabaseSync.prototype, 'exec', 'close');
const { run } = methodsOf(StatementSync.prototype, 'run');
DatabaseSync.prototype.exec = function (this: DatabaseSync, sql: string): void {
  currentProcess()?.databases.add(this);
  const quick = sql
    .replaceAll(/synchronous = (?:FULL|NORMAL)/g, 'synchronous = OFF')
    .replace('PRAGMA journal_mode = WAL;', '$& PRAGMA wal_autocheckpoint = 10;');
  written((): unknown => Reflect.apply(exec, this, [quick]), false);
};
// The world closes those of a process that was killed, which writes no more.
DatabaseSync.prototype.close = function (this: DatabaseSync): void {
  if (currentProcess() === undefined) within(0, (): unknown => Reflect.apply(close, this, []));
  else written((): unknown => Reflect.apply(close, this, []), false);
};
StatementSync.prototype.run = function (this: StatementSync, ...values: unknown[]) {
  return written((): unknown => Reflect.apply(run, this, values), true) as ReturnType<StatementSync['run']>;
};

function methodsOf<K extends string>(prototype: object, ...names: K[]): Record<K, () => unknown> {
  return Object.fromEntries(names.map((name) => [name, Reflect.get(prototype, name)])) as unknown as Record<
    K,
    () => unknown
  >;
}

function written<T>(write: () => T, isChange: boolean): T {
  const disk = diskOfProcess();
  return disk === undefined ? write() : disk.write(write, isChange);
}

function diskOfProcess(): HostDisk | undefined {
  return (currentProcess()?.machine as Host | undefined)?.disk;
}

replaceGlobals(diskOfProcess);

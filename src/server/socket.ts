/** The Unix socket as a file: who holds it, how it appears at once with its mode, when it may be removed. */
import { chmodSync, lstatSync, mkdtempSync, renameSync, rmSync } from 'node:fs';
import { connect, type Server } from 'node:net';
import { dirname, join, resolve } from 'node:path';
import { getSystemErrorMessage } from 'node:util';
import { makeDirectories } from '../directories.ts';
import * as errors from '../errors.ts';

/** sockaddr_un.sun_path without its closing zero, unix(7). */
const PATH_BYTES = 107;
/** The engine may start hundreds of containers at once; the kernel cuts it to net.core.somaxconn. */
const BACKLOG = 4096;
/** A daemon too busy to accept for so long is alive all the same. */
const KNOCK_MS = 1000;

/** Engines look for drivers below this directory (moby pkg/plugins/discovery_unix.go); rootless ones below one of the same name. */
export function isWhereEnginesLook(path: string): boolean {
  return resolve(path).includes('/docker/plugins/');
}

/** A socket file that is ours. */
export interface BoundSocket {
  /** False when the file was removed, replaced, or hidden below something that was mounted later: nobody can connect any more. */
  isThere(): boolean;
  /** Removes the file, if no other program has put its own in its place. */
  release(): void;
}

/**
 * Lets the server listen on `path`, mode 0600, and makes the directory when missing. A socket nobody answers on is
 * replaced. Throws SOCKET_HELD, SOCKET_BLOCKED, SOCKET_TOO_LONG or SOCKET_FAILED.
 */
export async function bindSocket(server: Server, path: string, setting = 'SOCKET'): Promise<BoundSocket> {
  const target = resolve(path);
  try {
    await refuseOccupied(target, setting);
    makeDirectories(dirname(target), 0o755);
    return await listenAt(server, target, setting);
  } catch (error) {
    if (error instanceof errors.PluginError) throw error;
    const isRefused = (error as NodeJS.ErrnoException).code === 'EACCES';
    if (isRefused && process.geteuid?.() !== 0) throw errors.rootNeeded(`directory ${errors.quote(dirname(target))}`);
    throw errors.socketFailed(target, reasonOf(error), setting);
  }
}

async function refuseOccupied(path: string, setting: string): Promise<void> {
  const found = lstatSync(path, { throwIfNoEntry: false });
  if (found === undefined) return;
  if (!found.isSocket()) throw errors.socketBlocked(path, setting);
  if (await answers(path)) throw errors.socketHeld(path, setting);
}

async function answers(path: string): Promise<boolean> {
  const { promise, resolve: answer, reject } = Promise.withResolvers<boolean>();
  const socket = connect(path);
  // Whoever stood still has heard by the next turn of the loop what the kernel said at once: timers come first.
  socket.setTimeout(KNOCK_MS, () => setImmediate(answer, true));
  socket.once('connect', () => answer(true));
  socket.once('error', (error: NodeJS.ErrnoException) => {
    if (error.code === 'ECONNREFUSED' || error.code === 'ENOENT') answer(false);
    else if (error.code === 'EAGAIN') answer(true);
    else reject(error);
  });
  return promise.finally(() => socket.destroy());
}

/**
 * The socket is made in a directory of our own, gets its mode there, and is renamed into place: nobody can connect
 * before, a stale one is replaced in one step, and libuv, which on closing unlinks the path it was bound to without
 * looking, finds that path gone instead of a successor's socket.
 */
async function listenAt(server: Server, path: string, setting: string): Promise<BoundSocket> {
  const scratch = mkdtempSync(join(dirname(path), '.tsm-'));
  try {
    const fresh = join(scratch, 's');
    for (const each of [path, fresh]) checkLength(each, setting);
    await listening(server, fresh);
    chmodSync(fresh, 0o600);
    renameSync(fresh, path);
  } catch (error) {
    server.close();
    throw error;
  } finally {
    rmSync(scratch, { recursive: true });
  }
  const { ino } = lstatSync(path);
  return { isThere: () => isOurs(path, ino), release: () => removeIfOurs(path, ino) };
}

async function listening(server: Server, path: string): Promise<void> {
  const { promise, resolve: done, reject } = Promise.withResolvers<void>();
  server.once('error', reject);
  server.listen({ path, backlog: BACKLOG }, done);
  return promise.finally(() => server.off('error', reject));
}

function checkLength(path: string, setting: string): void {
  const bytes = Buffer.byteLength(path);
  if (bytes > PATH_BYTES) throw errors.socketPathTooLong(path, bytes, PATH_BYTES, setting);
}

/** While we listen the kernel keeps our inode, so no other file can have its number. */
function isOurs(path: string, ino: number): boolean {
  return lstatSync(path, { throwIfNoEntry: false })?.ino === ino;
}

function removeIfOurs(path: string, ino: number): void {
  if (isOurs(path, ino)) rmSync(path, { force: true });
}

function reasonOf(error: unknown): string {
  const { errno, message } = error as NodeJS.ErrnoException;
  return errno === undefined ? message : getSystemErrorMessage(errno);
}

/**
 * One daemon per network namespace: a second one would take the links of the first one's containers for left over, whatever
 * its own socket and state directory are. The lock is a listening socket in the abstract namespace, of which each network
 * namespace has one (unix_find_socket_byname, net/unix/af_unix.c): also a process in a container or of a managed plugin meets
 * it, and the kernel drops it with its process, however that dies. Whoever connects is told who has it.
 */
import { readlinkSync } from 'node:fs';
import { type Server, type Socket, createServer } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import { EAGAIN } from './libc.ts';
import { type Peer, connectToPeer } from './unix.ts';

const NAME = 'tsmacvlan';
/** Anybody in the network namespace may connect, and stay. */
const MOST_CALLERS = 8;
const ANSWER_MS = 1000;
/** And anybody may have the name: more than this no daemon says. */
const MOST_BYTES = 65_536;
const TRIES = 3;
const AGAIN_MS = 50;
const NOBODY = 65_534;

/** What a daemon says of itself. Paths are those that it sees: a managed plugin has a file system of its own. */
export interface Introduction {
  readonly sockets: readonly string[];
  readonly stateDirectory: string;
}

/** Who has the lock. */
export interface NamespaceHolder extends Peer {
  /** Null when it does not say: it stands still, or is another program. */
  readonly says: (Introduction & { readonly pidNamespace: string }) | null;
}

/** A lock that was taken, or the holder that has it. */
export type NamespaceLock = { readonly holder: null; release(): void } | { readonly holder: NamespaceHolder };

/**
 * Takes the lock of this network namespace, if nobody has it. A process that has its name and does not listen is no daemon: it
 * is answered as one of nobody's. Throws the system's errors.
 */
export async function lockNetworkNamespace(introduction: Introduction): Promise<NamespaceLock> {
  const server = answering(JSON.stringify({ ...introduction, pidNamespace: ownPidNamespace() }));
  for (let tries = 1; ; tries++) {
    const fault = await listening(server);
    if (fault === null) return { holder: null, release: () => void server.close() };
    const holder = fault.code === 'EADDRINUSE' ? await holderOfNamespace() : null;
    if (holder !== null) return { holder };
    if (fault.code !== 'EADDRINUSE') throw fault;
    if (tries === TRIES) return { holder: { pid: null, uid: NOBODY, says: null } };
    // It has ended between the two, or is about to listen.
    await sleep(AGAIN_MS);
  }
}

/** The process that has the lock of this network namespace; null when none has. */
export async function holderOfNamespace(): Promise<NamespaceHolder | null> {
  const connection = connectToPeer(`@${NAME}`);
  if (connection === -EAGAIN) return { pid: null, uid: 0, says: null };
  if (typeof connection === 'number') return null;
  return { ...connection.peer, says: introductionIn(await answerOn(connection.socket)) };
}

/** As much as comes in a second. */
async function answerOn(socket: Socket): Promise<string> {
  const { promise: over, resolve } = Promise.withResolvers<void>();
  const timer = setTimeout(resolve, ANSWER_MS);
  let answer = '';
  socket.setEncoding('utf8').on('data', (some: string) => {
    answer += some;
    if (answer.length > MOST_BYTES) resolve();
  });
  socket.once('end', resolve).once('error', () => resolve());
  await over;
  clearTimeout(timer);
  socket.destroy();
  return answer;
}

/** Which numbers of processes mean the same here and there. */
export function ownPidNamespace(): string {
  return readlinkSync('/proc/self/ns/pid');
}

function answering(answer: string): Server {
  const server = createServer((socket) => {
    socket.setTimeout(ANSWER_MS, () => socket.destroy());
    socket.on('error', () => socket.destroy());
    socket.unref().end(answer);
  });
  server.maxConnections = MOST_CALLERS;
  // Without a descriptor for a caller it goes on without that one, and alone it keeps no process alive.
  return server.on('error', () => undefined).unref();
}

async function listening(server: Server): Promise<NodeJS.ErrnoException | null> {
  const { promise, resolve } = Promise.withResolvers<NodeJS.ErrnoException | null>();
  server.once('error', resolve);
  server.listen({ path: `\0${NAME}` }, () => resolve(null));
  return promise.finally(() => server.off('error', resolve));
}

function introductionIn(answer: string): NamespaceHolder['says'] {
  const { sockets, stateDirectory, pidNamespace } = parsed(answer);
  const isList = Array.isArray(sockets) && sockets.every((path) => typeof path === 'string');
  if (!isList || typeof stateDirectory !== 'string' || typeof pidNamespace !== 'string') return null;
  return { sockets, stateDirectory, pidNamespace };
}

function parsed(text: string): Record<string, unknown> {
  try {
    return Object(JSON.parse(text)) as Record<string, unknown>;
  } catch {
    return {};
  }
}

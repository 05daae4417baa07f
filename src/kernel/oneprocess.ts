/**
 * One daemon per network namespace: a second one would take the links of the first one's containers for left over, whatever
 * its own socket and state directory are. The lock is a listening socket in the abstract namespace, of which each network
 * namespace has one (unix_find_socket_byname, net/unix/af_unix.c): also a process in a container or of a managed plugin meets
 * it, and the kernel drops it with its process, however that dies. Whoever connects is told who has it.
 *
 * Anybody in the network namespace may take that name, root in a container without any capability too. So the name is not the lock,
 * but a mark on its socket that wants CAP_NET_ADMIN (unixdiag.ts), as all that a daemon does: who has the one without the other
 * keeps nobody out. Only where marks cannot be told, whoever has the name and is root is believed.
 */
import { randomUUID } from 'node:crypto';
import { fstatSync, readlinkSync } from 'node:fs';
import { type Server, type Socket, createServer } from 'node:net';
import { constants } from 'node:os';
import { setTimeout as sleep } from 'node:timers/promises';
import { KernelError } from './errno.ts';
import { EAGAIN } from './libc.ts';
import { type Peer, boundSocket, connectToPeer } from './unix.ts';
import { type NamedSocket, mark, namedSockets } from './unixdiag.ts';

const NAME = 'tsmacvlan';
/** Anybody in the network namespace may connect, and stay. */
const MOST_CALLERS = 8;
const ANSWER_MS = 1000;
/** And anybody may have the name: more than this no daemon says. */
const MOST_BYTES = 65_536;
const TRIES = 3;
const AGAIN_MS = 50;
/** It takes no more callers, or does not listen yet. */
const UNKNOWN = { pid: null, uid: 0, says: null } as const;

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

/** A lock, or the holder that has it. */
export type NamespaceLock = TakenLock | { readonly holder: NamespaceHolder };

/** A lock that was taken. */
interface TakenLock {
  readonly holder: null;
  /** Of its socket, as `ss -xl` shows it. */
  readonly name: string;
  /** False where somebody else has the usual one. */
  readonly isUsual: boolean;
  release(): void;
}

/**
 * Takes the lock of this network namespace, if nobody has it. Who has only the name of its socket and not the mark is no daemon, and
 * keeps nobody out: the lock then has a name of its own. Throws the system's errors.
 */
export async function lockNetworkNamespace(introduction: Introduction): Promise<NamespaceLock> {
  const server = answering(JSON.stringify({ ...introduction, pidNamespace: ownPidNamespace() }));
  let name = NAME;
  for (let tries = 1; ; tries++) {
    const holder = await holderOfNamespace();
    if (holder !== null) return { holder };
    const fd = boundSocket(`@${name}`, mark);
    if (fd >= 0) return settle(server, fd, name);
    if (fd !== -constants.errno.EADDRINUSE) throw new KernelError(`take the name @${name}`, -fd);
    // It has ended between the two, or is about to listen.
    await sleep(AGAIN_MS);
    if (tries >= TRIES) name = `${NAME}-${randomUUID()}`;
  }
}

/** Two that come at one moment, under two names, see each other here, and none of them gets it. */
async function settle(server: Server, fd: number, name: string): Promise<NamespaceLock> {
  const { ino } = fstatSync(fd);
  const fault = await listening(server, fd);
  if (fault !== null) throw fault;
  const holder = await holderOfNamespace(ino);
  if (holder === null) return { holder, name: `@${name}`, isUsual: name === NAME, release: () => void server.close() };
  server.close();
  return { holder };
}

/** The process that has the lock of this network namespace; null when none has. `own`: the inode of a socket that does not count. */
export async function holderOfNamespace(own?: number): Promise<NamespaceHolder | null> {
  const sockets = namedSockets();
  if (sockets === null) return own === undefined ? holderUnder(NAME, true) : null;
  const isOne = ({ name, inode, isMarked }: NamedSocket) =>
    isMarked && inode !== own && (name === NAME || name.startsWith(`${NAME}-`));
  const found = sockets.find(isOne);
  return found === undefined ? null : ((await holderUnder(found.name, false)) ?? UNKNOWN);
}

/** Who listens under this name, if somebody does. `asRoot`: and only if he is root, or takes nobody any more. */
async function holderUnder(name: string, asRoot: boolean): Promise<NamespaceHolder | null> {
  const connection = connectToPeer(`@${name}`);
  if (connection === -EAGAIN) return UNKNOWN;
  if (typeof connection === 'number') return null;
  const says = introductionIn(await answerOn(connection.socket));
  return asRoot && connection.peer.uid !== 0 ? null : { ...connection.peer, says };
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

async function listening(server: Server, fd: number): Promise<NodeJS.ErrnoException | null> {
  const { promise, resolve } = Promise.withResolvers<NodeJS.ErrnoException | null>();
  server.once('error', resolve);
  server.listen({ fd }, () => resolve(null));
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

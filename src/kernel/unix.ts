/** Unix sockets as far as Node has no words for them: a datagram, and which process listens. */
import { Socket } from 'node:net';
import * as libc from './libc.ts';

/** struct ucred {pid; uid; gid}, unix(7). */
const SO_PEERCRED = 17;
const UCRED_SIZE = 12;

/** The process at the other end of a stream, as this process's namespaces number it and its user. */
export interface Peer {
  /** Null for one in a PID namespace that cannot be seen from here. */
  readonly pid: number | null;
  /** 65534 for one that this user namespace does not know. */
  readonly uid: number;
}

/** One datagram to the socket at this path, or of this name when it begins with `@`. Answers 0, or a negated errno. */
export function sendDatagram(path: string, text: string): number {
  const fd = libc.socket(libc.AF_UNIX, libc.SOCK_DGRAM, 0);
  if (fd < 0) return fd;
  try {
    const connected = libc.connect(fd, unixAddress(path));
    return connected < 0 ? connected : Math.min(libc.send(fd, Buffer.from(text)), 0);
  } finally {
    libc.close(fd);
  }
}

/**
 * A connection to whoever listens there, and who that is: the kernel noted it when that process began to listen. Or a negated
 * errno: -ECONNREFUSED when nobody listens, -EAGAIN when somebody does who takes no more.
 */
export function connectToPeer(path: string): { socket: Socket; peer: Peer } | number {
  const fd = libc.socket(libc.AF_UNIX, libc.SOCK_STREAM, 0);
  if (fd < 0) return fd;
  const ucred = Buffer.alloc(UCRED_SIZE);
  const connected = libc.connect(fd, unixAddress(path));
  const known = connected < 0 ? connected : libc.getsockopt(fd, libc.SOL_SOCKET, SO_PEERCRED, ucred);
  if (known < 0) {
    libc.close(fd);
    return known;
  }
  return { socket: new Socket({ fd }), peer: { pid: ucred.readInt32LE(0) || null, uid: ucred.readUInt32LE(4) } };
}

/** A stream socket that has this name and does not listen yet, or a negated errno: -EADDRINUSE when another has it. `prepare` comes before. */
export function boundSocket(path: string, prepare: (fd: number) => void): number {
  const fd = libc.socket(libc.AF_UNIX, libc.SOCK_STREAM, 0);
  if (fd < 0) return fd;
  prepare(fd);
  const bound = libc.bind(fd, unixAddress(path));
  if (bound < 0) libc.close(fd);
  return bound < 0 ? bound : fd;
}

/** struct sockaddr_un {u16 family; path}. In the abstract namespace the name begins with a zero and ends with the address. */
function unixAddress(path: string): Buffer {
  const family = Buffer.alloc(2);
  family.writeUInt16LE(libc.AF_UNIX);
  return Buffer.concat([family, path.startsWith('@') ? Buffer.from(`\0${path.slice(1)}`) : Buffer.from(`${path}\0`)]);
}

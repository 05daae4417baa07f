/**
 * Which Unix sockets of this network namespace have a name (linux/sock_diag.h, linux/unix_diag.h), and whether one has a mark that
 * nobody gives it who may not change the host's network: a receive buffer of the greatest size, beyond net.core.rmem_max
 * (SO_RCVBUFFORCE wants CAP_NET_ADMIN, net/core/sock.c). The kernel gives it up with the socket, and tells it to everybody.
 */
import { check } from './errno.ts';
import * as libc from './libc.ts';
import {
  Attributes,
  encodeMessage,
  type Message,
  NLM_F_DUMP,
  NLMSG_DONE,
  NLMSG_ERROR,
  decodeMessages,
} from './netlink.ts';

const NETLINK_SOCK_DIAG = 4;
const SOCK_DIAG_BY_FAMILY = 20;
const SO_RCVBUFFORCE = 33;
/** TCP_CLOSE, which one is in that does not listen yet, and TCP_LISTEN, as bits of udiag_states (net/tcp_states.h). */
const STATES = (1 << 7) | (1 << 10);
/** UDIAG_SHOW_NAME and UDIAG_SHOW_MEMINFO. */
const SHOWN = 0x1 | 0x20;
const UNIX_DIAG_NAME = 0;
const UNIX_DIAG_MEMINFO = 5;
/** SK_MEMINFO_RCVBUF is the second number. */
const RCVBUF_AT = 4;
/** struct unix_diag_msg {u8 family; u8 type; u8 state; u8 pad; u32 inode; u32 cookie[2]}. */
const BODY_SIZE = 16;
const INODE_AT = 4;
const RECEIVE_SIZE = 64 * 1024;
/** INT_MAX / 2, of which the kernel keeps the double. */
const MARK = 0x3fffffff;

/** A socket with a name in the abstract namespace. */
export interface NamedSocket {
  /** Without the zero it begins with. */
  readonly name: string;
  readonly inode: number;
  readonly isMarked: boolean;
}

/** False, and nothing is changed, without CAP_NET_ADMIN in the host's own user namespace. */
export function mark(fd: number): boolean {
  return libc.setsockopt(fd, libc.SOL_SOCKET, SO_RCVBUFFORCE, MARK) >= 0;
}

/**
 * Those that listen, or do not yet. Null where nothing is known of marks: on a kernel without UNIX_DIAG, and to who may not set one.
 * Waits for nothing. Throws the system's errors.
 */
export function namedSockets(): NamedSocket[] | null {
  return canMark() ? listed() : null;
}

function canMark(): boolean {
  const fd = check('open a Unix socket', libc.socket(libc.AF_UNIX, libc.SOCK_STREAM, 0));
  try {
    return mark(fd);
  } finally {
    libc.close(fd);
  }
}

function listed(): NamedSocket[] | null {
  const fd = libc.socket(libc.AF_NETLINK, libc.SOCK_RAW, NETLINK_SOCK_DIAG);
  if (fd < 0) return null;
  try {
    check(
      'ask for Unix sockets',
      libc.send(fd, encodeMessage({ type: SOCK_DIAG_BY_FAMILY, flags: NLM_F_DUMP, body: question() }, 1)),
    );
    return read(fd);
  } finally {
    libc.close(fd);
  }
}

/** struct unix_diag_req {u8 family; u8 protocol; u16 pad; u32 states; u32 inode; u32 show; u32 cookie[2]}. */
function question(): Buffer {
  const body = Buffer.alloc(24);
  body.writeUInt8(libc.AF_UNIX);
  body.writeUInt32LE(STATES, 4);
  body.writeUInt32LE(SHOWN, 12);
  return body;
}

function read(fd: number): NamedSocket[] | null {
  const found: NamedSocket[] = [];
  const buffer = Buffer.alloc(RECEIVE_SIZE);
  for (;;) {
    const { length } = libc.receive(fd, buffer);
    for (const message of decodeMessages(buffer.subarray(0, check('list Unix sockets', length)))) {
      if (message.type === NLMSG_DONE) return found;
      if (message.type === NLMSG_ERROR) return null;
      const socket = decode(message);
      if (socket !== null) found.push(socket);
    }
  }
}

function decode({ body }: Message): NamedSocket | null {
  const attributes = new Attributes(body, BODY_SIZE);
  const name = attributes.bytes(UNIX_DIAG_NAME);
  if (name === null || name[0] !== 0) return null;
  const memory = attributes.bytes(UNIX_DIAG_MEMINFO);
  const isMarked = memory !== null && memory.length >= RCVBUF_AT + 4 && memory.readUInt32LE(RCVBUF_AT) === 2 * MARK;
  return { name: name.toString('latin1', 1), inode: body.readUInt32LE(INODE_AT), isMarked };
}

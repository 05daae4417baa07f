/** A name server on the LAN: knows the address of one name and says of all others that they do not exist. */
import { type ChildProcess, spawn } from 'node:child_process';
import { createSocket } from 'node:dgram';
import { once } from 'node:events';
import type { Namespace } from './namespace.ts';

/** Starts it in a namespace, on port 53 of all its addresses. It ends with the enclosure, or when killed. */
export async function serveNames(namespace: Namespace, name: string, address: string): Promise<ChildProcess> {
  const [command = '', ...args] = namespace.enter([process.execPath, import.meta.filename, name, address]);
  const server = spawn(command, args, { stdio: ['ignore', 'pipe', 'inherit'] });
  if (!server.stdout) throw new Error('unreachable');
  await once(server.stdout, 'data');
  return server;
}

const QUERY_HEADER_BYTES = 12;
const TYPE_A = 1;
/** RFC 1035 4.1.1: response, recursion desired and available; the last four bits say NXDOMAIN. */
const [FOUND, NO_SUCH_NAME] = [0x8180, 0x8183];

/** RFC 1035 4.1: the question comes back, with one answer when it asked for the address. */
function reply(query: Buffer, name: string, address: string): Buffer {
  const end = query.indexOf(0, QUERY_HEADER_BYTES) + 5;
  const isKnown = readName(query.subarray(QUERY_HEADER_BYTES)) === name;
  const hasAnswer = isKnown && query.readUInt16BE(end - 4) === TYPE_A;
  const header = Buffer.alloc(QUERY_HEADER_BYTES);
  query.copy(header, 0, 0, 2);
  header.writeUInt16BE(isKnown ? FOUND : NO_SUCH_NAME, 2);
  header.writeUInt16BE(1, 4);
  header.writeUInt16BE(hasAnswer ? 1 : 0, 6);
  // The name as a pointer to the question, type A, class IN, one minute, four bytes.
  const answer = [0xc0, QUERY_HEADER_BYTES, 0, TYPE_A, 0, 1, 0, 0, 0, 60, 0, 4, ...address.split('.').map(Number)];
  return Buffer.concat([header, query.subarray(QUERY_HEADER_BYTES, end), Buffer.from(hasAnswer ? answer : [])]);
}

function readName(labels: Buffer): string {
  const parts: string[] = [];
  for (let offset = 0; labels[offset]; offset += 1 + (labels[offset] ?? 0)) {
    parts.push(labels.toString('latin1', offset + 1, offset + 1 + (labels[offset] ?? 0)));
  }
  return parts.join('.').toLowerCase();
}

if (process.argv[1] === import.meta.filename) {
  const [, , name = '', address = ''] = process.argv;
  const socket = createSocket('udp4');
  socket.on('message', (query, peer) => socket.send(reply(query, name, address), peer.port, peer.address));
  socket.bind(53, () => console.log('ready'));
}

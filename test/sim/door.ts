/** Stands where src/server/socket.ts stands: the socket of the machine whose process is running, which its engine calls. */
import type { Server } from 'node:http';
import type { BoundSocket } from '../../src/server/socket.ts';
import { currentProcess } from './time.ts';
import type { Host } from './host.ts';

export async function bindSocket(server: Server, _path: string): Promise<BoundSocket> {
  const process = currentProcess();
  const host = process?.machine as Host;
  host.listeners.add(server);
  const release = () => void host.listeners.delete(server);
  process?.onKilled.add(release);
  return { isThere: () => true, release };
}

/** The engine of its machine finds it. */
export function isWhereEnginesLook(): boolean {
  return true;
}

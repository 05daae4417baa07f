/** Asks a server for many things at once and prints what came: `flood.ts SOCKET REQUESTS CONNECTIONS`. */
import { once } from 'node:events';
import { Agent, type IncomingMessage, request } from 'node:http';
import { createCalls } from '../../../src/server/calls.ts';
import { PluginServer } from '../../../src/server/server.ts';
import { type Line, logInto, quietConflicts, quietIpam, quietLeaks, quietNetwork, remembering } from './door.ts';

const [socket = '', requests, connections] = process.argv.slice(2);
const asked: unknown[][] = [];
const lines: Line[] = [];
const calls = createCalls({
  network: remembering(asked, quietNetwork),
  ipam: remembering(asked, quietIpam),
  leaks: quietLeaks,
  state: { read: async () => ({ schema: 4, node: null, pieces: [Buffer.from('{"networks":[]}')] }) },
  filteredParents: () => ['eth0'],
  health: async () => ({ status: 'ok', reasons: [] }),
  conflicts: quietConflicts,
  scope: 'local',
});
const server = new PluginServer({ calls, log: logInto(lines) });
await server.listen(socket);

const agent = new Agent({ keepAlive: true, maxSockets: Number(connections) });
const body = JSON.stringify({ NetworkID: 'n1', EndpointID: 'e1' });
const startedAt = performance.now();
const answers = await Promise.all(
  Array.from({ length: Number(requests) }, (_, i) => statusOf(i % 2 ? 'Leave' : 'Join')),
);
const ms = Math.round(performance.now() - startedAt);
agent.destroy();
await server.close();

const statuses = Object.fromEntries(
  Object.entries(Object.groupBy(answers, String)).map(([s, all]) => [s, all?.length]),
);
console.log(JSON.stringify({ ms, statuses, asked: asked.length, lines: lines.length }));

async function statusOf(verb: string): Promise<number | undefined> {
  const sent = request({ socketPath: socket, agent, method: 'POST', path: `/NetworkDriver.${verb}` }).end(body);
  const [response] = (await once(sent, 'response')) as [IncomingMessage];
  response.resume();
  await once(response, 'end');
  return response.statusCode;
}

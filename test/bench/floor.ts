/**
 * The floor: what any plugin costs an engine. It answers every call at once with a fixed valid answer, keeps no records,
 * and makes a macvlan link only where the engine needs one: `floor.ts SOCKET PARENT`. Addresses come by counting; the same
 * one comes again after some 200, which no kernel minds whose containers do not speak.
 */
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import { text } from 'node:stream/consumers';
import { Links } from '../../src/kernel/link.ts';

interface Body {
  readonly Pool?: string;
  readonly PoolID?: string;
  readonly Address?: string;
  readonly EndpointID?: string;
  readonly Options?: { readonly RequestAddressType?: string } | null;
}

type Answer = (body: Body) => object | Promise<object>;

const GATEWAY = 'com.docker.network.gateway';
const MOST = 200;

const [socketPath, parentName = ''] = process.argv.slice(2);
const links = Links.open();
const parent = links.byName(parentName);
let counted = 0;

const ANSWERS: Readonly<Record<string, Answer>> = {
  'Plugin.Activate': () => ({ Implements: ['NetworkDriver', 'IpamDriver'] }),
  'NetworkDriver.GetCapabilities': () => ({ Scope: 'local', ConnectivityScope: 'global', GwAllocChecker: true }),
  'NetworkDriver.GwAllocCheck': () => ({ SkipIPv4: false, SkipIPv6: false }),
  'NetworkDriver.CreateEndpoint': createEndpoint,
  // Without a gateway the engine would attach the container to docker_gwbridge as well.
  'NetworkDriver.Join': ({ EndpointID }) => ({
    InterfaceName: { SrcName: linkName(EndpointID), DstPrefix: 'eth' },
    DisableGatewayService: true,
  }),
  'NetworkDriver.DeleteEndpoint': deleteEndpoint,
  'IpamDriver.GetCapabilities': () => ({ RequiresMACAddress: false, RequiresRequestReplay: false }),
  'IpamDriver.GetDefaultAddressSpaces': () => ({
    LocalDefaultAddressSpace: 'FloorLocal',
    GlobalDefaultAddressSpace: 'FloorGlobal',
  }),
  'IpamDriver.RequestPool': ({ Pool = '' }) => ({ PoolID: `floor/${Pool}`, Pool, Data: {} }),
  'IpamDriver.RequestAddress': ({ PoolID = '', Address = '', Options }) => ({
    Address: addressOf(PoolID, Address, Options?.RequestAddressType === GATEWAY),
    Data: {},
  }),
};

/** `floor/10.1.0.0/24` → `10.1.0.1/24` for a gateway, one of the next two hundred for others. */
function addressOf(poolId: string, named: string, isGateway: boolean): string {
  const [, network = '', length] = poolId.split('/');
  const next = `${network.slice(0, network.lastIndexOf('.'))}.${isGateway ? 1 : 2 + (counted++ % MOST)}`;
  return `${named || next}/${length}`;
}

function linkName(endpointId = ''): string {
  return `f${endpointId.slice(0, 12)}`;
}

async function createEndpoint({ EndpointID }: Body): Promise<object> {
  const spec = { alias: 'floor', macAddress: null, mtu: null, broadcastQueueLength: null };
  const parentIndex = (await parent)?.index ?? 0;
  await links.addMacvlan({ ...spec, name: linkName(EndpointID), parentIndex, mode: 'bridge' });
  return {};
}

/** The kernel takes some 16 ms for it, and nobody waits for that. */
function deleteEndpoint({ EndpointID }: Body): object {
  void links.byName(linkName(EndpointID)).then((link) => link && links.deleteLink(link.index));
  return {};
}

async function answer(call: IncomingMessage, response: ServerResponse): Promise<void> {
  const body = await text(call);
  const found = await ANSWERS[call.url?.slice(1) ?? '']?.((body ? JSON.parse(body) : {}) as Body);
  response.setHeader('Content-Type', 'application/vnd.docker.plugins.v1.2+json').end(JSON.stringify(found ?? {}));
}

createServer((call, response) => void answer(call, response)).listen(socketPath);

/** What real engines sent: each recorded request is read as it was meant, and each session plays through. */
import assert from 'node:assert/strict';
import { type TestContext, test } from 'node:test';
import { IpamDriver } from '../../src/ipam/driver.ts';
import { interfaceAddress } from '../lab/addresses.ts';
import { ADDRESS_SPACES } from '../../src/ipam/pool.ts';
import { type Call, createCalls } from '../../src/server/calls.ts';
import { openLocalStore } from '../../src/store/local.ts';
import { ask, openDoor, quietConflicts, quietIpam, quietLeaks, quietNetwork, remembering } from './server/door.ts';
import {
  describeExchange,
  type Exchange,
  isAddressTaken,
  PLAYS,
  play,
  type Recorded,
  readSession,
  SESSIONS,
  withoutLength,
} from './server/transcripts.ts';
import { temporaryDirectory } from './temporary.ts';
import { callLimit } from '../lab/patience.ts';
import { KEEPS_NOTHING, NOBODY_ANSWERS } from '../lab/quiet.ts';

const options = { timeout: 60_000 };

// --- each request is read as it was meant ------------------------------------------------------------------------

const asked: unknown[][] = [];
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

for (const name of SESSIONS) {
  test(`every request of ${name} is read as it was meant`, options, async () => {
    for (const recorded of readSession(name)) {
      const call = calls.get(recorded.call);
      assert.ok(call, `${recorded.call} has no line in the table`);
      if (recorded.body === undefined && call.hasBody) continue;
      assert.deepEqual(await verbAskedBy(call, recorded), meaningOf(recorded), JSON.stringify(recorded));
    }
  });
}

async function verbAskedBy(call: Call, { body }: Recorded): Promise<unknown[] | undefined> {
  asked.length = 0;
  await call.read(body).run(callLimit());
  return asked[0];
}

// The protocol's fields, as a second reading of the same page.
interface Body {
  readonly NetworkID: string;
  readonly EndpointID: string;
  readonly Options: Readonly<Record<string, unknown>> | null;
  readonly IPv4Data: readonly IpamData[];
  readonly IPv6Data: readonly IpamData[] | null;
  readonly Interface: { readonly Address: string; readonly AddressIPv6: string; readonly MacAddress: string };
  readonly AddressSpace: string;
  readonly Pool: string;
  readonly SubPool: string;
  readonly V6: boolean;
  readonly PoolID: string;
  readonly Address: string;
}

interface IpamData {
  readonly AddressSpace: string;
  readonly Pool: string;
  readonly Gateway?: string;
}

interface PortMap {
  readonly Port: number;
  readonly HostPort: number;
}

function subnetOf({ AddressSpace, Pool, Gateway }: IpamData) {
  return {
    addressSpace: AddressSpace,
    subnet: Pool,
    gateway: Gateway === undefined ? null : withoutLength(Gateway),
  };
}

const MEANINGS: Readonly<Record<string, (body: Body) => unknown[]>> = {
  'IpamDriver.GetCapabilities': () => ['register'],
  'NetworkDriver.GwAllocCheck': (body) => ['skipGateway', networkOptions(body)],
  'NetworkDriver.AllocateNetwork': (body) => [
    'allocateNetwork',
    {
      networkId: body.NetworkID,
      options: body.Options ?? {},
      isRepeated: false,
      subnets: body.IPv4Data.map(subnetOf),
    },
  ],
  'NetworkDriver.FreeNetwork': ({ NetworkID }) => ['freeNetwork', NetworkID],
  'NetworkDriver.CreateNetwork': (body) => [
    'createNetwork',
    {
      networkId: body.NetworkID,
      ...networkOptions(body),
      subnets: [...body.IPv4Data, ...(body.IPv6Data ?? [])].map(subnetOf),
    },
  ],
  'NetworkDriver.DeleteNetwork': ({ NetworkID }) => ['deleteNetwork', NetworkID],
  'NetworkDriver.CreateEndpoint': (body) => [
    'createEndpoint',
    {
      networkId: body.NetworkID,
      endpointId: body.EndpointID,
      addresses: [body.Interface.Address, body.Interface.AddressIPv6].flatMap((text) =>
        text ? interfaceAddress(text) : [],
      ),
      malformedAddresses: [],
      macAddress: body.Interface.MacAddress || null,
      interfaceName: body.Options?.['com.docker.network.endpoint.ifname'] ?? null,
      publishedPorts: ((body.Options?.['com.docker.network.portmap'] ?? []) as PortMap[]).map(
        ({ Port, HostPort }) => `${HostPort}->${Port}/tcp`,
      ),
      wishedAddress: null,
      hostname: null,
    },
  ],
  'NetworkDriver.DeleteEndpoint': ({ NetworkID, EndpointID }) => ['deleteEndpoint', NetworkID, EndpointID],
  'NetworkDriver.Join': ({ NetworkID, EndpointID }) => ['join', NetworkID, EndpointID],
  'NetworkDriver.Leave': ({ NetworkID, EndpointID }) => ['leave', NetworkID, EndpointID],
  'IpamDriver.RequestPool': (body) => [
    'requestPool',
    {
      addressSpace: body.AddressSpace,
      pool: body.Pool || null,
      subPool: body.SubPool || null,
      options: Object.fromEntries(Object.entries(body.Options ?? {}).filter(([key]) => /^[a-z0-9]+$/.test(key))),
      v6: body.V6,
    },
  ],
  'IpamDriver.ReleasePool': ({ PoolID }) => ['releasePool', PoolID],
  'IpamDriver.RequestAddress': ({ PoolID, Address, Options }) => [
    'requestAddress',
    {
      poolId: PoolID,
      address: Address || null,
      isGateway: Options?.['RequestAddressType'] === 'com.docker.network.gateway',
      serial: Options?.['com.docker.network.ipam.serial'] === 'true',
      name: Options?.['com.docker.network.endpoint.name'] ?? null,
    },
  ],
  'IpamDriver.ReleaseAddress': ({ PoolID, Address }) => ['releaseAddress', { poolId: PoolID, address: Address }],
};

/** What the driver must hear; undefined for calls that are answered without it. */
function meaningOf({ call, body }: Recorded): unknown[] | undefined {
  return MEANINGS[call]?.(body as unknown as Body);
}

function networkOptions({ Options }: Body) {
  return {
    options: Options?.['com.docker.network.generic'] ?? {},
    internal: Options?.['com.docker.network.internal'] ?? false,
    enableIPv4: Options?.['com.docker.network.enable_ipv4'] ?? true,
    enableIPv6: Options?.['com.docker.network.enable_ipv6'] ?? false,
    skipsGateways: Options?.['com.docker.network.enable_ipv4'] !== undefined,
  };
}

// --- each session plays through ----------------------------------------------------------------------------------

for (const { title, requests } of PLAYS) {
  test(`${title} plays through with the real IPAM`, options, (t) => playThrough(t, requests));
}

/** The NetworkDriver's part of the sessions is played on real links in test/netns. */
async function playThrough(t: TestContext, session: readonly Recorded[]): Promise<void> {
  const store = openLocalStore(temporaryDirectory(t));
  const door = await openDoor(t, { ipam: new IpamDriver({ store, probe: NOBODY_ANSWERS, keeper: KEEPS_NOTHING }) });
  t.after(() => store.close());
  const exchanges = await play(session, (call, body) => ask(door, call, body));
  for (const exchange of exchanges) {
    assert.equal(exchange.reply.status, isAddressTaken(exchange) ? 400 : 200, describeExchange(exchange));
  }
  const leases = (await store.leases.list()).map(({ realm, address }) => `${realm}/${address}`);
  assert.deepEqual(leases.sort(), [...heldAfter(exchanges).keys()].sort(), 'the store holds what the engine holds');
}

/** What the engine holds after these exchanges, and by which pools; fails when an address is given to two at once. */
function heldAfter(exchanges: readonly Exchange[]): Map<string, Set<string>> {
  const held = new Map<string, Set<string>>();
  const swarm = new SwarmPools();
  for (const { recorded, body, reply } of exchanges) {
    const { PoolID: pool = '', Address: asked = '', Options: options } = (body ?? {}) as Partial<Body>;
    const { Address: given = '' } = reply.body as Partial<Body>;
    swarm.see(recorded.call, { ...(body as Partial<Body>), ...(reply.body as Partial<Body>) });
    const nameOf = (address: string) => `${pool.split('/')[0]}/${withoutLength(address)}`;
    if (recorded.call === 'IpamDriver.RequestAddress' && reply.status === 200) {
      assert.ok(asked !== '' || !held.has(nameOf(given)), `${nameOf(given)} was given twice`);
      held.set(nameOf(given), (held.get(nameOf(given)) ?? new Set()).add(pool));
      if (isGateway(options)) swarm.gateways.add(nameOf(given));
    }
    if (recorded.call === 'IpamDriver.ReleaseAddress' && !swarm.keepsGateway(pool, nameOf(asked)))
      letGo(held, pool, nameOf(asked));
    if (recorded.call === 'IpamDriver.ReleasePool' && !swarm.isAllocated(pool))
      for (const name of held.keys()) letGo(held, pool, name);
  }
  return held;
}

/** A swarm's leader gives up a pool, and its gateway, when it has freed the last network on it. */
class SwarmPools {
  readonly gateways = new Set<string>();
  readonly #networks = new Map<string, readonly string[]>();
  #asked: string[] = [];

  see(call: string, { NetworkID: network = '', PoolID: pool = '' }: Partial<Body>): void {
    if (call === 'IpamDriver.RequestPool') this.#asked.push(pool);
    if (call === 'NetworkDriver.AllocateNetwork') this.#networks.set(network, this.#asked.splice(0));
    if (call === 'NetworkDriver.FreeNetwork') this.#networks.delete(network);
  }

  isAllocated(pool: string): boolean {
    return [...this.#networks.values()].flat().includes(pool);
  }

  keepsGateway(pool: string, name: string): boolean {
    return pool.startsWith(ADDRESS_SPACES.global) && this.gateways.has(name);
  }
}

function isGateway(options: Body['Options'] | undefined): boolean {
  return options?.['RequestAddressType'] === 'com.docker.network.gateway';
}

function letGo(held: Map<string, Set<string>>, pool: string, name: string): void {
  held.get(name)?.delete(pool);
  if (held.get(name)?.size === 0) held.delete(name);
}

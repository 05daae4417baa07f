/** The table of all calls an engine makes, each on one line: read → verb → write. */
import type { FoundLeak } from '../collector.ts';
import type { Health } from '../health.ts';
import type { InterfaceAddress, Remembered, TableName } from '../model.ts';
import type {
  AddressRequest,
  AllocationRequest,
  Attachment,
  CallLimit,
  CreatedEndpoint,
  EndpointRequest,
  GatewayCheck,
  NameRequest,
  NetworkRequest,
  PoolRequest,
  ReserveRequest,
  Unlimited,
} from '../requests.ts';
import type { Scope } from '../settings.ts';
import { VERSION } from '../version.ts';
import * as own from './ownwire.ts';
import * as wire from './wire.ts';

/** What the table needs of the NetworkDriver. */
export interface NetworkVerbs {
  createNetwork(request: NetworkRequest, limit: CallLimit): Promise<void>;
  deleteNetwork(networkId: string): Promise<void>;
  createEndpoint(request: EndpointRequest): Promise<CreatedEndpoint>;
  /** How long createEndpoint() may take on this network, in milliseconds; null as long as any call. */
  patienceMs(networkId: string): Promise<number | null>;
  deleteEndpoint(networkId: string, endpointId: string): Promise<void>;
  join(networkId: string, endpointId: string, limit: CallLimit): Promise<Attachment>;
  leave(networkId: string, endpointId: string): Promise<void>;
  /** Says in the log what users of a swarm learn late or never. */
  reviewAllocation(request: AllocationRequest): void;
  skipGateway(request: GatewayCheck): { ipv4: boolean; ipv6: boolean };
}

/** What the table needs of the IpamDriver. */
export interface IpamVerbs {
  defaultAddressSpaces(): { local: string; global: string };
  requestPool(
    request: PoolRequest,
    limit: CallLimit,
  ): Promise<{ poolId: string; pool: string; gateway: string | null }>;
  /** How long requestAddress() may take of this pool, in milliseconds; null as long as any call. */
  patienceMs(poolId: string): Promise<number | null>;
  releasePool(poolId: string): Promise<void>;
  /** The engine asked what the plugin can do. */
  register(): void;
  allocateNetwork(request: AllocationRequest): Promise<void>;
  freeNetwork(networkId: string): Promise<void>;
  /** Answers with prefix length. */
  requestAddress(request: AddressRequest): Promise<string>;
  /** The reply to requestAddress() goes out now. */
  answerAddress(given: { poolId: string; address: string }): Promise<void>;
  releaseAddress(request: { poolId: string; address: string }): Promise<void>;
  /** Of one that was named and answered to nobody: only what that very call leased goes again. */
  takeBackAddress(request: { poolId: string; address: string }): Promise<void>;
  /** `tsmacvlan reserve`. */
  reserveName(request: ReserveRequest): Promise<Remembered>;
  /** `tsmacvlan unreserve`. */
  unreserveName(request: NameRequest): Promise<{ forgotten: Remembered[] }>;
  /** `tsmacvlan pools`. */
  poolUses(): Promise<readonly object[]>;
}

/** What the table needs of the collector. */
export interface LeakVerbs {
  collect(request: { isDryRun: boolean }): Promise<FoundLeak[]>;
  /** The engine takes up with the plugin: an engine that was killed left behind what nobody will take back. */
  hurry(): void;
}

/** What the table needs of the records of conflicts. */
export interface ConflictVerbs {
  /** Null forgets those of all addresses. */
  clear(request: { address: string | null }): Promise<{ count: number }>;
}

/** Records as they are told. */
export interface Told {
  readonly schema: number;
  /** The host's name in a shared store; null where it is in none. */
  readonly node: string | null;
  readonly pieces: readonly Buffer[];
}

/** What the table needs of the records. */
export interface StateVerbs {
  /** The tables that were asked for as they are at one moment, as the JSON text of an object in pieces. */
  read(tables: readonly TableName[]): Promise<Told>;
}

/** A row of the table. */
export interface Call {
  /** False for the calls without arguments, which come with an empty body. */
  readonly hasBody: boolean;
  /** True when the answer needs what recovery restores. */
  readonly waits: boolean;
  /** True when the reply tells of a change that a power cut must not take: it waits for the disk. */
  readonly isLasting: boolean;
  /** True when the engine drops our error: then the log is the only place where anyone learns of it. */
  readonly isUnheard: boolean;
  /** True for a question that is asked again and again, by GET too: it is logged at the level debug. */
  readonly isQuiet?: true;
  /** Checks the body; throws the mistake in it. */
  read(body: unknown): Task;
}

/** One checked request. */
export interface Task {
  readonly subject: Subject;
  /** From its arrival on, in milliseconds; null as long as any. Absent for most. */
  readonly patienceMs?: () => Promise<number | null>;
  run(limit: CallLimit): Promise<Done>;
}

/** An answer that is JSON text already. */
export class WrittenReply {
  readonly pieces: readonly Buffer[];

  constructor(pieces: readonly Buffer[]) {
    this.pieces = pieces;
  }
}

/** A request that was carried out. */
export interface Done {
  readonly reply: object | WrittenReply;
  /** The request's subject with what was answered: the address given. */
  readonly subject: Subject;
  /** Of HTTP; left out 200. */
  readonly status?: number;
  /** The reply is durable and goes out next. */
  answer(): Promise<void>;
  /** For a reply that reached nobody: undoes what the engine will never ask to undo, since it does not know of it. */
  takeBack(): Promise<void>;
}

/** What a request is about, for the log. */
export interface Subject {
  readonly networkId?: string;
  readonly endpointId?: string;
  readonly poolId?: string;
  readonly address?: string | null;
  readonly addresses?: readonly InterfaceAddress[];
}

/** By what the URL says: `NetworkDriver.Join`. */
export type Calls = ReadonlyMap<string, Call>;

interface Parts {
  readonly network: NetworkVerbs;
  readonly ipam: IpamVerbs;
  readonly leaks: LeakVerbs;
  readonly conflicts: ConflictVerbs;
  readonly state: StateVerbs;
  readonly scope: Scope;
  /** Parents whose network port delivers to their own MAC address only, as far as that is known. */
  readonly filteredParents: () => string[];
  readonly health: () => Promise<Health>;
}

/** The table, over the verbs of the two drivers, of the collector and of the records of conflicts. */
export function createCalls({ network, ipam, leaks, conflicts, state, scope, filteredParents, health }: Parts): Calls {
  const { writeNothing: empty } = wire;

  const plugin = {
    Activate: constant({ Implements: ['NetworkDriver', 'IpamDriver'] }),
    // Not the engine's either: for whoever watches over the plugin.
    Health: quiet(health),
  };

  // ConnectivityScope global, as the built-in macvlan: without it swarm tasks do not find each other by name.
  const networkDriver = {
    GetCapabilities: constant({ Scope: scope, ConnectivityScope: 'global', GwAllocChecker: true }, () => leaks.hurry()),
    GwAllocCheck: fleeting(call(wire.readGatewayCheck, async (r) => network.skipGateway(r), wire.writeGatewaySkip)),
    AllocateNetwork: call(wire.readAllocateNetwork, (r) => allocate(network, ipam, r), wire.writeAllocation),
    FreeNetwork: call(wire.readNetwork, (r) => ipam.freeNetwork(r.networkId), empty),
    CreateNetwork: call(wire.readCreateNetwork, (r, limit) => network.createNetwork(r, limit), empty),
    DeleteNetwork: unheard(call(wire.readNetwork, (r) => network.deleteNetwork(r.networkId), empty)),
    CreateEndpoint: patient(
      call(
        wire.readCreateEndpoint,
        (r, limit) => network.createEndpoint({ ...r, limit }),
        wire.writeEndpoint,
        (r) => network.deleteEndpoint(r.networkId, r.endpointId),
      ),
      ({ networkId = '' }) => network.patienceMs(networkId),
    ),
    DeleteEndpoint: unheard(call(wire.readEndpoint, (r) => network.deleteEndpoint(r.networkId, r.endpointId), empty)),
    EndpointOperInfo: fleeting(call(wire.readEndpoint, nothing, wire.writeOperInfo)),
    // It waits for the disk itself, so that nothing comes after the last question to the LAN.
    Join: fleeting(
      call(wire.readEndpoint, (r, limit) => network.join(r.networkId, r.endpointId, limit), wire.writeAttachment),
    ),
    Leave: fleeting(unheard(call(wire.readEndpoint, (r) => network.leave(r.networkId, r.endpointId), empty))),
    // macvlan publishes nothing. Not 404, which libnetwork reads as a plugin without these calls.
    ProgramExternalConnectivity: fleeting(call(wire.readEndpoint, nothing, empty)),
    RevokeExternalConnectivity: fleeting(unheard(call(wire.readEndpoint, nothing, empty))),
    DiscoverNew: fleeting(call(wire.readDiscovery, nothing, empty)),
    DiscoverDelete: fleeting(call(wire.readDiscovery, nothing, empty)),
  };

  // Asked also for each new allocator of a swarm's leader (moby cnmallocator NewProvider).
  // RequiresRequestReplay false: our records are durable, and the engine releases a pool whose replay is refused.
  const ipamDriver = {
    GetCapabilities: constant({ RequiresMACAddress: false, RequiresRequestReplay: false }, () => ipam.register()),
    GetDefaultAddressSpaces: constant(wire.writeAddressSpaces(ipam.defaultAddressSpaces())),
    RequestPool: call(wire.readRequestPool, (r, limit) => ipam.requestPool(r, limit), wire.writePool),
    ReleasePool: fleeting(unheard(call(wire.readPool, (r) => ipam.releasePool(r.poolId), empty))),
    RequestAddress: patient(
      call(
        wire.readRequestAddress,
        async (r, limit) => ({ address: await ipam.requestAddress({ ...r, limit }) }),
        wire.writeAddress,
        (r, { address }) => giveBack(ipam, r, address),
        (r, { address }) => ipam.answerAddress({ poolId: r.poolId, address: wire.withoutLength(address) }),
      ),
      ({ poolId = '' }) => ipam.patienceMs(poolId),
    ),
    ReleaseAddress: fleeting(unheard(call(wire.readReleaseAddress, (r) => ipam.releaseAddress(r), empty))),
  };

  // Not the engine's: our own command line asks these.
  const tsmacvlan = {
    CollectLeaks: call(own.readCollection, (r) => leaks.collect(r), own.writeLeaks),
    State: prompt(
      call(
        own.readTables,
        async ({ tables }) => ({ ...(await state.read(tables)), parents: filteredParents() }),
        writeState,
      ),
    ),
    PoolUses: whenReady(async () => ({ Pools: await ipam.poolUses() })),
    ReserveAddress: call(own.readReservation, (r, limit) => ipam.reserveName({ ...r, limit }), own.writeRemembered),
    Unreserve: call(own.readUnreserve, (r) => ipam.unreserveName(r), own.writeForgotten),
    ClearConflicts: call(own.readClearance, (r) => conflicts.clear(r), own.writeCleared),
  };

  return new Map([
    ...named('Plugin', plugin),
    ...named('NetworkDriver', networkDriver),
    ...named('IpamDriver', ipamDriver),
    ...named('Tsmacvlan', tsmacvlan),
  ]);
}

async function nothing(): Promise<void> {}

/** The options come back to every node as those of CreateNetwork. */
async function allocate(network: NetworkVerbs, ipam: IpamVerbs, request: AllocationRequest) {
  await ipam.allocateNetwork(request);
  network.reviewAllocation(request);
  return request;
}

/** What was named, or was the container's before, may be its holder's; what else was chosen here was nobody's. */
async function giveBack(
  ipam: IpamVerbs,
  { poolId, address, isGateway, name }: Unlimited<AddressRequest>,
  given: string,
): Promise<void> {
  const lease = { poolId, address: wire.withoutLength(given) };
  if (address !== null || name !== null) await ipam.takeBackAddress(lease);
  else if (!isGateway) await ipam.releaseAddress(lease);
}

function named(driver: string, calls: Readonly<Record<string, Call>>): [string, Call][] {
  return Object.entries(calls).map(([verb, call]) => [`${driver}.${verb}`, call]);
}

/** A call without arguments whose answer never changes. */
function constant(reply: object, onCall = () => {}): Call {
  return atOnce(() => {
    onCall();
    return reply;
  });
}

/** A call without arguments; answered also while recovery is under way. */
function atOnce(answer: () => object): Call {
  const run = async () => ({ reply: answer(), subject: {}, answer: nothing, takeBack: nothing });
  return { hasBody: false, waits: false, isLasting: false, isUnheard: false, read: () => ({ subject: {}, run }) };
}

/** A question without arguments, answered after recovery. */
function whenReady(answer: () => Promise<object>): Call {
  const run = async () => ({ reply: await answer(), subject: {}, answer: nothing, takeBack: nothing });
  return { hasBody: false, waits: true, isLasting: false, isUnheard: false, read: () => ({ subject: {}, run }) };
}

function quiet(health: () => Promise<Health>): Call {
  const run = async () => {
    const { status, reasons } = await health();
    const reply = { Status: status, Reasons: reasons };
    const isUp = status === 'ok' || status === 'degraded';
    return { reply, status: isUp ? 200 : 503, subject: {}, answer: nothing, takeBack: nothing };
  };
  const read = () => ({ subject: {}, run });
  return { hasBody: false, waits: false, isLasting: false, isUnheard: false, isQuiet: true, read };
}

function call<Request extends object, Answer extends object | void>(
  read: (body: unknown) => Request,
  verb: (request: Request, limit: CallLimit) => Promise<Answer>,
  write: (answer: Answer) => object,
  takeBack: (request: Request, answer: Answer) => Promise<void> = nothing,
  onAnswer: (request: Request, answer: Answer) => Promise<void> = nothing,
): Call {
  const start = (request: Request): Task => ({
    subject: request,
    async run(limit) {
      const answer = await verb(request, limit);
      const subject = { ...request, ...answer };
      const [answered, back] = [() => onAnswer(request, answer), () => takeBack(request, answer)];
      return { reply: write(answer), subject, answer: answered, takeBack: back };
    },
  });
  return { hasBody: true, waits: true, isLasting: true, isUnheard: false, read: (body) => start(read(body)) };
}

/**
 * A call that changes nothing, or that only gives back: what a power cut takes of that, milliseconds later, is an address that
 * stays reserved until the collector finds it; and a pool goes with its network, whose DeleteNetwork waits.
 */
function fleeting(call: Call): Call {
  return { ...call, isLasting: false };
}

/** A call that may have to wait for a server on the LAN. */
function patient(call: Call, patienceMs: (subject: Subject) => Promise<number | null>): Call {
  const read = (body: unknown) => {
    const task = call.read(body);
    return { ...task, patienceMs: () => patienceMs(task.subject) };
  };
  return { ...call, read };
}

/** A fleeting one that is answered also while recovery is under way. */
function prompt(call: Call): Call {
  return { ...fleeting(call), waits: false };
}

/** The text of the tables goes out as it is: to parse and write ten thousand leases again would hold up every other call. */
function writeState({ schema, node, pieces, parents }: Told & { parents: string[] }): WrittenReply {
  const head = JSON.stringify({ Version: VERSION, Schema: schema, Node: node, FilteredParents: parents });
  return new WrittenReply([Buffer.from(`${head.slice(0, -1)},"Tables":`), ...pieces, Buffer.from('}')]);
}

function unheard(call: Call): Call {
  return { ...call, isUnheard: true };
}

/**
 * The managers of a swarm, as far as a plugin sees them (moby's cnmallocator and swarmkit's allocator, docs/swarm.md): one history on
 * which all agree, and one manager that leads. Its engine asks its own plugin for the addresses of all tasks, in the global space, one
 * after the other; the node of a task has its plugin give it just this address, in its own space. A new leader first claims all that is
 * in use by its address. Who led before is told nothing.
 *
 * And what may be expected of the leader's plugin: it gives no address to two tasks, grants each claim, and has in its books the
 * addresses of all tasks, and no others but those of which it could not know.
 */
import type { CallSeen, NetworkSpec } from './container.ts';
import type { Engine } from './engine.ts';
import type { Rule } from './judge.ts';
import { pause, scheduler } from './time.ts';

const SERIAL = { 'com.docker.network.ipam.serial': 'true' };
const GATEWAY_TYPE = { RequestAddressType: 'com.docker.network.gateway' };
/** The others notice that a leader is gone, and choose one of them. */
const ELECTION_MS = 12_000;
/** Until what has been agreed on is known to the node. */
const DISPATCH_MS = 100;
const CLAIM_AGAIN_MS = 2000;
const CLAIM_TRIES = 3;
/** Nothing was done to a manager for so long. */
const CALM_MS = 40_000;

interface Task {
  readonly name: string;
  readonly node: Engine;
  /** As all managers know it. */
  address: string | null;
  /** It runs no more, and its address is to be given back. */
  hasEnded: boolean;
}

/** The manager that leads, once it has claimed all that is in use. */
interface Leader {
  readonly engine: Engine;
  readonly poolId: string;
  /** The allocator does one thing after the other. */
  turn: Promise<unknown>;
}

interface Parts {
  readonly engines: readonly Engine[];
  readonly network: NetworkSpec;
  readonly violate: (rule: Rule, what: string) => void;
  /** Nothing was done to this manager, and no other one has led, for so long. */
  readonly isCalm: (engine: Engine, forMs: number) => boolean;
  /** Addresses that no task had for so long. */
  readonly freeFor: (forMs: number) => readonly string[];
  /** A node's plugin refused the address that its leader gave out. */
  readonly refused: (node: Engine, address: string, error: string) => void;
  readonly noteUse: (address: string) => void;
}

/** After that a pool with a free address gives it. */
const COLLECTED_MS = 600_000;

export class Swarm {
  readonly #parts: Parts;
  readonly #tasks: Task[] = [];
  #leader: Leader | null = null;
  #leadingEngine: Engine;
  #term = 0;
  /** What AllocateNetwork answered: the options that all nodes get. */
  #options: Record<string, string> | null = null;
  /** Nodes that make the network just now. */
  readonly #making = new Map<Engine, Promise<boolean>>();
  readonly #removing = new Map<Engine, Promise<void>>();
  /** Calls of this leader of which the plugin heard and nobody its answer, or the other way round: each may leave one address in its books. */
  #unsure = 0;

  constructor(parts: Parts) {
    this.#parts = parts;
    this.#leadingEngine = parts.engines[0] as Engine;
  }

  /** Whoever leads, or is to lead. */
  get leadingEngine(): Engine {
    return this.#leadingEngine;
  }

  // --- leaders -----------------------------------------------------------------------------------------------------

  /** The next manager after the present one that runs. */
  changeLeader(): void {
    const { engines } = this.#parts;
    const at = engines.indexOf(this.#leadingEngine);
    const next = [...engines.slice(at + 1), ...engines.slice(0, at + 1)].find(isUp);
    this.#term++;
    this.#leader = null;
    if (next === undefined) return void scheduler.world(ELECTION_MS, () => this.changeLeader());
    this.lead(next);
  }

  /** An engine was killed: when it led, another one is chosen soon. */
  lost(engine: Engine): void {
    this.#making.delete(engine);
    this.#removing.delete(engine);
    if (engine !== this.#leadingEngine) return;
    const term = ++this.#term;
    this.#leader = null;
    scheduler.world(ELECTION_MS, () => {
      if (term === this.#term) this.changeLeader();
    });
  }

  lead(engine: Engine): void {
    const term = ++this.#term;
    [this.#leadingEngine, this.#leader, this.#unsure] = [engine, null, 0];
    engine.do(async () => {
      await engine.call('NetworkDriver.GetCapabilities', null);
      await engine.call('IpamDriver.GetCapabilities', null);
      const poolId = await this.#claimNetwork(engine);
      if (poolId === null || term !== this.#term) return this.#again(engine, term);
      for (const task of [...this.#tasks]) if (task.hasEnded) this.#tasks.splice(this.#tasks.indexOf(task), 1);
      for (const task of [...this.#tasks])
        for (let tries = 0; tries < CLAIM_TRIES && term === this.#term; tries++)
          if (await this.#claim(engine, poolId, task, tries === CLAIM_TRIES - 1)) break;
          else await pause(CLAIM_AGAIN_MS);
      if (term !== this.#term) return;
      this.#leader = { engine, poolId, turn: Promise.resolve() };
      this.allocate();
    });
  }

  /** Its plugin did not answer: an allocator that fails is begun once more. */
  #again(engine: Engine, term: number): void {
    scheduler.world(ELECTION_MS, () => {
      if (term === this.#term && isUp(engine)) this.lead(engine);
    });
  }

  async #claimNetwork(engine: Engine): Promise<string | null> {
    const { network } = this.#parts;
    const [{ subnet, range, gateway, prefixLength } = NO_SUBNET] = network.subnets;
    const spaces = await engine.call('IpamDriver.GetDefaultAddressSpaces', null);
    if (!spaces.ok) return null;
    const pool = await engine.call('IpamDriver.RequestPool', {
      AddressSpace: spaces.body['GlobalDefaultAddressSpace'],
      Pool: subnet,
      SubPool: range ?? '',
      Options: SERIAL,
      V6: false,
    });
    if (!pool.ok) return null;
    const PoolID = String(pool.body['PoolID']);
    const Options = { ...GATEWAY_TYPE, ...SERIAL };
    const given = await engine.call('IpamDriver.RequestAddress', { PoolID, Address: gateway, Options });
    if (!given.ok) return null;
    const allocated = await engine.call('NetworkDriver.AllocateNetwork', {
      NetworkID: network.id,
      Options: this.#options ?? network.options,
      IPv4Data: [{ AddressSpace: '', Gateway: `${gateway}/${prefixLength}`, Pool: subnet }],
      IPv6Data: null,
    });
    if (!allocated.ok) return null;
    this.#options ??= allocated.body['Options'] as Record<string, string>;
    return PoolID;
  }

  /**
   * False when that has to be done once more: the plugin was killed in it, and got an empty body when it was back. What it had
   * answered in that very moment it refuses then: a swarm makes another task, and the address may stay in its books.
   */
  async #claim(engine: Engine, PoolID: string, task: Task, isLast: boolean): Promise<boolean> {
    const { address: Address, name } = task;
    if (Address === null) return true;
    const claimed = await engine.call('IpamDriver.RequestAddress', { PoolID, Address, Options: SERIAL });
    if (claimed.ok) return true;
    const said = `${engine.host.name} leads and was refused ${Address} of ${name}: ${claimed.error}`;
    if (claimed.isHeard && this.#parts.isCalm(engine, CALM_MS)) this.#parts.violate('progress', said);
    if (!isLast) return false;
    this.#unsure++;
    this.#fail(task);
    return true;
  }

  #fail(task: Task): void {
    const { node, name } = task;
    task.hasEnded = true;
    if (isUp(node) && node.containers.has(name) && !node.isStarting(name)) node.do(() => node.stop(name));
  }

  // --- tasks -------------------------------------------------------------------------------------------------------

  /** A task is wanted on this node. */
  start(node: Engine, name: string): void {
    if (this.#tasks.some((task) => task.name === name)) return;
    this.#tasks.push({ name, node, address: null, hasEnded: false });
    this.allocate();
  }

  stop(node: Engine, name: string): void {
    const task = this.#tasks.find((one) => one.name === name && one.node === node);
    if (task === undefined || task.hasEnded || !isUp(node)) return;
    const container = node.containers.get(name);
    if (container === undefined || container.isLeaving || node.isStarting(name)) return;
    node.do(async () => {
      await node.stop(name);
      this.#ended(task);
      await this.#removeNetwork(node);
    });
  }

  /** And those that have no address yet are wanted no more. */
  stopAll(): void {
    for (const task of [...this.#tasks]) if (task.address === null) this.#tasks.splice(this.#tasks.indexOf(task), 1);
    for (const { node, name } of [...this.#tasks]) this.stop(node, name);
  }

  /** An engine that was killed is back: it has ended what it found running. */
  nodeIsBack(node: Engine): void {
    for (const task of this.#tasks) if (task.node === node && task.address !== null) this.#ended(task);
  }

  /** What has no address gets one, and what has ended gives it back. */
  allocate(): void {
    const leader = this.#leader;
    if (leader === null || !isUp(leader.engine)) return;
    leader.engine.do(async () => {
      leader.turn = leader.turn.then(() => this.#allocateAll(leader));
      await leader.turn;
    });
  }

  async #allocateAll(leader: Leader): Promise<void> {
    for (const task of [...this.#tasks]) {
      if (leader !== this.#leader) return;
      if (!this.#tasks.includes(task)) continue;
      if (task.hasEnded) await this.#release(leader, task);
      else if (task.address === null && !(await this.#give(leader, task))) return;
    }
  }

  async #release({ engine, poolId }: Leader, task: Task): Promise<void> {
    this.#tasks.splice(this.#tasks.indexOf(task), 1);
    const released = await engine.call('IpamDriver.ReleaseAddress', { PoolID: poolId, Address: task.address });
    if (!released.ok || released.isRepeated) this.#unsure++;
    if (task.address !== null) this.#parts.noteUse(task.address);
  }

  async #give(leader: Leader, task: Task): Promise<boolean> {
    const { engine, poolId } = leader;
    const given = await engine.call('IpamDriver.RequestAddress', { PoolID: poolId, Address: '', Options: SERIAL });
    if (leader !== this.#leader) return false;
    if (!given.ok) {
      this.#judgeRefusal(engine, given.error);
      return false;
    }
    const address = String(given.body['Address']).replace(/\/.*/, '');
    if (given.isRepeated) this.#unsure++;
    const other = this.#tasks.find((one) => one.address === address);
    if (other !== undefined)
      this.#parts.violate('double', `${engine.host.name} leads and gave ${address} of ${other.name} to ${task.name}`);
    task.address = address;
    this.#parts.noteUse(address);
    scheduler.world(DISPATCH_MS, () => this.#dispatch(task));
    return true;
  }

  #judgeRefusal(engine: Engine, error: string): void {
    const free = this.#parts.freeFor(COLLECTED_MS);
    if (free.length > this.#unsure && this.#parts.isCalm(engine, CALM_MS))
      this.#parts.violate('progress', `${engine.host.name} leads and was refused “${error}” while ${free[0]} was free`);
  }

  #dispatch(task: Task): void {
    const { node, name, address } = task;
    if (task.hasEnded || !this.#tasks.includes(task)) return;
    if (!isUp(node)) return this.#ended(task);
    node.do(async () => {
      const isMade = await this.#network(node);
      const start = isMade && !task.hasEnded ? await node.start(name, this.#parts.network.id, address) : null;
      if (start?.refusal) this.#parts.refused(node, address ?? '', start.refusal);
      if (start !== null && start.refusal === null) return;
      this.#ended(task);
      await this.#removeNetwork(node);
    });
  }

  #ended(task: Task): void {
    task.hasEnded = true;
    this.allocate();
  }

  /** A node's part of the network comes with its first task and goes with its last. */
  async #network(node: Engine): Promise<boolean> {
    const { network } = this.#parts;
    await this.#removing.get(node);
    if (node.networks.has(network.id)) return true;
    const options = this.#options ?? network.options;
    const making = this.#making.get(node) ?? node.createNetwork({ ...network, options });
    this.#making.set(node, making);
    return making.finally(() => this.#making.delete(node));
  }

  async #removeNetwork(node: Engine): Promise<void> {
    const isNeeded = this.#tasks.some((task) => task.node === node && !task.hasEnded);
    if (isNeeded || node.containers.size > 0 || this.#making.has(node)) return;
    await pause(DISPATCH_MS);
    const isWantedNow = this.#tasks.some((task) => task.node === node && !task.hasEnded);
    if (isWantedNow || node.containers.size > 0) return;
    const removing = node.removeNetwork(this.#parts.network.id);
    this.#removing.set(node, removing);
    await removing;
    this.#removing.delete(node);
  }

  /** The swarm gives up its network. */
  removeNetwork(): void {
    const leader = this.#leader;
    const { network } = this.#parts;
    if (leader === null) return;
    const { engine, poolId } = leader;
    engine.do(async () => {
      await engine.call('NetworkDriver.FreeNetwork', { NetworkID: network.id });
      await engine.call('IpamDriver.ReleaseAddress', { PoolID: poolId, Address: network.subnets[0]?.gateway });
      await engine.call('IpamDriver.ReleasePool', { PoolID: poolId });
    });
  }

  // --- its books ---------------------------------------------------------------------------------------------------

  hearCall({ host, name, isRepeated, error }: CallSeen): void {
    const isLeaders = host === this.#leader?.engine.host && name === 'IpamDriver.RequestAddress';
    if (isLeaders && isRepeated && error !== null) this.#unsure++;
  }

  /**
   * Nothing has happened for long: the addresses in the books of the leader's plugin, for containers of the global space, and whether it
   * noted of each that it has answered with it.
   */
  audit(leased: (engine: Engine) => ReadonlyMap<string, boolean>): void {
    if (this.#leader === null) return;
    const { engine } = this.#leader;
    const books = leased(engine);
    const inUse = new Set(this.#tasks.flatMap(({ address }) => address ?? []));
    for (const address of inUse)
      if (!books.has(address))
        this.#parts.violate('lease', `${engine.host.name} leads and has lost ${address}, which a task has`);
    const left = [...books.keys()].filter((address) => !inUse.has(address));
    if (left.length > this.#unsure || left.some((address) => books.get(address) === false))
      this.#parts.violate('left over', `${engine.host.name} leads and still has ${left.join(', ')}, which no task has`);
  }
}

const NO_SUBNET = { subnet: '', range: null, gateway: null, prefixLength: 0 };

function isUp({ isRunning, host }: Engine): boolean {
  return isRunning && !host.isAsleep;
}

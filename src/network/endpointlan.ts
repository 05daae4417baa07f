/** What the network room wants of the LAN for its endpoints, in the words of its records. */
import { type Address, formatAddress, parsePrefix, type Prefix } from '../address.ts';
import { LatestMap } from '../bounded.ts';
import * as errors from '../errors.ts';
import type { AddressCheck, Lan, LanEndpoint } from '../lan/lan.ts';
import type { HeldVerdict, Kept, Loss, Verdict } from '../lan/verdict.ts';
import type { Log } from '../log.ts';
import {
  type ConflictPolicy,
  type Endpoint,
  type InterfaceAddress,
  type Network,
  type NetworkSubnet,
  type Segment,
  segmentOf,
} from '../model.ts';
import type { CallLimit } from '../requests.ts';
import { subnetOn } from './request.ts';
import type { Settings } from '../settings.ts';

/** What the room uses of it. */
export type LanOfEndpoints = Pick<EndpointLan, keyof EndpointLan>;

/** An address of an endpoint, and how the LAN is asked for it. */
interface Question extends AddressCheck {
  readonly address: InterfaceAddress;
  readonly endpointId: string;
  readonly macAddress: string;
  readonly networkSubnet: NetworkSubnet;
}

/** Whoever asks ahead for what other IPAMs are likely to give out; ipam/guesses.ts. */
export interface AddressGuesses {
  /** An endpoint is being made with the address, and the LAN is about to be asked for it. `isReady`: it is on standby. */
  given(network: Network, subnet: NetworkSubnet, address: InterfaceAddress, isReady: boolean): void;
  /** The endpoint is gone. */
  returned(network: Network, subnet: NetworkSubnet, address: InterfaceAddress): Promise<void>;
  /** The network is gone. */
  forget(networkId: string): void;
}

/** What of the LAN room is used here. */
type LanRoom = Pick<
  Lan,
  | 'check'
  | 'release'
  | 'insist'
  | 'confirm'
  | 'keep'
  | 'mostAtOnce'
  | 'isOnStandby'
  | 'watch'
  | 'forget'
  | 'announce'
  | 'noteLeaver'
  | 'keepLeft'
  | 'endLeft'
  | 'vacate'
>;

/** What is asked of the LAN while something else is done. */
export interface Inquiry {
  /** Rejects with ADDRESS_LOST, and with what Lan.confirm() throws. */
  readonly answer: Promise<void>;
  /** Somebody has answered by now, or the LAN cannot be asked: the answer is worth waiting for. */
  readonly isDoubtful: () => boolean;
}

/** More conflicts than this at a time are said more than once. */
const MOST_WARNINGS = 256;

/** Endpoints of isolated networks are on no LAN: for those nothing is done. */
export class EndpointLan {
  readonly #lan: LanRoom;
  readonly #guesses: AddressGuesses;
  readonly #settings: Pick<Settings, 'conflict'>;
  readonly #log: Log;
  /** Who was said to have an address with which a container starts all the same; by endpoint and address. */
  readonly #warned = new LatestMap<string, string>(MOST_WARNINGS);
  /** By endpoint id, what is asked since CreateEndpoint; until it is answered well, or the endpoint goes. */
  readonly #asked = new Map<string, { readonly answer: Promise<void>; readonly callOff: () => void }>();

  /** `settings.conflict`: the policy of networks whose `-o conflict=` says nothing. */
  constructor(lan: LanRoom, guesses: AddressGuesses, settings: Pick<Settings, 'conflict'>, log: Log) {
    this.#lan = lan;
    this.#guesses = guesses;
    this.#settings = settings;
    this.#log = log;
  }

  /**
   * Asks for what another IPAM chose, or a swarm's manager: nobody has done so yet, but for what a DHCP server gave. Throws ADDRESS_HELD unless the holder
   * gives it up before the limit, or the network's policy is to warn; what this host itself has would go off the LAN, and is
   * refused with either policy. Throws also what Lan.check() throws.
   */
  async check(network: Network, endpoint: Endpoint, limit: CallLimit): Promise<void> {
    if (network.options.source === 'dhcp') return;
    const questions = questionsOf(network, endpoint, limit).filter(({ networkSubnet }) => networkSubnet.realm === null);
    for (const question of questions)
      this.#guesses.given(network, question.networkSubnet, question.address, this.#lan.isOnStandby(question));
    await Promise.all(questions.map((question) => this.#check(network, question, limit)));
  }

  /**
   * Asks once more for all of them, without waiting: confirm() has the answer too, whenever it comes.
   */
  ask(network: Network, endpoint: Endpoint, limit: CallLimit): Inquiry {
    const { id } = endpoint;
    let isDoubtful = false;
    const doubt = () => {
      isDoubtful = true;
    };
    const controller = new AbortController();
    const signal = AbortSignal.any([limit.signal, controller.signal]);
    const answer = this.#confirmAll(network, endpoint, { ...limit, signal }, doubt);
    const asked = { answer, callOff: () => controller.abort() };
    this.#asked.set(id, asked);
    answer.then(() => this.#asked.get(id) === asked && this.#asked.delete(id), doubt);
    return { answer, isDoubtful: () => isDoubtful };
  }

  /** Who answers at the address, a gateway's; asked also where containers' addresses are not. Throws as Lan.check() does. */
  async whoIsAt(segment: Segment, address: Address, subnet: Prefix): Promise<Verdict> {
    const request = { ...segment, address, subnet, leastProfile: 'fast' as const, isGuess: true };
    const verdict = await this.#lan.check(request);
    // A router that comes up now must not find its own address defended.
    if (!verdict.held) this.#lan.release(request);
    return verdict;
  }

  /** Calls off what ask() asks; nobody will hear the answer. */
  close(): void {
    for (const { callOff } of this.#asked.values()) callOff();
    this.#asked.clear();
  }

  /** Asks for the last time, some milliseconds before the container has its addresses. Throws ADDRESS_LOST. */
  async confirm(network: Network, endpoint: Endpoint, limit: CallLimit): Promise<void> {
    await Promise.all([this.#asked.get(endpoint.id)?.answer, this.#confirmAll(network, endpoint, limit, null)]);
  }

  /** `doubt`: told when somebody has one; null when nobody asks again before the container has them. */
  async #confirmAll(network: Network, endpoint: Endpoint, limit: CallLimit, doubt: (() => void) | null): Promise<void> {
    const isLast = doubt === null;
    const questions = questionsOf(network, endpoint, limit).map((question) => ({ ...question, isLast }));
    await Promise.all(questions.map((question) => this.#confirm(network, question, limit, doubt)));
  }

  async #check(network: Network, question: Question, limit: CallLimit): Promise<void> {
    const isFirm = this.#policyOf(network) === 'refuse';
    const refusal = (holder: HeldVerdict) => {
      const held = holder.isOnHost ? errors.addressOfferedHere : errors.addressOffered;
      return sentenceOf(holder.simultaneous ? errors.addressWanted : held, question, holder);
    };
    const verdict = await (isFirm ? this.#lan.insist(question, limit, refusal) : this.#lan.check(question));
    if (verdict.held && (isFirm || verdict.isOnHost)) throw refusal(verdict);
    if (verdict.held) this.#warn(network, question, verdict);
  }

  async #confirm(
    network: Network,
    question: Question & { isLast: boolean },
    limit: CallLimit,
    doubt: (() => void) | null,
  ): Promise<void> {
    const first = await this.#lan.confirm(question);
    if (!first.held) return;
    doubt?.();
    if (this.#policyOf(network) === 'warn' && !first.isOnHost) return this.#warn(network, question, first);
    const refusal = (holder: HeldVerdict) => sentenceOf(errors.addressLost, question, holder);
    limit.ifLate(refusal(first));
    const verdict = first.isOnHost ? first : await this.#lan.insist(question, limit, refusal);
    if (verdict.held) throw refusal(verdict);
    limit.ifLate(null);
  }

  #policyOf({ options }: Network): ConflictPolicy {
    return options.conflict ?? this.#settings.conflict;
  }

  /** Once for each start, in which it is found out two or three times. */
  #warn({ id }: Network, question: Question, { macAddress: by, linkName }: HeldVerdict): void {
    const address = formatAddress(question.address);
    const key = `${question.endpointId} ${address}`;
    if (this.#warned.get(key) === by) return;
    this.#warned.put(key, by);
    const network = errors.short(id);
    this.#log.warn('a container starts although somebody else has its address', { address, by, on: linkName, network });
  }

  /** Watches over the endpoint's addresses until forget(). */
  watch(endpoint: Endpoint, network: Network): void {
    const there = onLan(endpoint, network);
    if (there !== null) this.#lan.watch(there);
  }

  /** The endpoint goes: its addresses are not watched over any more. */
  forget({ id }: Pick<Endpoint, 'id'>): void {
    this.#asked.get(id)?.callOff();
    this.#asked.delete(id);
    this.#lan.forget(id);
  }

  /** See Lan.announce(). */
  async announce(endpoint: Endpoint, network: Network, signal: AbortSignal): Promise<void> {
    const there = onLan(endpoint, network);
    if (there !== null) await this.#lan.announce(there, network.options.announcements ?? {}, signal);
  }

  /** See Lan.keep(); null as well for an address that lies in no subnet of the network, and on no LAN. */
  async keep(
    network: Network,
    address: InterfaceAddress,
    lost: (loss: Loss) => void,
    signal: AbortSignal,
  ): Promise<Kept | Loss | null> {
    const segment = segmentOf(network);
    const subnet = parsePrefix(subnetOn(network, address)?.subnet ?? '');
    if (segment === null || subnet === undefined) return null;
    return this.#lan.keep({ ...segment, address, subnet, signal }, lost);
  }

  /** See Lan.mostAtOnce. */
  get mostAtOnce(): number {
    return this.#lan.mostAtOnce;
  }

  /** See Lan.noteLeaver(). */
  async noteLeaver(endpoint: Endpoint, network: Network): Promise<void> {
    const there = onLan(endpoint, network);
    if (there !== null) await this.#lan.noteLeaver(there);
  }

  /** See Lan.keepLeft(). */
  async keepLeft(endpoint: Endpoint, network: Network): Promise<void> {
    const there = onLan(endpoint, network);
    if (there !== null) await this.#lan.keepLeft(there);
  }

  /** The endpoint is gone: what another IPAM chose for it may be given again. Nobody has to wait for what this resolves to. */
  async returned({ addresses }: Endpoint, network: Network): Promise<void> {
    if (network.options.source === 'dhcp') return;
    for (const address of addresses) {
      const subnet = subnetOn(network, address);
      if (subnet?.realm === null) await this.#guesses.returned(network, subnet, address);
    }
  }

  /** The network is gone: nobody comes back for the addresses that its containers left, or comes for those guessed. */
  endLeft({ id, parent, subnets }: Network): void {
    this.#guesses.forget(id);
    this.#lan.endLeft(
      parent.name,
      subnets.flatMap(({ subnet }) => parsePrefix(subnet) ?? []),
    );
  }

  /** Makes room for a child in passthru mode, which must be alone on its parent. */
  async vacate(parentName: string): Promise<void> {
    await this.#lan.vacate(parentName);
  }
}

/** What lies in no subnet of the network was refused before. */
function questionsOf(network: Network, endpoint: Endpoint, limit: CallLimit): Question[] {
  const segment = segmentOf(network);
  if (segment === null) return [];
  const { id: endpointId, macAddress, addresses } = endpoint;
  return addresses.flatMap((address) => {
    const networkSubnet = subnetOn(network, address);
    const subnet = networkSubnet && parsePrefix(networkSubnet.subnet);
    if (networkSubnet === undefined || subnet === undefined) return [];
    return [{ ...segment, ...limit, endpointId, macAddress, address, subnet, networkSubnet }];
  });
}

type Sentence = (address: string, macAddress: string, link: string, option: string) => errors.PluginError;

function sentenceOf(sentence: Sentence, question: Question, { macAddress, linkName }: HeldVerdict): errors.PluginError {
  return sentence(formatAddress(question.address), macAddress, linkName, optionOf(question));
}

function optionOf({ address }: Question): string {
  return address.family === 'IPv4' ? '--ip' : '--ip6';
}

function onLan({ id, macAddress, addresses }: Endpoint, network: Network): LanEndpoint | null {
  const segment = segmentOf(network);
  return segment && { ...segment, id, macAddress, addresses };
}

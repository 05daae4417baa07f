/**
 * The wire to the kernel in words: each rtnetlink request with its answer in one line, for LOG_NETLINK=on.
 *
 *     newlink +create +excl name tsm0123 group 1610612736 on 3(eth0) kind macvlan mode bridge mac 02:42:0a:09:00:02 → ok
 *     setlink 7(tsm0123) +up → EADDRINUSE
 *     getlink mask 8 dump → 12 messages
 *
 * Attributes stand in the order in which they were sent, by their names in uapi.ts; what has no name there is told by its
 * number and length in requests, and left out of answers, since a link has some sixty. Whatever bytes are shown, a line
 * comes out and nothing is thrown; control characters in names are escaped.
 */
import { formatAddress, formatMac } from '../address.ts';
import { LatestMap } from '../bounded.ts';
import { quote } from '../errors.ts';
import { KernelError } from './errno.ts';
import * as message from './message.ts';
import {
  type Answer,
  type Attribute,
  type Message,
  NLM_F_CREATE,
  NLM_F_EXCL,
  type Request,
  decodeAttributes,
  decodeText,
} from './netlink.ts';
import * as neighbour from './neighbour.ts';
import * as nsid from './nsid.ts';
import { IFA, IFLA, IFLA_INFO, IFLA_MACVLAN, IFLA_VLAN, NDA, NETNSA, RTA } from './uapi.ts';

/** Names of links that are remembered, because most messages only have their index. */
const MOST_NAMES = 1024;

/** What an attribute's value is in words. It may throw for a value that is too short. */
type Reader = (value: Buffer, context: Context) => string;
/** An attribute's name, and how its value is read; `''` where the value says enough. */
type Fields = Readonly<Record<number, readonly [name: string, read: Reader]>>;

interface Context {
  /** A link's index with its name, where that is known. */
  readonly link: (index: number) => string;
  /** Also attributes without a name here: in requests, which are ours. */
  readonly all: boolean;
}

const u8: Reader = (value) => String(value.readUInt8());
const u16: Reader = (value) => String(value.readUInt16LE());
const u32: Reader = (value) => String(value.readUInt32LE());
const i32: Reader = (value) => String(value.readInt32LE());
const ethertype: Reader = (value) => `0x${value.readUInt16BE().toString(16).padStart(4, '0')}`;
const link: Reader = (value, context) => context.link(value.readInt32LE());
const mac: Reader = (value) => formatMac(value) || 'none';
const text: Reader = (value) => plain(decodeText(value));
const mode: Reader = (value) => message.MACVLAN_MODES[value.readUInt32LE()] ?? u32(value, PLAIN);
const ip: Reader = (value) => {
  if (value.length !== 4 && value.length !== 16) return bytes(value, PLAIN);
  const family = value.length === 4 ? 'IPv4' : 'IPv6';
  return formatAddress({ family, value: BigInt(`0x${value.toString('hex')}`) });
};
const bytes: Reader = (value) => (value.length > 16 ? `${value.length} bytes` : value.toString('hex') || 'empty');
/** Attributes within an attribute. */
const within =
  (fields: Fields): Reader =>
  (value, context) =>
    readFields(decodeAttributes(value), fields, context).join(' ');

const PLAIN: Context = { link: String, all: true };
const MACVLAN: Fields = { [IFLA_MACVLAN.MODE]: ['mode', mode], [IFLA_MACVLAN.BC_QUEUE_LEN]: ['bc_queue_len', u32] };
const VLAN: Fields = { [IFLA_VLAN.ID]: ['id', u16], [IFLA_VLAN.PROTOCOL]: ['protocol', ethertype] };
const KINDS: Readonly<Record<string, Fields>> = { macvlan: MACVLAN, vlan: VLAN };
/** AF_INET and AF_INET6, and within them IFLA_INET_CONF with values of linux/ip.h, and IFLA_INET6_ADDR_GEN_MODE. */
const CONFIG: Fields = {
  [message.IPV4_DEVCONF_ARP_FILTER]: ['arp_filter', u32],
  [message.IPV4_DEVCONF_ARP_ANNOUNCE]: ['arp_announce', u32],
};
const FAMILIES: Fields = {
  2: ['inet', within({ 1: ['conf', within(CONFIG)] })],
  10: ['inet6', within({ 8: ['addr_gen_mode', u8] })],
};

const info: Reader = (value, context) => {
  const attributes = decodeAttributes(value);
  const kind = decodeText(attributes.find(({ type }) => type === IFLA_INFO.KIND)?.value ?? Buffer.alloc(0));
  const fields: Fields = {
    [IFLA_INFO.KIND]: ['kind', text],
    [IFLA_INFO.DATA]: ['', KINDS[kind] === undefined ? bytes : within(KINDS[kind])],
    [IFLA_INFO.SLAVE_KIND]: ['slave_kind', text],
  };
  return readFields(attributes, fields, context).join(' ');
};

const LINK: Fields = {
  [IFLA.ADDRESS]: ['mac', mac],
  [IFLA.IFNAME]: ['name', text],
  [IFLA.MTU]: ['mtu', u32],
  [IFLA.LINK]: ['on', link],
  [IFLA.MASTER]: ['master', link],
  [IFLA.LINKINFO]: ['', info],
  [IFLA.IFALIAS]: ['alias', text],
  [IFLA.AF_SPEC]: ['', within(FAMILIES)],
  [IFLA.GROUP]: ['group', u32],
  [IFLA.EXT_MASK]: ['mask', u32],
  [IFLA.LINK_NETNSID]: ['parent_netns', i32],
  [IFLA.TARGET_NETNSID]: ['netns', i32],
  [IFLA.ALT_IFNAME]: ['alternative_name', text],
  [IFLA.PROP_LIST]: ['', within({ [IFLA.ALT_IFNAME]: ['alternative_name', text] })],
};
/** In answers a link's family settings are long and say nothing that is asked here. */
const LINK_SHOWN: Fields = Object.fromEntries(Object.entries(LINK).filter(([type]) => Number(type) !== IFLA.AF_SPEC));
const ADDRESS: Fields = {
  [IFA.ADDRESS]: ['address', ip],
  [IFA.LOCAL]: ['local', ip],
  [IFA.FLAGS]: ['flags', u32],
  [IFA.TARGET_NETNSID]: ['netns', i32],
};
const ROUTE: Fields = {
  [RTA.DST]: ['to', ip],
  [RTA.OIF]: ['on', link],
  [RTA.GATEWAY]: ['via', ip],
  [RTA.PREFSRC]: ['from', ip],
  [RTA.TABLE]: ['table', u32],
};
const NEIGHBOUR: Fields = { [NDA.DST]: ['address', ip], [NDA.LLADDR]: ['mac', mac] };
const NAMESPACE: Fields = { [NETNSA.NSID]: ['netns', i32], [NETNSA.FD]: ['fd', u32] };

/** A message's name, what its fixed body says, how long that is, and its attributes in requests and in answers. */
interface Kind {
  readonly name: string;
  readonly size: number;
  readonly head: (body: Buffer, context: Context) => string[];
  readonly sent: Fields;
  readonly shown: Fields;
}

const FLAGS: Readonly<Record<number, string>> = {
  [message.IFF_UP]: 'up',
  [message.IFF_NOARP]: 'noarp',
  [message.IFF_PROMISC]: 'promisc',
};

/** struct ifinfomsg: a flag stands with + or - when a request changes it, and with its name alone when it is told. */
function linkHead(body: Buffer, { link, all }: Context): string[] {
  const [index, flags, change] = [body.readInt32LE(4), body.readUInt32LE(8), all ? body.readUInt32LE(12) : 0];
  const words = Object.entries(FLAGS).flatMap(([bit, name]) => {
    const isOn = (flags & Number(bit)) !== 0;
    if ((change & Number(bit)) !== 0) return `${isOn ? '+' : '-'}${name}`;
    return isOn ? name : [];
  });
  return [...(index === 0 ? [] : [link(index)]), ...words];
}

/** struct ifaddrmsg. A dump has only zeros. */
function addressHead(body: Buffer, { link }: Context): string[] {
  const index = body.readInt32LE(4);
  return index === 0 ? [] : [`on ${link(index)} length ${body.readUInt8(1)}`];
}

/** struct rtmsg. */
function routeHead(body: Buffer): string[] {
  return body.readUInt8() === 0 ? [] : [`length ${body.readUInt8(1)}`];
}

/** struct ndmsg. A dump has only the family. */
function neighbourHead(body: Buffer, { link }: Context): string[] {
  const [index, state] = [body.readInt32LE(4), neighbour.NEIGHBOUR_STATES[body.readUInt16LE(8)]];
  return [...(index === 0 ? [] : [`on ${link(index)}`]), ...(state === undefined ? [] : [state])];
}

const ofLink = { size: 16, head: linkHead, sent: LINK, shown: LINK_SHOWN };
const ofAddress = { size: 8, head: addressHead, sent: ADDRESS, shown: ADDRESS };
const ofRoute = { size: 12, head: routeHead, sent: ROUTE, shown: ROUTE };
const ofNeighbour = { size: neighbour.NEIGHBOUR_BODY_SIZE, head: neighbourHead, sent: NEIGHBOUR, shown: NEIGHBOUR };
const ofNamespace = { size: 4, head: () => [], sent: NAMESPACE, shown: NAMESPACE };
const MESSAGES: Readonly<Record<number, Kind>> = {
  [message.RTM_NEWLINK]: { name: 'newlink', ...ofLink },
  [message.RTM_DELLINK]: { name: 'dellink', ...ofLink },
  [message.RTM_GETLINK]: { name: 'getlink', ...ofLink },
  [message.RTM_SETLINK]: { name: 'setlink', ...ofLink },
  [message.RTM_NEWADDR]: { name: 'newaddr', ...ofAddress },
  [message.RTM_DELADDR]: { name: 'deladdr', ...ofAddress },
  [message.RTM_GETADDR]: { name: 'getaddr', ...ofAddress },
  [message.RTM_NEWROUTE]: { name: 'newroute', ...ofRoute },
  [message.RTM_DELROUTE]: { name: 'delroute', ...ofRoute },
  [message.RTM_GETROUTE]: { name: 'getroute', ...ofRoute },
  [neighbour.RTM_NEWNEIGH]: { name: 'newneigh', ...ofNeighbour },
  [neighbour.RTM_GETNEIGH]: { name: 'getneigh', ...ofNeighbour },
  [nsid.RTM_NEWNSID]: { name: 'newnsid', ...ofNamespace },
  [nsid.RTM_GETNSID]: { name: 'getnsid', ...ofNamespace },
};

/** What every socket of the kernel room tells of its exchanges, when somebody wants to read it. */
export class NetlinkTrace {
  readonly #tell: (line: string) => void;
  readonly #names = new LatestMap<number, string>(MOST_NAMES);

  /** `tell` gets one line for each exchange and each event. */
  constructor(tell: (line: string) => void) {
    this.#tell = tell;
  }

  /** Passes the answers on, one to each request, and tells of each pair. */
  async batch(requests: readonly Request[], exchange: Promise<Answer[]>): Promise<Answer[]> {
    const answers = await this.#orFailure(requests, exchange);
    requests.forEach((request, position) => this.#tell(`${this.request(request)} → ${this.answer(answers[position])}`));
    return answers;
  }

  /** Passes the values of a dump on, undefined when the list changed meanwhile, and tells how many messages there were. */
  async dump<T>(request: Request, exchange: Promise<T[] | undefined>): Promise<T[] | undefined> {
    const values = await this.#orFailure([request], exchange);
    const outcome = values === undefined ? 'changed meanwhile' : `${values.length} messages`;
    this.#tell(`${this.request(request)} dump → ${outcome}`);
    return values;
  }

  /** What the kernel announced by itself. */
  event(event: Message): void {
    this.#tell(`event ${this.#shown(event)}`);
  }

  /** Remembers the name of the link that a message describes. */
  learn({ type, body }: Pick<Message, 'type' | 'body'>): void {
    if (type !== message.RTM_NEWLINK || body.length < ofLink.size) return;
    const attributes = attributesOf(body, ofLink.size);
    const name = attributes.find((one) => one.type === IFLA.IFNAME)?.value;
    // An index of another namespace means another link.
    const isElsewhere = attributes.some((one) => one.type === IFLA.TARGET_NETNSID);
    if (name !== undefined && !isElsewhere) this.#names.put(body.readInt32LE(4), plain(decodeText(name)));
  }

  /** `3(eth0)`; the index alone while no message has named the link. */
  link(index: number): string {
    const name = this.#names.get(index);
    return name === undefined ? String(index) : `${index}(${name})`;
  }

  /** One request in words. */
  request({ type, flags, body }: Request): string {
    const words = [
      ...((flags & NLM_F_CREATE) !== 0 ? ['+create'] : []),
      ...((flags & NLM_F_EXCL) !== 0 ? ['+excl'] : []),
    ];
    return this.#words(type, body, true, words);
  }

  /** The kernel's answer in words: `ok`, a refusal with its text, or the messages that it sent. */
  answer(answer: Answer | undefined): string {
    if (answer === undefined) return 'no answer';
    if (answer.error !== null) return failure(answer.error);
    return answer.messages.length === 0 ? 'ok' : answer.messages.map((one) => this.#shown(one)).join(', ');
  }

  #shown(shown: Message): string {
    this.learn(shown);
    return this.#words(shown.type, shown.body, false, []);
  }

  #words(type: number, body: Buffer, isSent: boolean, flags: readonly string[]): string {
    const kind = MESSAGES[type];
    if (kind === undefined || body.length < kind.size) return `message ${type} of ${body.length} bytes`;
    const attributes = attributesOf(body, kind.size);
    const has = (one: number) => kind.sent === LINK && attributes.some((attribute) => attribute.type === one);
    const [ours, theirs] = [(index: number) => this.link(index), String];
    // Of another namespace is the whole link, or only the one that it is on.
    const head = { link: has(IFLA.TARGET_NETNSID) ? theirs : ours, all: isSent };
    const context = { link: has(IFLA.LINK_NETNSID) ? theirs : head.link, all: isSent };
    const fields = readFields(attributes, isSent ? kind.sent : kind.shown, context);
    return [kind.name, ...kind.head(body, head), ...flags, ...fields].join(' ');
  }

  async #orFailure<T>(requests: readonly Request[], exchange: Promise<T>): Promise<T> {
    try {
      return await exchange;
    } catch (error) {
      for (const request of requests) this.#tell(`${this.request(request)} → ${failure(error)}`);
      throw error;
    }
  }
}

function failure(error: unknown): string {
  if (!(error instanceof KernelError)) return quote(String(error));
  return error.detail === null ? error.code : `${error.code} ${quote(error.detail)}`;
}

/** None where the bytes are no list of attributes. */
function attributesOf(body: Buffer, offset: number): Attribute[] {
  try {
    return decodeAttributes(body, offset);
  } catch {
    return [];
  }
}

function readFields(attributes: readonly Attribute[], fields: Fields, context: Context): string[] {
  return attributes.flatMap(({ type, value }) => {
    const field = fields[type];
    if (field === undefined) return context.all ? `attribute_${type} ${bytes(value, context)}` : [];
    const [name, read] = field;
    const words = readOr(read, value, context);
    return name === '' ? words : `${name} ${words}`;
  });
}

/** A value that its reader cannot make sense of is shown as it is. */
function readOr(read: Reader, value: Buffer, context: Context): string {
  try {
    return read(value, context);
  } catch {
    return bytes(value, context);
  }
}

/** Quoted and escaped unless it is a plain word. */
function plain(word: string): string {
  return /^[\w.:@/-]+$/.test(word) ? word : quote(word);
}

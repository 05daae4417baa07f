/**
 * A DHCP server whose every word a test decides: one packet socket on a machine of its own. Left alone it gives one address to whoever
 * asks; its lies are those that a rogue or broken server tells.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import { addressFromBytes, formatAddress, formatMac } from '../../src/address.ts';
import { accept, assemble, drop, ifEqual, loadByte, loadHalf } from '../../src/kernel/bpf.ts';
import { PacketSocket } from '../../src/kernel/packet.ts';
import { decodeUdp, encodeUdp } from '../../src/lan/frames/udp.ts';
import { type AnswerSpec, answerData, bytesOf, ip, option, seconds } from '../unit/lan/frames/dhcpanswers.ts';
import { type Lan, Namespace } from './namespace.ts';
import { hearAll } from './neighbour.ts';
import { inNamespace } from './thread.ts';

export interface HeardRequest {
  readonly type: 'DISCOVER' | 'REQUEST' | 'DECLINE' | 'RELEASE';
  readonly xid: number;
  /** The client's, by the message itself; the frame came from sourceMac. */
  readonly macAddress: string;
  readonly sourceMac: string;
  readonly destinationMac: string;
  /** What the client has, `0.0.0.0` for nothing. */
  readonly clientAddress: string;
  /** Options 50, 54 and 12. */
  readonly wish: string | null;
  readonly server: string | null;
  readonly hostname: string | null;
  /** performance.now. */
  readonly atMs: number;
}

/** What is said to a request. */
export type Behaviour = (request: HeardRequest, server: RogueServer) => void;

const TYPES: Readonly<Record<number, HeardRequest['type']>> = {
  1: 'DISCOVER',
  3: 'REQUEST',
  4: 'DECLINE',
  7: 'RELEASE',
};
const [OFFER, ACK, NAK] = [2, 5, 6];
const SERVER_PORT = 67;
const LEASE_SECONDS = 120;
const EVERYBODY = 'ff:ff:ff:ff:ff:ff';
/** IPv4 without options, UDP to port 67. */
const REQUESTS = assemble([
  ...[loadHalf(12), ifEqual(0x0800, undefined, 'drop'), loadByte(14), ifEqual(0x45, undefined, 'drop')],
  ...[loadByte(23), ifEqual(17, undefined, 'drop'), loadHalf(36), ifEqual(SERVER_PORT, undefined, 'drop')],
  ...[accept, 'drop', drop],
]);

export class RogueServer {
  readonly namespace: Namespace;
  readonly macAddress: string;
  readonly address: string;
  readonly heard: HeardRequest[] = [];
  /** The address that it gives. */
  gives: string;
  behave: Behaviour = honest;
  readonly #socket: PacketSocket;

  private constructor(namespace: Namespace, macAddress: string, address: string, socket: PacketSocket) {
    this.namespace = namespace;
    this.macAddress = macAddress;
    this.address = address;
    this.gives = address;
    this.#socket = socket;
    hearAll(socket, () => this.#drain());
  }

  /** Its kernel has the address, `10.77.0.1`, of a subnet of 24 bits. */
  static async plug(lan: Lan, name: string, macAddress: string, address: string): Promise<RogueServer> {
    const namespace = await Namespace.create(name);
    await lan.plug(namespace);
    await namespace.ip(`link set lan0 address ${macAddress}`);
    await namespace.ip(`address add ${address}/24 dev lan0`);
    const [link] = await namespace.show<{ ifindex: number }>('link show lan0');
    const spec = { linkIndex: link?.ifindex ?? 0, filter: REQUESTS, ignoreOutgoing: true };
    const socket = inNamespace(name, () => PacketSocket.open(spec));
    return new RogueServer(namespace, macAddress, address, socket);
  }

  /** As it was at first. */
  reset(): void {
    this.heard.length = 0;
    this.behave = honest;
  }

  close(): void {
    this.#socket.close();
  }

  /** What an honest server answers, but for what the test wants else. */
  answer(request: HeardRequest, type: number, change: Partial<AnswerSpec> = {}): Buffer {
    const terms = [
      [1, bytesOf('255.255.255.0')],
      [3, bytesOf(this.address)],
      [51, seconds(LEASE_SECONDS)],
    ] as const;
    return answerData({
      type,
      xid: request.xid,
      macAddress: request.macAddress,
      server: this.address,
      ...(type === NAK ? {} : { address: this.gives, options: terms }),
      ...change,
    });
  }

  /** Sends what follows the UDP header, to all unless told otherwise. */
  send(data: Buffer, destinationMac = EVERYBODY): void {
    this.#socket.send(
      encodeUdp({
        destinationMac,
        sourceMac: this.macAddress,
        source: ip(this.address),
        destination: ip('255.255.255.255'),
        sourcePort: SERVER_PORT,
        destinationPort: 68,
        data,
      }),
    );
  }

  #drain(): void {
    for (const { frame } of this.#socket.receive()) {
      const request = readRequest(frame);
      if (request === undefined) continue;
      this.heard.push(request);
      this.behave(request, this);
    }
  }
}

// --- how it behaves -------------------------------------------------------------------------------------------------

/** The type that an honest server answers with; undefined where it is silent. */
function typeFor(request: HeardRequest, server: RogueServer): number | undefined {
  if (request.type === 'DISCOVER') return OFFER;
  const isMeant = request.server === null || request.server === server.address;
  return request.type === 'REQUEST' && isMeant ? ACK : undefined;
}

/** Says it in another way than all at once to everybody. */
function answering(say: (data: Buffer, request: HeardRequest, server: RogueServer) => void): Behaviour {
  return (request, server) => {
    const type = typeFor(request, server);
    if (type !== undefined) say(server.answer(request, type), request, server);
  };
}

export const honest = answering((data, _, server) => server.send(data));

/** As kea does: to the MAC address that the request came from, whatever the broadcast flag says. */
export const unicast = answering((data, request, server) => server.send(data, request.sourceMac));

/** As one that asks first whether somebody has the address: the offer comes so much later. */
export function late(ms: number): Behaviour {
  return (request, server) => {
    if (request.type !== 'DISCOVER') return honest(request, server);
    const offer = server.answer(request, OFFER);
    void sleep(ms, undefined, { ref: false }).then(() => server.send(offer));
  };
}

/** Offers, and takes its word back. */
export const refusing: Behaviour = (request, server) => {
  if (request.type === 'DISCOVER') server.send(server.answer(request, OFFER));
  if (request.type === 'REQUEST')
    server.send(server.answer(request, NAK, { options: [[56, Buffer.from('no lease for you')]] }));
};

/** As a server without an address left: NAK to what is asked of it, and no offer. */
export const empty: Behaviour = (request, server) => {
  if (request.type === 'REQUEST') server.send(server.answer(request, NAK));
};

/** So many offers to each DISCOVER, each of another address of the subnet and of another server, and nothing else. */
export function flooding(offers: number): Behaviour {
  return (request, server) => {
    if (request.type !== 'DISCOVER') return;
    for (let number = 0; number < offers; number++) {
      const [high, low] = [number >> 8, number & 255];
      server.send(server.answer(request, OFFER, { address: `10.78.${high}.${low}`, server: `10.79.${high}.${low}` }));
    }
  };
}

/** Before the honest answer it says each of these. */
function lying(lies: (request: HeardRequest, type: number, server: RogueServer) => readonly Buffer[]): Behaviour {
  return (request, server) => {
    const type = typeFor(request, server);
    if (type === undefined) return;
    for (const lie of lies(request, type, server)) server.send(lie);
    server.send(server.answer(request, type));
  };
}

const WRONG = '10.66.6.6';

/** Each tells of an address that nobody may take, since it is the answer to nobody's question or no answer at all. */
export const LIES: Readonly<Record<string, Behaviour>> = {
  'the answer to another question': lying((request, type, server) => [
    server.answer(request, type, { address: WRONG, xid: (request.xid ^ 1) >>> 0 }),
  ]),
  'the answer to another client': lying((request, type, server) => [
    server.answer(request, type, { address: WRONG, macAddress: '02:00:5e:10:00:66' }),
  ]),
  'an answer cut off anywhere': lying((request, type, server) => {
    const whole = server.answer(request, type, { address: WRONG });
    // What is left without its last byte says all the same.
    return Array.from({ length: whole.length - 1 }, (_, length) => whole.subarray(0, length));
  }),
  'options that are longer than the message': lying((request, type, server) =>
    [Buffer.of(51, 200, 1), Buffer.of(51), Buffer.of(12, 255, 65)].map((lie) =>
      server.answer(request, type, { address: WRONG, rawOptions: Buffer.concat([beginning(type), lie]) }),
    ),
  ),
  'fields that name each other for their options': lying((request, type, server) => {
    const round = Buffer.concat([option(52, [3]), option(51, [])]);
    const rawOptions = Buffer.concat([option(53, [type]), option(52, [3]), Buffer.of(255)]);
    return [server.answer(request, type, { address: WRONG, rawOptions, bootFile: round, serverName: round })];
  }),
  'addresses that no host has': lying((request, type, server) =>
    ['0.0.0.0', '127.0.0.1', '224.0.0.1', '255.255.255.255'].map((address) =>
      server.answer(request, type, { address }),
    ),
  ),
  'a lease that is over when it begins': lying((request, type, server) => [
    server.answer(request, type, { address: WRONG, options: [[51, seconds(0)]] }),
  ]),
};

function beginning(type: number): Buffer {
  return Buffer.concat([option(53, [type]), option(51, seconds(LEASE_SECONDS))]);
}

// --- what it hears --------------------------------------------------------------------------------------------------

function readRequest(frame: Buffer): HeardRequest | undefined {
  const datagram = decodeUdp(frame);
  if (datagram === undefined || datagram.data.length < 241) return undefined;
  const { data, sourceMac, destinationMac } = datagram;
  const options = readOptions(data);
  const type = TYPES[options.get(53)?.[0] ?? 0];
  if (type === undefined) return undefined;
  const addressIn = (code: number) => {
    const value = options.get(code);
    return value === undefined ? null : formatAddress(addressFromBytes(value));
  };
  return {
    type,
    xid: data.readUInt32BE(4),
    macAddress: formatMac(data.subarray(28, 34)),
    sourceMac,
    destinationMac,
    clientAddress: formatAddress(addressFromBytes(data.subarray(12, 16))),
    wish: addressIn(50),
    server: addressIn(54),
    hostname: options.get(12)?.toString() ?? null,
    atMs: performance.now(),
  };
}

function readOptions(data: Buffer): Map<number, Buffer> {
  const options = new Map<number, Buffer>();
  for (let at = 240; at + 1 < data.length && data[at] !== 255; ) {
    const length = data.readUInt8(at + 1);
    options.set(data.readUInt8(at), data.subarray(at + 2, at + 2 + length));
    at += 2 + length;
  }
  return options;
}

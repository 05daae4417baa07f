/** An imagined LAN with DHCP servers in imagined time. What is real is the client under test. */
import type { Clock } from '../../../../src/clock.ts';
import type { DhcpWire } from '../../../../src/lan/dhcp/question.ts';
import { type DhcpAnswer, decodeDhcp } from '../../../../src/lan/frames/dhcp.ts';
import { decodeUdp } from '../../../../src/lan/frames/udp.ts';
import { type AnswerSpec, answerFrame, bytesOf, seconds } from '../frames/dhcpanswers.ts';
import type { World } from '../imagined.ts';

/** What a client said, as a server reads it. */
export interface Heard {
  readonly atMs: number;
  readonly type: 'DISCOVER' | 'REQUEST' | 'DECLINE' | 'RELEASE';
  readonly xid: number;
  readonly macAddress: string;
  /** 50, else ciaddr; '' for neither. */
  readonly address: string;
  /** 54; '' for none. */
  readonly server: string;
  readonly isBroadcast: boolean;
}

/** Answers a message, or not. */
export type Server = (heard: Heard, lan: ImaginedLan) => void;

const TYPES = new Map([
  ['01', 'DISCOVER'],
  ['03', 'REQUEST'],
  ['04', 'DECLINE'],
  ['07', 'RELEASE'],
] as const);

/** A wire without loss and delay but for those of its servers. */
export class ImaginedLan implements DhcpWire {
  readonly world: World;
  readonly clock: Clock;
  readonly heard: Heard[] = [];
  readonly #servers: readonly Server[];
  readonly #listeners = new Set<{ macAddress: string; xid: number; hear: (answer: DhcpAnswer) => void }>();

  constructor(world: World, servers: readonly Server[]) {
    this.world = world;
    this.#servers = servers;
    this.clock = { nowMs: () => world.nowMs, after: (delayMs, run) => world.at(world.nowMs + delayMs, run) };
  }

  send(frame: Buffer): void {
    const heard = readRequest(frame, this.world.nowMs);
    this.heard.push(heard);
    for (const server of this.#servers) server(heard, this);
  }

  listen(macAddress: string, xid: number, hear: (answer: DhcpAnswer) => void): () => void {
    const listener = { macAddress, xid, hear };
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  get listeners(): number {
    return this.#listeners.size;
  }

  /** Goes through the codec, as on a real wire. */
  answer(afterMs: number, spec: AnswerSpec): void {
    this.world.at(this.world.nowMs + afterMs, () => this.deliver(spec));
  }

  /** At this moment. */
  deliver(spec: AnswerSpec): void {
    const answer = decodeDhcp(answerFrame(spec));
    if (answer === undefined) return;
    for (const { macAddress, xid, hear } of this.#listeners)
      if (macAddress === answer.macAddress && xid === answer.xid) hear(answer);
  }
}

function readRequest(frame: Buffer, atMs: number): Heard {
  const datagram = decodeUdp(frame);
  if (datagram === undefined) throw new Error('no datagram');
  const { data } = datagram;
  const options = new Map<number, Buffer>();
  for (let at = 240; data[at] !== 255; at += 2 + (data[at + 1] as number))
    options.set(data[at] as number, data.subarray(at + 2, at + 2 + (data[at + 1] as number)));
  const type = TYPES.get((options.get(53)?.toString('hex') ?? '') as '01');
  if (type === undefined) throw new Error('no type');
  const client = data.subarray(12, 16);
  const named = options.get(50) ?? (client.readUInt32BE() === 0 ? undefined : client);
  return {
    atMs,
    type,
    xid: data.readUInt32BE(4),
    macAddress: datagram.sourceMac,
    address: dotted(named),
    server: dotted(options.get(54)),
    isBroadcast: datagram.destinationMac === 'ff:ff:ff:ff:ff:ff',
  };
}

function dotted(bytes: Buffer | undefined): string {
  return bytes === undefined ? '' : [...bytes].join('.');
}

/** What a server is like. */
export interface ServerSpec {
  readonly address?: string;
  /** What it offers, one after the other, passing over what was declined; the last for ever. */
  readonly offers: readonly string[];
  readonly offerAfterMs?: number;
  readonly leaseSeconds?: number;
  readonly t1Seconds?: number;
  readonly t2Seconds?: number;
  /** What it makes of a REQUEST. */
  readonly onRequest?: 'ACK' | 'NAK' | 'silence';
  /** Gives what is wished for. */
  readonly givesWish?: boolean;
}

/** A server that behaves; its spec may be changed while it runs. */
export function server(spec: ServerSpec): Server {
  const declined = new Set<string>();
  return (heard, lan) => {
    const address = spec.address ?? '192.168.77.1';
    const base = { xid: heard.xid, macAddress: heard.macAddress, server: address };
    const options = [
      [1, bytesOf('255.255.255.0')],
      [3, bytesOf(address)],
      [51, seconds(spec.leaseSeconds ?? 3600)],
      ...(spec.t1Seconds === undefined ? [] : [[58, seconds(spec.t1Seconds)] as const]),
      ...(spec.t2Seconds === undefined ? [] : [[59, seconds(spec.t2Seconds)] as const]),
    ] as const;
    if (heard.type === 'DECLINE') declined.add(heard.address);
    const free = spec.offers.filter((one) => !declined.has(one));
    const offered = spec.givesWish === true && heard.address !== '' ? heard.address : (free[0] ?? spec.offers.at(-1));
    if (heard.type === 'DISCOVER' && offered !== undefined)
      lan.answer(spec.offerAfterMs ?? 1, { ...base, type: 2, address: offered, options });
    if (heard.type !== 'REQUEST' || (heard.server !== '' && heard.server !== address)) return;
    const word = spec.onRequest ?? 'ACK';
    if (word === 'ACK') lan.answer(1, { ...base, type: 5, address: heard.address, options });
    if (word === 'NAK') lan.answer(1, { ...base, type: 6, options: [[56, Buffer.from('no more')]] });
  };
}

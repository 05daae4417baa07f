/** Frames of every kind that the property tests of src/lan/frames know (test/unit/lan/frames/arbitraries.ts), from a seed. */
import { type ArpPacket, encodeArp } from '../../src/lan/frames/arp.ts';
import { mldReportFrame } from '../../src/lan/frames/mld.ts';
import { encodeNd } from '../../src/lan/frames/nd.ts';
import { ADDRESS_BITS } from '../../src/address.ts';
import { type Address, type Family, formatMac, parseAddress } from './kernel/address.ts';
import type { Random } from './random.ts';

/** What decoders get beyond their first checks with. */
const BEGINNINGS = ['', '', '08060001080006040001', '08060001080006040002', '86dd60000000'];
const MACS = ['00:00:00:00:00:00', 'ff:ff:ff:ff:ff:ff', '01:00:5e:00:00:01', '33:33:00:00:00:01'];
/** Shorter ones no packet socket sends (ETH_HLEN). */
const LEAST_BYTES = 14;

/** Half of the addresses are some of these. */
export function babble(random: Random, known: readonly string[]): Buffer {
  switch (random.int(0, 4)) {
    case 0:
      return encodeArp(arp(random, known));
    case 1:
      return encodeNd(solicitation(random, known));
    case 2:
      return encodeNd(advertisement(random, known));
    case 3:
      return mldReportFrame(address(random, known, 'IPv6'), mac(random));
    default:
      return noise(random);
  }
}

function noise(random: Random): Buffer {
  const head = Buffer.concat([Buffer.alloc(12, 0x22), Buffer.from(random.pick(BEGINNINGS), 'hex')]);
  if (random.chance(0.5)) head.fill(0xff, 0, 6);
  const frame = Buffer.concat([head, random.bytes(random.int(0, 120))]);
  return frame.length < LEAST_BYTES ? Buffer.concat([frame, Buffer.alloc(LEAST_BYTES - frame.length)]) : frame;
}

function arp(random: Random, known: readonly string[]): ArpPacket {
  return {
    protocol: 'ARP',
    destinationMac: random.chance(0.5) ? 'ff:ff:ff:ff:ff:ff' : mac(random),
    sourceMac: mac(random),
    operation: random.pick(['request', 'reply'] as const),
    senderMac: mac(random),
    senderAddress: address(random, known, 'IPv4'),
    targetMac: mac(random),
    targetAddress: address(random, known, 'IPv4'),
  };
}

function ndHeaders(random: Random, known: readonly string[]) {
  return {
    destinationMac: random.chance(0.5) ? '33:33:00:00:00:01' : mac(random),
    sourceMac: mac(random),
    destination: address(random, known, 'IPv6'),
    source: address(random, known, 'IPv6'),
    target: address(random, known, 'IPv6'),
    linkLayerAddress: random.chance(0.5) ? mac(random) : null,
  };
}

function solicitation(random: Random, known: readonly string[]) {
  const nonce = random.chance(0.5) ? random.bytes(6).toString('hex') : null;
  return { protocol: 'NS', ...ndHeaders(random, known), nonce } as const;
}

function advertisement(random: Random, known: readonly string[]) {
  const [isRouter, isSolicited, isOverride] = [random.chance(0.5), random.chance(0.5), random.chance(0.5)];
  return { protocol: 'NA', ...ndHeaders(random, known), isRouter, isSolicited, isOverride } as const;
}

function mac(random: Random): string {
  return random.chance(0.2) ? random.pick(MACS) : formatMac(random.bytes(6));
}

function address(random: Random, known: readonly string[], family: Family): Address {
  const own = known.flatMap((text) => parseAddress(text) ?? []).filter((one) => one.family === family);
  if (own.length > 0 && random.chance(0.5)) return random.pick(own);
  const bytes = random.bytes(ADDRESS_BITS[family] / 8);
  return { family, value: random.chance(0.1) ? 0n : BigInt(`0x${bytes.toString('hex')}`) };
}

/** Who on the LAN answers for an address: asked as a machine would that wants it, so that no cache learns anything. */
import { randomBytes } from 'node:crypto';
import { setTimeout as sleep } from 'node:timers/promises';
import { formatAddress, parseAddress } from '../../src/address.ts';
import { arpProbe, encodeArp } from '../../src/lan/frames/arp.ts';
import { isStandbyMac, isProbeMac } from '../../src/lan/frames/mac.ts';
import { encodeNd, ndProbe } from '../../src/lan/frames/nd.ts';
import { readSighting } from '../../src/lan/frames/sighting.ts';
import type { Lan } from './namespace.ts';
import { Neighbour } from './neighbour.ts';

const MAC = '02:00:00:00:5e:01';
/** Long enough for a second answer to be heard too. */
const LISTEN_MS = 300;
const ROUNDS = 6;

/** MAC addresses by address; one that nobody answers for is asked for again, for two seconds in all. */
export async function askWire(lan: Lan, addresses: readonly string[]): Promise<Map<string, string[]>> {
  const answers = new Map<string, string[]>(addresses.map((address) => [address, []]));
  if (addresses.length === 0) return answers;
  const surveyor = await Neighbour.plug(lan, `survey${randomBytes(3).toString('hex')}`, MAC);
  try {
    for (let round = 0; round < ROUNDS; round++) {
      const silent = [...answers].filter(([, macs]) => macs.length === 0).map(([address]) => address);
      if (silent.length === 0) break;
      for (const address of silent) surveyor.send(questionFor(address));
      await sleep(LISTEN_MS);
      gather(surveyor, answers);
    }
    return answers;
  } finally {
    surveyor.close();
    await surveyor.namespace.delete();
  }
}

function questionFor(text: string): Buffer {
  const address = parseAddress(text);
  if (address === undefined) throw new Error(`"${text}" is no address`);
  if (address.family === 'IPv4') return encodeArp(arpProbe(address, MAC));
  return encodeNd(ndProbe(address, MAC, randomBytes(6).toString('hex')));
}

function gather(surveyor: Neighbour, answers: Map<string, string[]>): void {
  for (const { packet } of surveyor.heard) {
    const sighting = readSighting(packet);
    // For some seconds a new address is also kept from machines that ask as we do (lan/tiebreak.ts).
    if (sighting?.kind !== 'use' || isOfDaemon(sighting.macAddress)) continue;
    const macs = answers.get(formatAddress(sighting.address));
    if (macs && !macs.includes(sighting.macAddress)) macs.push(sighting.macAddress);
  }
}

function isOfDaemon(macAddress: string): boolean {
  return isProbeMac(macAddress) || isStandbyMac(macAddress);
}

/**
 * One host of several that want addresses of one subnet, as a process: `claimant.ts DIRECTORY ENDPOINTS CLUSTER COUNT LOG`.
 * Appends to the log, which all of them share: `NAME claimed 10.77.0.2 3.1` (milliseconds) after that was acknowledged,
 * `NAME released 10.77.0.2` before it is asked for, and `NAME refused TEXT`; what was refused is asked for again.
 */
import { appendFileSync } from 'node:fs';
import { basename } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { IpamDriver } from '../../src/ipam/driver.ts';
import { openShared } from './shared.ts';
import { KEEPS_NOTHING, NOBODY_ANSWERS } from './quiet.ts';
import { callLimit } from './patience.ts';

const [directory = '', endpoints = '', cluster = '', count = '0', log = ''] = process.argv.slice(2);
/** Of the addresses claimed, one in so many is given back at once. */
const RETURNS = 8;
const PAUSE_MS = 50;

// One write each: a line of the file is older than those behind it.
const say = (line: string) => appendFileSync(log, `${basename(directory)} ${line}\n`);

const store = openShared(directory, endpoints.split(','), cluster);
const ipam = new IpamDriver({ store, hostId: directory, probe: NOBODY_ANSWERS, keeper: KEEPS_NOTHING });
const { poolId } = await ipam.requestPool({
  addressSpace: 'TsmacvlanLocal',
  pool: '10.77.0.0/16',
  subPool: null,
  options: {},
  v6: false,
});

for (let kept = 0; kept < Number(count); ) {
  const address = await claim();
  if (address === undefined) await sleep(PAUSE_MS);
  else if (Math.random() * RETURNS < 1) await release(address);
  else kept++;
}
await store.close();

async function claim(): Promise<string | undefined> {
  const begin = performance.now();
  try {
    const given = await ipam.requestAddress({
      poolId,
      address: null,
      isGateway: false,
      serial: false,
      name: null,
      limit: callLimit(),
    });
    const address = given.split('/')[0] ?? '';
    say(`claimed ${address} ${(performance.now() - begin).toFixed(1)}`);
    return address;
  } catch (error) {
    say(`refused ${(error as Error).message}`);
    return undefined;
  }
}

async function release(address: string): Promise<void> {
  say(`released ${address}`);
  await ipam.releaseAddress({ poolId, address });
}

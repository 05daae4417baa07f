/**
 * The plugin of a swarm's leader is killed in RequestAddress, after each of its steps: its engine, which heard nothing, asks once
 * more. What nobody was told of is collected; what was answered stays.
 */
import assert from 'node:assert/strict';
import { existsSync, readFileSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { describe, test } from 'node:test';
import { bundle } from '../lab/bundle.ts';
import { outsideLab } from '../lab/enclosure.ts';
import { readRecords } from '../lab/invariant.ts';
import type { Order, Report } from '../lab/mortal.ts';
import { Serving } from '../lab/serving.ts';
import { temporaryDirectory } from '../unit/temporary.ts';

const MORTAL = join(import.meta.dirname, '../lab/mortal.ts');
const SUBNET = { AddressSpace: 'TsmacvlanGlobal', Pool: '10.77.0.0/24', SubPool: '10.77.0.64/26' };
const SERIAL = { 'com.docker.network.ipam.serial': 'true' };
const GATEWAY = '10.77.0.254';
const NETWORK = 'dgqfni1fpk397osx2mlscegj6';
/** By then the collector has looked twice at what was left. */
const PATIENCE_MS = 150_000;

describe('the plugin of a swarm’s leader', { skip: outsideLab(), timeout: 120_000 }, () => {
  test('is killed after each step of RequestAddress: only what was answered is in its books', async (t) => {
    const directory = temporaryDirectory(t);
    const program = await bundle(MORTAL, directory);
    const steps = join(directory, 'steps');
    const settings = { SCOPE: 'global', STEPS_FILE: steps, NODE_COMPILE_CACHE: join(directory, 'cache') };
    let leader = await Serving.start(directory, settings, program);
    t.after(() => leader.stop('SIGKILL'));
    const restart = async () => {
      await leader.stop('SIGKILL');
      leader = await Serving.start(directory, settings, program);
    };
    const must = async (name: string, body: object) => {
      const { status, body: answer, sentence } = await leader.call(name, body);
      assert.equal(status, 200, sentence);
      return answer;
    };
    let options: unknown = {};
    const lead = async () => {
      await must('IpamDriver.GetCapabilities', {});
      const { PoolID } = await must('IpamDriver.RequestPool', { ...SUBNET, Options: {}, V6: false });
      const gateway = { RequestAddressType: 'com.docker.network.gateway', ...SERIAL };
      await must('IpamDriver.RequestAddress', { PoolID, Address: GATEWAY, Options: gateway });
      const described = [{ AddressSpace: '', Gateway: `${GATEWAY}/24`, Pool: SUBNET.Pool }];
      const request = { NetworkID: NETWORK, Options: options, IPv4Data: described };
      options = (await must('NetworkDriver.AllocateNetwork', request))['Options'];
      return PoolID;
    };
    const books = () => {
      const { leases } = readRecords(join(directory, 'state/tsmacvlan.db')) as unknown as Books;
      return leases.filter(({ kind }) => kind === 'container').map(({ address }) => address);
    };

    const PoolID = await lead();
    const task = async (Address = '') => {
      const given = await must('IpamDriver.RequestAddress', { PoolID, Address, Options: SERIAL });
      return String(given['Address']).replace('/24', '');
    };

    const answered = [await task()];
    /** Where it is killed after so many steps; the last one of the call is that it will be answered. */
    const killedAfter = async (stepsToLive: number, address?: string) => {
      rmSync(steps, { force: true });
      await leader.tell<Report>({ stepsToLive } satisfies Order);
      const isAnswered = await task(address).then(
        (given) => answered.push(given),
        () => false,
      );
      await restart();
      return { isAnswered, steps: existsSync(steps) ? readFileSync(steps, 'utf8').trim().split('\n') : [] };
    };
    const all = (await killedAfter(1000)).steps;
    assert.match(all[0] ?? '', /^INSERT INTO lease_records/);
    assert.match(all.at(-1) ?? '', /^UPDATE lease_records/);
    for (let count = 1; count < all.length; count++) {
      assert.equal((await killedAfter(count)).isAnswered, false);
      answered.push(await task());
    }
    assert.equal(books().length, answered.length + all.length - 1);

    // A claim by address, as a new leader makes it, is granted to who repeats it.
    const [claimed = ''] = answered;
    await lead();
    await killedAfter(1, claimed);
    assert.equal(await task(claimed), claimed);
    for (const address of answered.slice(1)) await task(address);

    let passedMs = 0;
    while (passedMs < PATIENCE_MS)
      passedMs += (await leader.tell<Report>({ pass: true } satisfies Order))?.passedMs ?? 0;
    assert.deepEqual(books(), [...answered].sort());
    assert.match(leader.log, /the plugin was killed before it answered with it/);
  });
});

interface Books {
  readonly leases: readonly { readonly address: string; readonly kind: string }[];
}

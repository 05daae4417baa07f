/** A parent that goes takes the interfaces of its containers with it, also when it is back before anybody looks. */
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { main } from '../../src/cli.ts';
import { outsideLab } from '../lab/enclosure.ts';
import { until } from '../lab/patience.ts';
import { Serving } from '../lab/serving.ts';

const NETWORK = 'a'.repeat(64);
const ENDPOINT = '1'.repeat(64);

const ip = (words: string) => execFileSync('ip', words.split(' '), { encoding: 'utf8' });

describe('parents that are gone and back', { skip: outsideLab(), timeout: 120_000 }, () => {
  const directory = mkdtempSync(join(tmpdir(), 'tsm-lost-'));
  let daemon: Serving;

  before(async () => {
    ip('netns add box');
    plug();
    daemon = await Serving.start(directory);
  });

  after(async () => {
    await daemon.stop();
    rmSync(directory, { recursive: true });
  });

  function plug(): void {
    ip('link add eth0 type veth peer name port0');
    for (const name of ['eth0', 'port0']) ip(`link set ${name} up`);
  }

  /** A container with 10.9.0.7, as an engine makes it. */
  async function run(parent: string): Promise<void> {
    const call = async (name: string, body: object) => {
      const reply = await daemon.call(`NetworkDriver.${name}`, { NetworkID: NETWORK, ...body });
      assert.equal(reply.status, 200, reply.sentence);
      return reply.body;
    };
    const IPv4Data = [{ AddressSpace: 'LocalDefault', Pool: '10.9.0.0/24', Gateway: '10.9.0.1/24' }];
    const Options = { 'com.docker.network.generic': { parent } };
    await call('CreateNetwork', { Options, IPv4Data, IPv6Data: [] });
    const Interface = { Address: '10.9.0.7/24', AddressIPv6: '', MacAddress: '' };
    await call('CreateEndpoint', { EndpointID: ENDPOINT, Interface, Options: {} });
    const joined = await call('Join', { EndpointID: ENDPOINT, SandboxKey: '', Options: {} });
    const { SrcName } = joined['InterfaceName'] as { SrcName: string };
    ip(`link set ${SrcName} netns box`);
    ip(`-n box link set ${SrcName} up`);
  }

  async function shown(command: string): Promise<string> {
    const lines: string[] = [];
    const write = process.stdout.write.bind(process.stdout);
    const { STATE_DIR, SOCKET } = process.env;
    Object.assign(process.env, { STATE_DIR: daemon.state, SOCKET: daemon.socket });
    process.stdout.write = (text) => lines.push(String(text)) > 0;
    try {
      await main([command]);
    } finally {
      process.stdout.write = write;
      Object.assign(process.env, { STATE_DIR, SOCKET });
    }
    return lines.join('');
  }

  async function end(): Promise<void> {
    for (const [name, body] of [
      ['Leave', { EndpointID: ENDPOINT }],
      ['DeleteEndpoint', { EndpointID: ENDPOINT }],
      ['DeleteNetwork', {}],
    ] as const)
      assert.equal((await daemon.call(`NetworkDriver.${name}`, { NetworkID: NETWORK, ...body })).status, 200);
  }

  for (const [what, awayMs] of [
    ['at once', 0],
    ['a second later', 1000],
  ] as const) {
    test(`a NIC that is back ${what}: the containers without interface are named and shown`, async () => {
      await run('eth0');
      daemon.log = '';
      ip('link del eth0');
      await sleep(awayMs);
      plug();
      await until(() => / containers=("?)10\.9\.0\.7\1/.test(daemon.log));
      assert.equal(daemon.log.match(/parent is gone/g)?.length, 1, daemon.log);
      await until(async () => (await shown('endpoints')).includes(' lost'));
      assert.match(
        await shown('map'),
        /10\.9\.0\.7\/24 .*\(lost its interface with the parent: start the container again\)/,
      );
      await end();
      assert.doesNotMatch(await shown('map'), /lost/);
    });
  }
});

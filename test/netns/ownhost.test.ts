/**
 * Who on this host has an address, and whose a MAC address is, beside a container that may change its own network
 * (CAP_NET_ADMIN). The file's own network namespace is the host:
 *
 *     par ── veth ── far      victim, rogue: containers, each with a macvlan on par that was moved into it
 */
import assert from 'node:assert/strict';
import { after, before, beforeEach, afterEach, describe, test } from 'node:test';
import { type Address, parseAddress } from '../../src/address.ts';
import { Links } from '../../src/kernel/link.ts';
import { Leavers } from '../../src/lan/leavers.ts';
import { findOwners, isInContainer, isSilent } from '../../src/lan/ownhost.ts';
import { output } from '../lab/command.ts';
import { outsideLab } from '../lab/enclosure.ts';

const VICTIM = '02:42:0a:09:00:32';
/** Another interface of the victim's, which may speak for its address. */
const OTHER = '02:42:0a:09:00:33';
const ROGUE = '02:42:0a:09:00:34';

const ip = (words: string) => output(['ip', ...words.split(' ')]);

describe('who has what on this host', { skip: outsideLab(), timeout: 60_000 }, () => {
  const address = parseAddress('10.9.0.50') as Address;
  let links: Links;
  let parentIndex: number;

  before(async () => {
    await ip('link add par type veth peer name far');
    for (const name of ['par', 'far']) await ip(`link set ${name} up`);
    links = Links.open();
    parentIndex = (await links.byName('par'))?.index ?? 0;
  });
  after(() => links.close());

  beforeEach(async () => {
    await plug('victim', 'eth0', VICTIM);
    await ip(`-n victim link add eth1 address ${OTHER} type bridge`);
    await plug('rogue', 'eth0', ROGUE);
  });
  afterEach(async () => {
    // The kernel ends a namespace some time after it was deleted, and until then its MAC addresses are in use.
    for (const name of ['victim', 'rogue']) {
      await ip(`-n ${name} link delete eth0`).catch(() => undefined);
      await ip(`netns delete ${name}`);
    }
  });

  /** As an engine does. */
  async function plug(container: string, name: string, macAddress: string): Promise<void> {
    await ip(`netns add ${container}`);
    await ip(`link add moved link par address ${macAddress} type macvlan mode bridge`);
    await ip(`link set moved netns ${container} name ${name}`);
    await ip(`-n ${container} link set ${name} up`);
  }

  /** A link of the victim's MAC address, on one that has the index of the parent. */
  async function impersonate(): Promise<void> {
    await ip(`-n rogue link add base0 index ${parentIndex} type bridge`);
    await ip(`-n rogue link add link base0 name like0 address ${VICTIM} type macvlan mode bridge`);
    for (const name of ['base0', 'like0']) await ip(`-n rogue link set ${name} up`);
  }

  async function owner(macAddress: string): Promise<string> {
    const [found] = await findOwners(links, [{ parentIndex, ourMacAddress: VICTIM, macAddress, address }]);
    return found?.kind ?? '';
  }

  test('another interface of the container is the container, that of another container is a stranger', async () => {
    assert.deepEqual([await owner(OTHER), await owner(ROGUE)], ['container', 'stranger']);
  });

  test('a container with a link of the victim’s MAC address is a stranger, whatever that link is on', async () => {
    await impersonate();
    assert.deepEqual([await owner(OTHER), await owner(ROGUE)], ['container', 'stranger']);
    // A macvlan on one of its own is on the parent itself, and is not let up.
    await ip(`-n rogue link add link eth0 name like1 address ${VICTIM} type macvlan mode bridge`);
    await assert.rejects(ip('-n rogue link set like1 up'));
    assert.deepEqual([await owner(OTHER), await owner(ROGUE)], ['container', 'stranger']);
  });

  test('one that is gone is not in the container that imitates it', async () => {
    await impersonate();
    assert.equal(await isInContainer(links, 'par', VICTIM), true);
    await ip('-n victim link delete eth0');
    assert.equal(await isInContainer(links, 'par', VICTIM), false);
    assert.equal(await owner(ROGUE), 'vacant');
  });

  test('what the victim leaves is said by its own interfaces only', async () => {
    await impersonate();
    const leavers = new Leavers(links, () => undefined);
    await links.table.update();
    // Told last, so that whoever looks for the first finds the other.
    await ip('-n victim link set eth0 alias uplink');
    await leavers.note('par', VICTIM, [address]);
    const has = (macAddress: string) => leavers.has({ parentName: 'par', address }, macAddress);
    assert.deepEqual([has(OTHER), has(ROGUE)], [true, false]);
  });

  test('a link here whose parent is elsewhere silences nobody', async () => {
    await ip(`-n rogue link add base0 index ${parentIndex} type bridge`);
    await ip(`-n rogue link add link base0 name like0 address ${VICTIM} type macvlan mode bridge`);
    await ip(`-n rogue link set like0 netns ${process.pid}`);
    await links.table.update();
    assert.equal(isSilent(links, 'par', VICTIM), false);
    await ip('link delete like0');
  });
});

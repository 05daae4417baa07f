/**
 * Tests on real links once more, in a kernel where none is skipped for want of a kind of link. What is left out passes in `netns` on any
 * kernel.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Namespace } from '../lab/namespace.ts';
import { inVlanKernel, isInVlanKernel } from '../lab/uml.ts';

const PARENTS = ['dummy0', 'dummy0.10', 'dummy0.10.20', 'bond0', 'team0', 'bridge0'];
/** With and without a VLAN, and on the isolated link that a network without a parent has, which is a dummy where there are dummies. */
const PATTERN = 'every.kind.of.parent|a.VLAN|a.dummy|isolated|comes.back.under.its.id.on.another.parent';

inVlanKernel(import.meta.filename, { pattern: PATTERN }, () => {
  // The ground this level stands on: what fails here is no fault of the plugin.
  test('every kind of parent can be made and carries a macvlan', { timeout: 120_000 }, async () => {
    const namespace = await Namespace.create('kinds');
    await namespace.ip('link add dummy0 type dummy');
    await namespace.ip('link add dummy0.10 link dummy0 type vlan protocol 802.1ad id 10');
    await namespace.ip('link add dummy0.10.20 link dummy0.10 type vlan id 20');
    await namespace.ip('link add bond0 type bond');
    await namespace.ip('link add team0 type team');
    await namespace.ip('link add bridge0 type bridge vlan_filtering 1');
    for (const parent of PARENTS) {
      await namespace.ip(`link add child link ${parent} type macvlan mode bridge`);
      await namespace.ip('link delete child');
    }
    const children = (await namespace.show<{ ifname: string }>('link')).map(({ ifname }) => ifname);
    assert.deepEqual(children.toSorted(), [...PARENTS, 'lo'].toSorted());
    await namespace.delete();
  });
});

if (isInVlanKernel()) for (const name of ['link', 'network', 'carrier']) await import(`../netns/${name}.test.ts`);

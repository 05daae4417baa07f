import assert from 'node:assert/strict';
import { test } from 'node:test';
import * as names from '../../src/linknames.ts';

const ID = '7edcda37f0f2'.padEnd(64, '0');

test('every name that is made here is within IFNAMSIZ, and no two kinds share one', () => {
  const made = [
    names.endpointLinkName(ID),
    names.isolatedLinkName(ID),
    names.hostLinkName('a name of fifteen'),
    names.makeProbeLinkName(),
    names.makeTrialLinkName(),
  ];
  for (const name of made) assert.match(name, /^tsm[a-z0-9]{1,12}$/);
  assert.equal(new Set(made).size, made.length);
  assert.equal(names.endpointLinkName(ID), 'tsm7edcda37f0f2');
  assert.equal(names.isolatedLinkName(ID), 'tsmi7edcda37f0f');
  assert.equal(names.hostLinkName('eth0'), names.hostLinkName('eth0'));
});

test('an alias of an endpoint names it, and no other alias does', () => {
  assert.equal(names.endpointOfAlias(names.endpointAlias(ID)), ID);
  for (const alias of [null, '', names.PARENT_ALIAS, names.HOST_ALIAS, names.PROBE_ALIAS, 'tsmacvlan endpoint'])
    assert.equal(names.endpointOfAlias(alias), null);
});

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { readSettings, SETTINGS } from '../../src/settings.ts';

test('an empty environment gives every default', () => {
  assert.deepEqual(readSettings({}), {
    sockets: ['/run/docker/plugins/tsmacvlan.sock'],
    stateDirectory: '/var/lib/tsmacvlan',
    logLevel: 'info',
    logFormat: 'text',
    scope: 'local',
    probe: 'fast',
    defends: false,
    parents: new Map(),
  });
});

test('an empty value is as good as none: docker plugin set NAME= leaves one', () => {
  assert.deepEqual(readSettings(Object.fromEntries(Object.keys(SETTINGS).map((name) => [name, '']))), readSettings({}));
});

test('a value that is not allowed is refused with those that are', () => {
  assert.throws(() => readSettings({ LOG_LEVEL: 'loud' }), {
    message: 'setting LOG_LEVEL="loud" is not known; use error, warn, info, debug',
  });
  assert.throws(() => readSettings({ SCOPE: 'swarm' }), {
    message: 'setting SCOPE="swarm" is not known; use local, global',
  });
});

test('PARENTS names links', () => {
  assert.deepEqual(
    [...readSettings({ PARENTS: 'lan=ens33, storage=eth1.5,' }).parents],
    [
      ['lan', 'ens33'],
      ['storage', 'eth1.5'],
    ],
  );
  for (const value of ['lan', 'lan=', '=eth0', 'a=b=c', 'auto=eth0', 'a=b,a=c']) {
    assert.throws(
      () => readSettings({ PARENTS: value }),
      /^PluginError: setting PARENTS=.* is not known; use alias=link pairs/,
    );
  }
});

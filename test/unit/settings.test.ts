import assert from 'node:assert/strict';
import { test } from 'node:test';
import { readSettings, SETTINGS } from '../../src/settings.ts';

test('an empty environment gives every default', () => {
  assert.deepEqual(readSettings({}), {
    sockets: ['/run/docker/plugins/tsmacvlan.sock'],
    stateDirectory: '/var/lib/tsmacvlan',
    logLevel: 'info',
    logFormat: 'text',
    logsNetlink: false,
    scope: 'local',
    probe: 'fast',
    conflict: 'refuse',
    probeRate: 500,
    defends: false,
    remember: 30,
    dhcpTimeout: 25,
    parents: new Map(),
    metrics: null,
    hook: null,
    cluster: null,
  });
});

test('METRICS is an address of this host, or one that others reach when that is said too', () => {
  const place = (METRICS: string, METRICS_OPEN = '') => readSettings({ METRICS, METRICS_OPEN }).metrics;
  assert.deepEqual(place('127.0.0.1:9618'), {
    text: '127.0.0.1:9618',
    path: null,
    host: '127.0.0.1',
    port: 9618,
    isLocal: true,
  });
  assert.equal(place('[::1]:9618')?.isLocal, true);
  assert.equal(place('127.8.0.1:1')?.isLocal, true);
  assert.deepEqual(place('unix:/run/m.sock'), {
    text: 'unix:/run/m.sock',
    path: '/run/m.sock',
    host: '',
    port: 0,
    isLocal: true,
  });
  assert.throws(
    () => place('unix:/run/docker//plugins/tsmacvlan.sock'),
    /^PluginError: settings METRICS and SOCKET do not/,
  );
  for (const given of ['192.168.1.10:9618', '0.0.0.0:9618', '[::]:9618', '[fd00::1]:9618', '[::ffff:127.0.0.1]:9618']) {
    assert.throws(() => place(given), {
      message: `setting METRICS="${given}" is an address that other machines reach, and whoever reaches it can read what it tells; say METRICS_OPEN=on as well, or use 127.0.0.1:9618`,
    });
    assert.equal(place(given, 'on')?.isLocal, false);
  }
  for (const given of [
    '9618',
    ':9618',
    'localhost:9618',
    '127.0.0.1',
    '127.0.0.1:0',
    '127.0.0.1:70000',
    '127.1:9618',
    '::1:9618',
    'unix:m.sock',
    'unix:',
    '[127.0.0.1]:9618',
    'http://127.0.0.1:9618',
  ])
    assert.throws(
      () => place(given, 'on'),
      /invalid value .* for METRICS; use 127\.0\.0\.1:PORT, \[::1\]:PORT or unix:\/PATH$/,
      given,
    );
});

test('HOOK is refused in the managed plugin', () => {
  assert.equal(readSettings({ HOOK: ' /etc/hook ' }).hook, '/etc/hook');
  assert.throws(() => readSettings({ HOOK: '/etc/hook', MANAGED_PLUGIN: 'yes' }), {
    message:
      'setting HOOK="/etc/hook" is a program of the host, which the managed plugin cannot run; leave HOOK empty, and have a service of the host read "tsmacvlan watch --json"',
  });
  assert.equal(readSettings({ MANAGED_PLUGIN: 'yes' }).hook, null);
});

test('an empty value is as good as none: docker plugin set NAME= leaves one', () => {
  assert.deepEqual(readSettings(Object.fromEntries(Object.keys(SETTINGS).map((name) => [name, '']))), readSettings({}));
});

test('a value that is not allowed is refused with those that are', () => {
  assert.throws(() => readSettings({ LOG_LEVEL: 'loud' }), {
    message: 'invalid value "loud" for LOG_LEVEL; use error, warn, info, debug',
  });
  assert.throws(() => readSettings({ SCOPE: 'swarm' }), {
    message: 'invalid value "swarm" for SCOPE; use local, global',
  });
});

test('LOG_NETLINK=on logs what is said to the kernel', () => {
  assert.equal(readSettings({ LOG_NETLINK: 'on' }).logsNetlink, true);
  assert.throws(() => readSettings({ LOG_NETLINK: 'yes' }), /invalid value "yes" for LOG_NETLINK; use off, on/);
});

test('PROBE_RATE is a number of frames a second, or 0 for no limit', () => {
  assert.equal(readSettings({ PROBE_RATE: '0' }).probeRate, 0);
  assert.equal(readSettings({ PROBE_RATE: '15' }).probeRate, 15);
  for (const value of ['9', '100001', '-1', '1e3', 'none', '15.5'])
    assert.throws(() => readSettings({ PROBE_RATE: value }), {
      message: `invalid value "${value}" for PROBE_RATE; use 0 for no limit, or 10 to 100000 frames a second`,
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
      /^PluginError: invalid value .* for PARENTS; use alias=link pairs/,
    );
  }
});

test('STORE names the members of an etcd', () => {
  const { cluster } = readSettings({ STORE: 'etcd://10.0.0.1:2379, etcd2.lan:2379,[fd00::3]:2379' });
  assert.deepEqual(cluster, {
    endpoints: ['10.0.0.1:2379', 'etcd2.lan:2379', '[fd00::3]:2379'],
    isSecure: false,
    cluster: 'default',
    user: '',
    password: '',
    ca: '',
    cert: '',
    key: '',
    fallsBack: false,
  });
  for (const value of ['etcd', 'etcd://', 'etcd://host', 'http://10.0.0.1:2379', 'etcd://a:1,', 'etcd://a:1/x']) {
    assert.throws(
      () => readSettings({ STORE: value }),
      /^PluginError: invalid value .* for STORE; use local, or etcd:\/\//,
    );
  }
});

test('TLS is used with etcds:// and with any certificate of STORE_', () => {
  const isSecure = (more: Record<string, string>) =>
    readSettings({ STORE: 'etcd://a:1', ...more }).cluster?.isSecure ?? null;
  assert.equal(isSecure({}), false);
  assert.equal(isSecure({ STORE: 'etcds://a:1' }), true);
  assert.equal(isSecure({ STORE_CA: '/ca.pem' }), true);
  assert.equal(isSecure({ STORE_CERT: '/c.pem', STORE_KEY: '/k.pem' }), true);
});

test('settings that contradict each other are refused', () => {
  const STORE = 'etcd://a:1';
  assert.throws(() => readSettings({ STORE, SCOPE: 'global' }), { code: 'SETTINGS_APART' });
  assert.throws(() => readSettings({ STORE, STORE_CERT: '/c.pem' }), { code: 'SETTINGS_APART' });
  assert.throws(() => readSettings({ STORE, STORE_FALLBACK: 'probe', PROBE: 'off' }), {
    message: /^settings STORE_FALLBACK=probe and PROBE=off do not go together; .* use PROBE=fast on all hosts or /,
  });
  assert.throws(() => readSettings({ STORE, STORE_CLUSTER: 'a/b' }), { code: 'SETTING_INVALID' });
});

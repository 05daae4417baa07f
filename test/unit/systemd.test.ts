import assert from 'node:assert/strict';
import { mock, test } from 'node:test';
import { changedSettings, liveSettings, readSettings, SETTINGS } from '../../src/settings.ts';
import { Systemd } from '../../src/systemd.ts';

test('systemd is told that it is up, that it is alive as often as it wants to hear it, and that it ends', () => {
  mock.timers.enable({ apis: ['setInterval'] });
  const told: [string, string][] = [];
  const environment = { NOTIFY_SOCKET: '/run/systemd/notify', WATCHDOG_USEC: '30000000' };
  const systemd = new Systemd(environment, (path, text) => told.push([path, text]));
  systemd.ready('listening');
  mock.timers.tick(20_000);
  systemd.stopping();
  mock.timers.reset();
  assert.deepEqual(
    told.map(([, text]) => text),
    ['READY=1\nSTATUS=listening', 'WATCHDOG=1', 'WATCHDOG=1', 'STOPPING=1\nSTATUS=stopping'],
  );
  assert.ok(told.every(([path]) => path === '/run/systemd/notify'));
});

test('whatever else started it is told nothing', () => {
  for (const environment of [{}, { NOTIFY_SOCKET: '' }, { WATCHDOG_USEC: '1' }]) {
    const systemd = new Systemd(environment, () => assert.fail('told'));
    systemd.ready('listening');
    systemd.refused('no');
    systemd.stopping();
  }
});

test('the settings that a running daemon takes over are those that it names, and no other changes with them', () => {
  const names = Object.values(SETTINGS).flatMap((setting) => ('isLive' in setting ? [setting.name] : []));
  assert.deepEqual(names, ['LOG_LEVEL', 'DEFEND', 'CONFLICT', 'PARENTS']);
  const after = { LOG_LEVEL: 'debug', DEFEND: 'on', CONFLICT: 'warn', PARENTS: 'lan=eth0' };
  assert.deepEqual(liveSettings(readSettings(after)), {
    logLevel: 'debug',
    defends: true,
    conflict: 'warn',
    parents: new Map([['lan', 'eth0']]),
  });
  assert.deepEqual(
    changedSettings({ LOG_LEVEL: 'info', SCOPE: ' ' }, { ...after, SCOPE: 'local' }).map(({ name }) => name),
    names,
  );
});

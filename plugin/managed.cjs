/**
 * The managed plugin's entry: the program, which after a start that failed stays until the engine gives up. Engines start a
 * plugin that ends again at once, 20.10 while they still wait for the first one, and then hold a container they can
 * neither stop nor replace (moby plugin/manager_linux.go, HandleExitEvent).
 */
/** They look for the socket four times, 3 s apart, and then send SIGTERM. */
const GIVEN_UP_MS = 20_000;

process.once('beforeExit', (code) => {
  if (code === 0) return;
  const patience = setTimeout(() => {}, GIVEN_UP_MS);
  process.once('SIGTERM', () => clearTimeout(patience));
});

// Settings that mean nothing in its own file system are refused (src/settings.ts).
process.env.MANAGED_PLUGIN = 'yes';
require('./tsmacvlan.cjs');

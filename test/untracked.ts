/**
 * Loaded before a test file. node:test follows each promise from its beginning to its end, to say of which test an error is that nobody
 * awaited: half of what a test costs that computes with promises. Such an error is printed instead, and fails the file.
 */
import { type AsyncHook, createHook } from 'node:async_hooks';

const hooks = Object.getPrototypeOf(createHook({})) as AsyncHook;
const enable = Reflect.get(hooks, 'enable');

// As createHook({ trackPromises: false }) does it (lib/async_hooks.js); where Node has no such word, promises are followed.
hooks.enable = function (this: AsyncHook & Record<symbol, unknown>) {
  const word = Object.getOwnPropertySymbols(this).find(({ description }) => description === 'kNoPromiseHook');
  if (word !== undefined) this[word] = true;
  return enable.call(this);
};

process.on('uncaughtExceptionMonitor', (error) => console.error(error));
process.on('unhandledRejection', (error) => {
  console.error(error);
  process.exitCode = 1;
});

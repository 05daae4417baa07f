/** Stands where src/kernel/readiness.ts stands: the simulated sockets tell it themselves. */
export { whenReadable } from './libc.ts';

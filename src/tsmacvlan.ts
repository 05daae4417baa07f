#!/usr/bin/env node
/** The executable. Ends by itself when nothing is left to do; process.exit can hang in V8's thread pool (nodejs/node#54918). */
import { main, quietPipes } from './cli.ts';

// As early as can be: until serve.ts listens to it, SIGHUP would end the daemon.
if (process.argv[2] === 'serve') process.on('SIGHUP', () => undefined);
// For ps and systemd-cgtop, where it would be node's "MainThread".
process.title = 'tsmacvlan';
quietPipes();
void main(process.argv.slice(2)).then((code) => (process.exitCode ||= code));

#!/usr/bin/env node
/** The executable. Ends by itself when nothing is left to do; process.exit can hang in V8's thread pool (nodejs/node#54918). */
import { main } from './cli.ts';

void main(process.argv.slice(2)).then((code) => (process.exitCode = code));

/**
 * koffi inside the one file (plugin/single.ts): its library is an asset of the executable, and the loader maps nothing but files. So
 * it gets one that has no name (O_TMPFILE, open(2)): no other process comes between, two versions have one each, and nothing is left
 * over, however this process ends. koffi's own JavaScript only looks for the library and adds calls that nobody uses.
 */
import { closeSync, constants, openSync, writeSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname } from 'node:path';
import { getRawAsset } from 'node:sea';
import * as errors from '../src/errors.ts';

/** linux/fcntl.h; O_DIRECTORY has another value on each architecture. */
const O_TMPFILE = 0o20000000 | constants.O_DIRECTORY;

/** The first that can be written to and is mounted without noexec; the last two are the service's own, and where the file lies. */
const PLACES = [tmpdir(), '/dev/shm', '/var/tmp', '/run', '/var/lib/tsmacvlan', dirname(process.execPath)];

function load(): unknown {
  const tried: [string, string][] = [];
  for (const place of PLACES) {
    try {
      return loadFrom(place);
    } catch (error) {
      tried.push([place, (error as Error).message]);
    }
  }
  throw errors.libraryNowhere(tried);
}

function loadFrom(place: string): unknown {
  const file = openSync(place, O_TMPFILE | constants.O_RDWR, 0o600);
  try {
    const library = new Uint8Array(getRawAsset('koffi.node'));
    for (let written = 0; written < library.length; ) written += writeSync(file, library, written);
    const loaded = { exports: {} };
    process.dlopen(loaded, `/proc/self/fd/${file}`);
    return loaded.exports;
  } finally {
    closeSync(file);
  }
}

export default load();

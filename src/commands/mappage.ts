/** `tsmacvlan map --html` and `map --serve`: the page as a file, and as it changes. */
import { once } from 'node:events';
import { writeFileSync } from 'node:fs';
import type { Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { getSystemErrorMessage } from 'node:util';
import * as errors from '../errors.ts';
import { bindSocket } from '../server/socket.ts';
import { print } from '../tables.ts';
import type { Options } from './command.ts';
import { type ListenPlace, MapServer, readListen } from './mapserver.ts';
import { pageWith } from './pagefile.ts';
import { PictureSource } from './picture.ts';
import { settingsHere } from './places.ts';

const USUAL = '127.0.0.1:8099';

/** `map --html` or `map --serve`, whichever was said. The latter resolves at a signal. */
export async function mapPage(options: Options): Promise<void> {
  const { html, serve = false, listen, open = false, cluster: isCluster = false } = options;
  if (html !== undefined && (serve || options.json)) throw errors.mapForms();
  if (serve && options.json) throw errors.mapForms();
  if (!serve && listen !== undefined) throw errors.mapOptions('--listen', '--serve');
  if (!serve && open) throw errors.mapOptions('--open', '--serve');
  if (!serve && html === undefined) throw errors.mapOptions('--cluster', '--serve or --html');
  if (isCluster && settingsHere().cluster === null) throw errors.storeIsLocal();
  if (html !== undefined) return writePage(html, isCluster);
  return servePage(readListen(listen ?? USUAL, open), isCluster);
}

async function writePage(file: string, isCluster: boolean): Promise<void> {
  const picture = await new PictureSource({ isCluster, isLive: false }).take();
  const { html } = await pageWith(picture);
  try {
    // Names and addresses of a host are for who has them shown to him.
    writeFileSync(file, html, { mode: 0o600 });
  } catch (error) {
    throw errors.pageNotWritten(file, reasonOf(error));
  }
}

async function servePage(place: ListenPlace, isCluster: boolean): Promise<void> {
  const server = new MapServer(new PictureSource({ isCluster, isLive: true }), await pageWith(null));
  const signals = ['SIGINT', 'SIGTERM', 'SIGHUP'] as const;
  const stop = new AbortController();
  const stopped = Promise.race(signals.map((signal) => once(process, signal, { signal: stop.signal })));
  if ('path' in place) {
    const socket = await bindSocket(server.http, place.path, '--listen');
    print(`the page is at unix:${errors.escapeControls(place.path)}, for root; Ctrl-C ends it\n`);
    await stopped;
    socket.release();
  } else {
    await listening(server.http, place);
    const { address, port, family } = server.http.address() as AddressInfo;
    print(`the page is at http://${family === 'IPv6' ? `[${address}]` : address}:${port}/; Ctrl-C ends it\n`);
    await stopped;
  }
  stop.abort();
  await server.close();
}

async function listening(server: Server, { host, port }: { host: string; port: number }): Promise<void> {
  try {
    server.listen({ host, port });
    await once(server, 'listening');
  } catch (error) {
    throw errors.listenFailed(`${host}:${port}`, reasonOf(error));
  }
}

function reasonOf(error: unknown): string {
  const { errno, message } = error as NodeJS.ErrnoException;
  return errno === undefined ? message : getSystemErrorMessage(errno);
}

/** The door of `map --serve`: who is let in, and what a page is told. */
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { type IncomingMessage, request, type RequestOptions } from 'node:http';
import { type AddressInfo, connect, type Socket } from 'node:net';
import { createInterface } from 'node:readline';
import { after, before, describe, test } from 'node:test';
import { text } from 'node:stream/consumers';
import { setTimeout as sleep } from 'node:timers/promises';
import { MapServer, readListen } from '../../../src/commands/mapserver.ts';
import { pageWith } from '../../../src/commands/pagefile.ts';
import type { Picture, PictureEvent } from '../../../src/page/picture.ts';

const EMPTY: Picture = { at: '', host: 'one', remarks: [], tree: [], grids: [], conflicts: [] };

describe('the door', () => {
  let server: MapServer;
  let port: number;
  let taken = 0;
  let picture: () => Picture = () => EMPTY;
  let [followers, isTold] = [0, false];
  let tellNews: () => void = () => undefined;

  before(async () => {
    const take = async () => (taken++, picture());
    const follow = async (tell: () => void, signal: AbortSignal) => {
      followers++;
      tellNews = tell;
      signal.addEventListener('abort', () => followers--);
    };
    const pictures = {
      take,
      follow,
      get isTold() {
        return isTold;
      },
    };
    server = new MapServer(pictures, await pageWith(null), { periodMs: 50, settleMs: 2000, quietMs: 600_000 });
    server.http.listen(0, '127.0.0.1');
    await once(server.http, 'listening');
    ({ port } = server.http.address() as AddressInfo);
  });
  after(() => server.close());

  const ask = async (options: RequestOptions): Promise<IncomingMessage> => {
    const asked = request({ host: '127.0.0.1', port, agent: false, ...options });
    asked.end();
    const [answer] = (await once(asked, 'response')) as [IncomingMessage];
    return answer;
  };
  const status = async (options: RequestOptions) => {
    const answer = await ask(options);
    answer.resume();
    return answer.statusCode;
  };

  test('gives the page, and says what a browser may do with it', async () => {
    const answer = await ask({ path: '/' });
    assert.equal(answer.statusCode, 200);
    const policy = String(answer.headers['content-security-policy']);
    assert.match(
      policy,
      /^default-src 'none'; script-src 'sha256-[^']+'; style-src 'sha256-[^']+'; connect-src 'self'; /,
    );
    assert.match(policy, /require-trusted-types-for 'script'; trusted-types 'none'; frame-ancestors 'none'$/);
    assert.doesNotMatch(policy, /unsafe|http|\*/);
    assert.equal(answer.headers['x-content-type-options'], 'nosniff');
    assert.equal(answer.headers['cross-origin-resource-policy'], 'same-origin');
    assert.equal(answer.headers['access-control-allow-origin'], undefined);
    const html = await text(answer);
    assert.match(html, /^<!doctype html>/);
    assert.doesNotMatch(html, /src=|href=|@import|url\(/, 'nothing comes from elsewhere');
  });

  test('opens by localhost and by addresses alone: a name may be made to lead here', async () => {
    for (const host of ['localhost', `localhost:${port}`, '127.0.0.1:9000', '[::1]:8099', 'LOCALHOST'])
      assert.equal(await status({ headers: { host } }), 200, host);
    for (const host of ['attacker.example', 'localhost.attacker.example', '127.0.0.1.nip.io', 'localhost@x', 'a[::1]'])
      assert.equal(await status({ headers: { host } }), 421, host);
    // Without any, as in HTTP/1.0.
    const socket = connect(port, '127.0.0.1');
    socket.end('GET / HTTP/1.0\r\n\r\n');
    assert.match(await text(socket), /^HTTP\/1\.1 421 /);
  });

  test('is only read', async () => {
    for (const method of ['POST', 'PUT', 'DELETE', 'OPTIONS', 'PATCH'])
      assert.equal(await status({ method }), 405, method);
    const head = await ask({ method: 'HEAD' });
    assert.deepEqual([head.statusCode, await text(head)], [200, '']);
    const events = await ask({ method: 'HEAD', path: '/events' });
    assert.deepEqual([events.statusCode, await text(events)], [200, '']);
    for (const path of ['/favicon.ico', '//', '/../etc/passwd', '/events/', 'http://attacker.example/', '/%0d%0aX:y'])
      assert.equal(await status({ path }), 404, path);
    const refused = await ask({ path: '/<img src=x onerror=alert(1)>'.replaceAll(' ', '%20') });
    assert.equal(refused.headers['content-type'], 'text/plain; charset=utf-8');
    refused.resume();
  });

  test('gives no other site anything', async () => {
    for (const site of ['cross-site', 'same-site'])
      assert.equal(await status({ path: '/events', headers: { 'sec-fetch-site': site } }), 403, site);
    assert.equal(await status({ path: '/', headers: { 'sec-fetch-site': 'cross-site' } }), 200, 'a link to the page');
  });

  test('tells a page what is, what has changed and what is wrong, and does not look while nobody does', async () => {
    const before = taken;
    const first = await ask({ path: '/events' });
    const events = eventsOf(first);
    assert.deepEqual((await events.next()).picture, EMPTY);
    assert.equal((await events.next()).picture, undefined, 'nothing has changed');
    picture = () => ({ ...EMPTY, host: 'two' });
    assert.equal((await events.next()).picture?.host, 'two');
    picture = () => {
      throw new Error('no \u001b[31mstate');
    };
    assert.equal((await events.next()).trouble, 'no \\u001b[31mstate');
    picture = () => EMPTY;
    assert.deepEqual((await events.next()).picture, EMPTY);
    first.destroy();
    // What is on its way ends; then nobody is asked any more.
    const end = taken;
    const second = await ask({ path: '/events' });
    assert.deepEqual((await eventsOf(second).next()).picture, EMPTY, 'who comes later gets it too');
    second.destroy();
    assert.ok(before < end);
  });

  test('where the daemon tells what happens it looks then, and for a moment after it, and rests otherwise', {
    timeout: 60_000,
  }, async () => {
    const page = await ask({ path: '/events' });
    const events = eventsOf(page);
    await events.next();
    isTold = true;
    // What is asked for after the last news shows that it has become quiet.
    for (let seen = -1; seen !== taken; await sleep(500)) seen = taken;
    assert.equal(followers, 1);
    picture = () => ({ ...EMPTY, host: 'news' });
    tellNews();
    const hostOf = async (): Promise<string> => (await events.next()).picture?.host ?? hostOf();
    assert.equal(await hostOf(), 'news');
    // What Docker knows a little later.
    picture = () => ({ ...EMPTY, host: 'later' });
    assert.equal(await hostOf(), 'later');
    // Who opens the page meanwhile gets what is now.
    for (let seen = -1; seen !== taken; await sleep(500)) seen = taken;
    picture = () => ({ ...EMPTY, host: 'now' });
    const other = await ask({ path: '/events' });
    assert.equal(await hostOf(), 'now');
    // Nobody looks: nobody is followed either.
    for (const one of [page, other]) one.destroy();
    isTold = false;
    tellNews();
    while (followers > 0) await sleep(20);
    picture = () => EMPTY;
  });

  test('has room for so many pages, and then says so', async () => {
    const open = await Promise.all(Array.from({ length: 32 }, () => ask({ path: '/events' })));
    assert.ok(open.every(({ statusCode }) => statusCode === 200));
    const refused = await ask({ path: '/events' });
    assert.equal(refused.statusCode, 503);
    assert.match(await text(refused), /^32 pages are open already/);
    assert.equal(await status({ path: '/' }), 200);
    for (const one of open) one.destroy();
  });

  test('closes a connection that asks again before it was answered', { timeout: 10_000 }, async () => {
    const greedy = connect(port, '127.0.0.1').on('error', () => undefined);
    greedy.write('GET /events HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n'.repeat(2000));
    greedy.resume();
    await new Promise((resolve) => greedy.once('close', resolve));
    assert.equal(await status({ path: '/' }), 200);
  });

  test('does not wait for a page that takes nothing, which gets the latest when it does', async () => {
    let count = 0;
    // Each of them is other than the one before, and more than a socket holds.
    picture = () => ({ ...EMPTY, host: String(++count), remarks: ['x'.repeat(8_000_000)] });
    const numbered = async (events: { next(): Promise<PictureEvent> }): Promise<number> => {
      const number = Number((await events.next()).picture?.host);
      return Number.isNaN(number) ? numbered(events) : number;
    };
    const slow = await ask({ path: '/events' });
    const quick = eventsOf(await ask({ path: '/events' }));
    const seen = [await numbered(quick), await numbered(quick), await numbered(quick)];
    assert.equal(new Set(seen).size, 3, 'the quick one is told of each');
    const late = eventsOf(slow);
    const [first, second] = [await numbered(late), await numbered(late)];
    assert.ok(second - first > 1, `it missed some: ${first} ${second}`);
    picture = () => EMPTY;
    slow.destroy();
  });

  test('pages that take nothing are let go before much waits for them, those behind for longest first', {
    timeout: 60_000,
  }, async () => {
    let count = 0;
    picture = () => ({ ...EMPTY, host: String(++count), remarks: ['x'.repeat(16_000_000)] });
    const quick = eventsOf(await ask({ path: '/events' }));
    const slow: IncomingMessage[] = [];
    const ends: number[] = [];
    for (let at = 0; at < 7; at++) {
      // Another picture waits for each.
      while ((await quick.next()).picture === undefined);
      const connected = once(server.http, 'connection');
      slow.push(await ask({ path: '/events' }));
      const [socket] = (await connected) as [Socket];
      socket.once('close', () => ends.push(at));
    }
    while (ends.length < 3) await quick.next();
    assert.deepEqual(ends.slice(0, 3), [0, 1, 2]);
    picture = () => EMPTY;
    for (const one of slow) one.destroy();
  });
});

/** An event is one line, of which an empty one follows. */
function eventsOf(answer: IncomingMessage): { next(): Promise<PictureEvent> } {
  const lines = createInterface({ input: answer })[Symbol.asyncIterator]();
  const next = async (): Promise<PictureEvent> => {
    const { value, done } = await lines.next();
    assert.ok(done !== true, 'the stream has ended');
    return value === '' ? next() : (JSON.parse(value.replace(/^data: /, '')) as PictureEvent);
  };
  return { next };
}

test('where it listens: this host alone, unless it is said twice', () => {
  assert.deepEqual(readListen('127.0.0.1:8099', false), { host: '127.0.0.1', port: 8099 });
  assert.deepEqual(readListen('localhost:0', false), { host: '127.0.0.1', port: 0 });
  assert.deepEqual(readListen('[::1]:80', false), { host: '::1', port: 80 });
  assert.deepEqual(readListen('unix:/run/map.sock', false), { path: '/run/map.sock' });
  for (const open of ['0.0.0.0:8099', '[::]:8099', '192.168.1.10:8099']) {
    assert.throws(() => readListen(open, false), { code: 'USAGE', message: /say --open as well$/ });
    assert.ok('host' in readListen(open, true));
  }
  for (const wrong of [
    '',
    '8099',
    ':8099',
    '127.0.0.1',
    '127.0.0.1:99999',
    '::1:80',
    'web:80',
    'unix:map.sock',
    '[127.0.0.1]:1',
  ])
    assert.throws(() => readListen(wrong, true), { code: 'USAGE', message: /cannot listen at/ }, wrong);
});

test('a name is text inside the file too', async () => {
  const { html, policy } = await pageWith({ ...EMPTY, host: '</script><script>alert(1)</script><!--' });
  assert.equal(html.split('<script').length, 3, 'the picture and the program');
  assert.doesNotMatch(html, /alert\(1\)<\/script>/);
  assert.doesNotMatch(policy, /connect-src/, 'a file asks nobody');
});

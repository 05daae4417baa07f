/**
 * Whatever bytes come from where etcd should be: the call fails with a sentence, the process lives, and the next right answer
 * is taken. The endpoint is a real HTTP/2 server, or no HTTP server at all.
 */
import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { existsSync, mkdtempSync } from 'node:fs';
import { constants, type OutgoingHttpHeaders } from 'node:http2';
import { createServer, type Socket } from 'node:net';
import { once } from 'node:events';
import { join } from 'node:path';
import { after, before, describe, test, type TestContext } from 'node:test';
import fc from 'fast-check';
import { PluginError } from '../../src/errors.ts';
import { type ChangeStream, Etcd } from '../../src/store/etcd/client.ts';
import { accessTo } from '../lab/access.ts';
import { outsideLab } from '../lab/enclosure.ts';
import { answer, begin, FakeEtcd, framed, type Misbehaviour } from '../lab/fakeetcd.ts';
import { until, untilSaid } from '../lab/patience.ts';
import { Serving } from '../lab/serving.ts';
import { SharedHost } from '../lab/shared.ts';

const BUNDLE = join(import.meta.dirname, '../../dist/tsmacvlan.cjs');
/** One try: a second one begins after a pause of 100 ms. */
const ONE_TRY_MS = 100;
const KEY = '/tsmacvlan/lan/leases/TsmacvlanLocal/192.168.1.7';
const CLAIM = '{"kind":"container","nodes":["other-1"]}';
const GIGABYTE = 2 ** 30;
const ANSWER = framed(Buffer.from('0a0408071005', 'hex'));

const withStatus = (trailers: OutgoingHttpHeaders): Misbehaviour => {
  return (stream) => answer(stream, Buffer.alloc(0), {}, trailers);
};
const withBytes = (...bytes: number[]): Misbehaviour => {
  return (stream) => answer(stream, framed(Buffer.from(bytes)));
};
const withPage = (status: number): Misbehaviour => {
  return (stream) => {
    stream.respond({ ':status': status, 'content-type': 'text/html' });
    stream.end('<html>'.repeat(10_000));
  };
};

/** What comes in, and what the sentence says of it. */
const NONSENSE: Readonly<Record<string, readonly [Misbehaviour, RegExp]>> = {
  'a message that is not percent-encoded': [
    withStatus({ 'grpc-status': '2', 'grpc-message': 'disk 100% full' }),
    /^the shared store failed \(etcd at .*: disk 100% full\)/,
  ],
  'half an escape': [withStatus({ 'grpc-status': '2', 'grpc-message': 'h%C3%B6h %E4' }), /failed .*h%C3%B6h %E4/],
  'a message with bytes beyond ASCII': [withStatus({ 'grpc-status': '2', 'grpc-message': 'voil\u00e0 %' }), /voil/],
  'a status that is no number': [withStatus({ 'grpc-status': 'fine' }), /invalid grpc-status: fine/],
  'a status that nobody knows': [withStatus({ 'grpc-status': '99' }), /invalid grpc-status: 99/],
  'a status of OK and no answer': [withStatus({ 'grpc-status': '0' }), /missing output message/],
  'two statuses': [withStatus({ 'grpc-status': ['0', '2'] }), /etcd at/],
  'details that are garbage': [
    withStatus({ 'grpc-status': '2', 'grpc-status-details-bin': '!!!not base64' }),
    /etcd at/,
  ],
  'details of no status': [withStatus({ 'grpc-status': '2', 'grpc-status-details-bin': 'WnfxCg' }), /etcd at/],
  'no status at all': [(stream) => answer(stream, ANSWER, {}, {}), /etcd at/],
  'no trailers at all': [(stream) => answer(stream, ANSWER, {}, null), /etcd at/],
  'a length that is cut short': [
    withBytes(0x5a, 0x7f, 0x0a),
    /premature|index out of range|cut short|RangeError|parse/i,
  ],
  'a number that does not end': [withBytes(...Array<number>(9).fill(0xff)), /invalid varint|parse|premature/i],
  'a number of twenty bytes': [withBytes(0x10, ...Array<number>(20).fill(0xff)), /invalid varint|parse|premature/i],
  'a wire type that there is not': [withBytes(0x0f, 0x01), /wire type|parse/],
  'nothing where an answer should be': [withBytes(), /an answer without a header/],
  'a revision beyond all bounds': [
    withBytes(0x0a, 0x0a, 0x18, ...Array<number>(8).fill(0xff), 0x7f),
    /a revision beyond all bounds/,
  ],
  'a length of 1 GB': [
    (stream) => {
      begin(stream);
      stream.write(framed(randomBytes(1000), 0, GIGABYTE));
    },
    /message size 1073741824 is larger than/,
  ],
  'a length of 4 GB': [(stream) => answer(stream, framed(Buffer.alloc(10), 0, 2 ** 32 - 1)), /4294967295/],
  'a message shorter than its length': [(stream) => answer(stream, framed(ANSWER, 0, 1000)), /etcd at/],
  'a second message': [(stream) => answer(stream, Buffer.concat([ANSWER, ANSWER])), /extra output message/],
  'a compressed message': [(stream) => answer(stream, framed(ANSWER, 1)), /compressed/],
  'a compression that was not asked for': [
    (stream) => answer(stream, ANSWER, { 'grpc-encoding': 'gzip' }),
    /unsupported response encoding/,
  ],
  'flags that there are not': [(stream) => answer(stream, framed(randomBytes(20), 0xfe)), /etcd at/],
  'a page of HTML': [withPage(200), /unsupported content type text\/html/],
  'a page of HTML from a proxy without a server': [withPage(502), /HTTP 502/],
  'a page of HTML that is not there': [withPage(404), /HTTP 404/],
  JSON: [(stream) => answer(stream, Buffer.from('{}'), { 'content-type': 'application/json' }), /application\/json/],
  'no content type': [
    (stream) => {
      stream.respond({ ':status': 200 });
      stream.end(ANSWER);
    },
    /content type/,
  ],
  'huge headers': [
    (stream) =>
      answer(stream, ANSWER, Object.fromEntries(Array.from({ length: 100 }, (_, i) => [`x${i}`, 'y'.repeat(2000)]))),
    /etcd at/,
  ],
  'huge trailers': [withStatus({ 'grpc-status': '2', 'grpc-message': 'z'.repeat(60_000) }), /etcd at/],
  'a stream that is reset before an answer': [(stream) => stream.close(constants.NGHTTP2_REFUSED_STREAM), /etcd at/],
  'a stream that is reset within a message': [
    (stream) => {
      begin(stream);
      stream.write(ANSWER.subarray(0, 7), () => stream.close(constants.NGHTTP2_INTERNAL_ERROR));
    },
    /etcd at/,
  ],
  'a connection that breaks within a message': [
    (stream) => {
      begin(stream);
      stream.write(ANSWER.subarray(0, 7), () => stream.session?.destroy());
    },
    /etcd at/,
  ],
  'a connection that is closed politely': [(stream) => stream.session?.goaway(constants.NGHTTP2_NO_ERROR), /etcd at/],
  'messages without end': [
    (stream) => {
      begin(stream);
      const timer = setInterval(() => stream.write(ANSWER), 1);
      stream.on('close', () => clearInterval(timer));
    },
    /extra output message/,
  ],
};

/** What a server says that does not speak HTTP/2. */
const STRANGERS: Readonly<Record<string, (socket: Socket) => void>> = {
  'HTTP/1.1': (socket) => socket.end('HTTP/1.1 400 Bad Request\r\nContent-Length: 2\r\n\r\nno'),
  'a banner': (socket) => socket.end('SSH-2.0-OpenSSH_9.7\r\n'),
  'random bytes': (socket) => socket.end(randomBytes(4096)),
  nothing: (socket) => socket.end(),
  'a reset': (socket) => socket.resetAndDestroy(),
  'a frame of 16 MB': (socket) => socket.write(Buffer.from('ffffff0000000000010000', 'hex')),
};

describe('an endpoint that is no etcd', { skip: outsideLab(), timeout: 500_000 }, () => {
  const options = { timeout: 120_000 };
  const escaped: unknown[] = [];
  const note = (error: unknown) => void escaped.push(error);
  before(() => process.on('uncaughtException', note).on('unhandledRejection', note));
  after(() => {
    process.off('uncaughtException', note).off('unhandledRejection', note);
    assert.deepEqual(escaped, []);
  });

  for (const [what, [misbehaviour, words]] of Object.entries(NONSENSE))
    test(`${what}: a sentence, and the next answer is taken`, options, async (t) => {
      const { fake, etcd } = await open(t);
      fake.misbehaves = () => misbehaviour;
      assert.match((await refusal((patienceMs) => change(etcd, patienceMs))).message, words);
      fake.misbehaves = () => undefined;
      assert.equal((await change(etcd, 10_000)).isDone, true);
      assert.deepEqual(escaped, []);
    });

  for (const [what, speak] of Object.entries(STRANGERS))
    test(`${what} instead of HTTP/2: a sentence`, options, async (t) => {
      const server = createServer((socket) => speak(socket.on('error', () => undefined))).listen(0, '127.0.0.1');
      await once(server, 'listening');
      t.after(() => server.close());
      const etcd = client(t, `127.0.0.1:${(server.address() as { port: number }).port}`);
      const { code } = await refusal((patienceMs) => change(etcd, patienceMs));
      assert.equal(code, 'CLUSTER_UNREACHABLE');
      assert.deepEqual(escaped, []);
    });

  test('random bytes as an answer: a sentence, whichever they are', options, async (t) => {
    const { fake, etcd } = await open(t);
    let bytes: Uint8Array = new Uint8Array();
    fake.misbehaves = () => (stream) => answer(stream, bytes);
    await fc.assert(
      fc.asyncProperty(fc.uint8Array({ maxLength: 200 }), fc.boolean(), async (random, isFramed) => {
        bytes = isFramed ? framed(random) : random;
        await refusalOrAnswer(() => change(etcd, ONE_TRY_MS));
      }),
      { numRuns: 300 },
    );
    assert.deepEqual(escaped, []);
  });

  test('random bytes as a watch: it ends, or goes on, and nothing is thrown', options, async (t) => {
    const { fake, etcd } = await open(t);
    let bytes: Uint8Array = new Uint8Array();
    fake.misbehaves = ofWatches((stream) => answer(stream, bytes));
    await fc.assert(
      fc.asyncProperty(fc.uint8Array({ maxLength: 200 }), fc.boolean(), async (random, isFramed) => {
        const [began = Buffer.alloc(0)] = FakeEtcd.watchAnswers(KEY, CLAIM);
        bytes = Buffer.concat([began, isFramed ? framed(random) : random]);
        await watch(etcd).ended;
      }),
      { numRuns: 300 },
    );
    assert.deepEqual(escaped, []);
  });

  test('a watch that is cut anywhere ends, and what had come whole was heard', options, async (t) => {
    const { fake, etcd } = await open(t);
    const [began = Buffer.alloc(0), news = Buffer.alloc(0)] = FakeEtcd.watchAnswers(KEY, CLAIM);
    const all = Buffer.concat([began, news]);
    const cuts: Misbehaviour[] = [
      (stream) => stream.close(constants.NGHTTP2_INTERNAL_ERROR),
      (stream) => stream.end(),
      (stream) => stream.session?.destroy(),
    ];
    for (let length = 0; length <= all.length; length++)
      for (const cut of cuts) {
        fake.misbehaves = ofWatches((stream) => {
          begin(stream);
          // What the end of a stream overtakes is lost; here it must not.
          stream.write(all.subarray(0, length), () => setTimeout(() => cut(stream), 5));
        });
        const heard: string[] = [];
        const found = watch(etcd, heard);
        const isBegun = await found.began.then(
          () => true,
          (error: unknown) => assert.ok(error instanceof PluginError, String(error)) === undefined && false,
        );
        await found.ended;
        assert.equal(isBegun, length >= began.length, `cut after ${length} bytes`);
        assert.deepEqual(heard, length === all.length ? [KEY] : []);
      }
    assert.deepEqual(escaped, []);
  });

  test('the same page of keys over and over is refused', options, async (t) => {
    const { fake, etcd } = await open(t);
    fake.put(KEY, CLAIM);
    const { entries } = await etcd.list('/tsmacvlan/lan/');
    assert.equal(entries.length, 1);
    // Header, one key and `more`.
    const kv = Buffer.concat([Buffer.from([0x0a, KEY.length]), Buffer.from(KEY)]);
    const page = Buffer.concat([
      Buffer.from('0a0408071805', 'hex'),
      Buffer.from([0x12, kv.length]),
      kv,
      Buffer.of(0x18, 1),
    ]);
    fake.misbehaves = () => (stream) => answer(stream, framed(page));
    assert.match((await refusal(() => etcd.list('/tsmacvlan/lan/'))).message, /keys that were not asked for/);
  });

  test('a token that cannot be sent back is refused, and the next one is taken', options, async (t) => {
    const fake = await FakeEtcd.open();
    const etcd = client(t, fake.endpoint, { name: 'host', password: 'secret' });
    t.after(() => fake.close());
    const login = Buffer.concat([Buffer.from('0a0408071005120461', 'hex'), Buffer.from('\nbc')]);
    fake.misbehaves = (call) => (call === 'Auth/Authenticate' ? (stream) => answer(stream, framed(login)) : undefined);
    assert.match((await refusal((patienceMs) => change(etcd, patienceMs))).message, /a token that is none/);
    fake.misbehaves = () => undefined;
    assert.equal((await change(etcd, 10_000)).isDone, true);
  });

  test('a length of 1 GB costs no memory', options, async (t) => {
    const { fake, etcd } = await open(t);
    fake.misbehaves = () => (stream) => {
      begin(stream);
      stream.write(framed(randomBytes(1000), 0, GIGABYTE));
    };
    await refusal((patienceMs) => change(etcd, patienceMs));
    const { rss } = process.memoryUsage();
    for (let i = 0; i < 50; i++) await refusal((patienceMs) => change(etcd, patienceMs));
    for (let i = 0; i < 50; i++) await watch(etcd).ended;
    assert.ok(process.memoryUsage().rss - rss < 100e6);
  });

  test('one member of two that answers nonsense is left for the other', options, async (t) => {
    const [good, bad] = [await FakeEtcd.open(), await FakeEtcd.open()];
    bad.misbehaves = () => withPage(200);
    t.after(() => Promise.all([good.close(), bad.close()]));
    for (let i = 0; i < 8; i++) {
      const etcd = new Etcd(accessTo([good.endpoint, bad.endpoint]));
      t.after(() => etcd.close());
      await etcd.transaction([], [{ put: { key: KEY, value: CLAIM } }], [KEY]);
    }
    assert.ok((bad.calls.get('KV/Range') ?? 0) > 0);
  });

  test(
    'a host whose watch brings nonsense says so, follows anew, and hears what came meanwhile',
    options,
    async (t) => {
      const fake = await FakeEtcd.open();
      t.after(() => fake.close());
      let isMad = true;
      fake.misbehaves = (call) => {
        if (!isMad || call !== 'Watch/Watch') return undefined;
        const [began = Buffer.alloc(0)] = FakeEtcd.watchAnswers(KEY, CLAIM);
        return (stream) => answer(stream, Buffer.concat([began, framed(Buffer.from([0x5a, 0x7f, 0x0a]))]));
      };
      const host = sharedHost(t, fake);
      await until(() => host.store.diary.some((line) => line.startsWith('the shared store sent what is no answer')));
      // Neither a claim nor the member suffers from it, and it does not ask all the time.
      assert.equal(await host.address(), '192.168.1.1');
      assert.ok((fake.calls.get('Watch/Watch') ?? 0) < 20);
      isMad = false;
      fake.put(KEY, CLAIM);
      const lease = async () => host.store.leases.get('TsmacvlanLocal/192.168.1.7');
      await until(async () => (await lease())?.holder?.node === 'other-1');
      fake.put(KEY.replace('1.7', '1.8'), CLAIM);
      await until(async () => (await host.store.leases.get('TsmacvlanLocal/192.168.1.8'))?.holder !== undefined);
      assert.deepEqual(escaped, []);
    },
  );

  test('a watch that nobody answers ends with a sentence, and the next one begins', options, async (t) => {
    const { fake, etcd } = await open(t);
    fake.misbehaves = ofWatches((stream) => begin(stream));
    const stream = watch(etcd);
    await assert.rejects(stream.began, /no answer in time/);
    assert.equal(await stream.ended, undefined);
    fake.misbehaves = () => undefined;
    await watch(etcd).began;
  });

  test('an endpoint that cannot be one is a sentence, and passed over where there is another', options, async (t) => {
    const fake = await FakeEtcd.open();
    t.after(() => fake.close());
    const nowhere = client(t, '127.0.0.1:99999');
    const stream = watch(nowhere);
    await assert.rejects(stream.began, /no quorum or cannot be reached .*Invalid URL/);
    assert.equal(await stream.ended, undefined);
    assert.match((await refusal((patienceMs) => change(nowhere, patienceMs))).message, /Invalid URL/);
    // Which of several is asked first is left to chance.
    for (let i = 0; i < 8; i++) {
      const etcd = new Etcd(accessTo(['127.0.0.1:99999', fake.endpoint]));
      assert.equal((await change(etcd, 10_000)).isDone, true);
      etcd.close();
    }
    assert.deepEqual(escaped, []);
  });

  test('what others give back while nothing is heard of them is free afterwards', options, async (t) => {
    const fake = await FakeEtcd.open();
    t.after(() => fake.close());
    const keys = [1, 2].map((n) => `/tsmacvlan/lan/leases/TsmacvlanLocal/192.168.1.${n}`);
    for (const key of keys) fake.put(key, CLAIM);
    fake.put('/tsmacvlan/lan/nodes/other-1', '{"host":"other"}');
    const host = sharedHost(t, fake);
    await host.pool('192.168.1.0/30');
    await assert.rejects(host.address(), /no free address in 192\.168\.1\.0\/30: 2 leased/);
    fake.misbehaves = (call) => (call === 'Watch/Watch' ? (stream) => stream.close() : undefined);
    fake.endWatches();
    for (const key of keys) fake.delete(key);
    fake.misbehaves = () => undefined;
    await until(async () => (await host.store.leases.list()).length === 0);
    await until(async () => (await host.address().catch(() => '')) === '192.168.1.1');
  });

  test('the daemon lives, answers, says what is wrong, and works when etcd does', options, async (t) => {
    assert.ok(existsSync(BUNDLE), 'dist/tsmacvlan.cjs is missing; run make build');
    const fake = await FakeEtcd.open();
    t.after(() => fake.close());
    const kinds = ['a message that is not percent-encoded', 'a length that is cut short', 'a page of HTML'] as const;
    let [misbehaviour] = NONSENSE[kinds[0]] ?? [withPage(200)];
    fake.misbehaves = () => misbehaviour;
    const directory = mkdtempSync('/run/daemon-');
    const settings = { STORE: `etcd://${fake.endpoint}` };
    const daemon = await Serving.start(directory, settings, BUNDLE);
    t.after(() => daemon.stop());
    const callsMade = () => [...fake.calls.values()].reduce((sum, one) => sum + one, 0);
    for (const kind of kinds) {
      [misbehaviour] = NONSENSE[kind] ?? [withPage(200)];
      const before = callsMade();
      await until(() => callsMade() > before + 5);
      assert.equal((await daemon.call('Plugin.Activate')).status, 200, kind);
    }
    await untilSaid(/the shared store failed .*disk 100% full/, () => daemon.log);
    const pool = { AddressSpace: 'TsmacvlanLocal', Pool: '192.168.1.0/24', SubPool: '', Options: {}, V6: false };
    const { body } = await daemon.call('IpamDriver.RequestPool', pool);
    const request = { PoolID: body['PoolID'], Address: '', Options: {} };
    const { status, sentence } = await daemon.call('IpamDriver.RequestAddress', request);
    assert.ok(status >= 400, sentence);
    assert.match(sentence, /shared store/);
    fake.misbehaves = () => undefined;
    await until(async () => (await daemon.call('IpamDriver.RequestAddress', request)).status === 200);
    // A watch cut short ended the daemon before.
    const watches = () => fake.calls.get('Watch/Watch') ?? 0;
    const before = watches();
    fake.misbehaves = (call) => (call === 'Watch/Watch' ? withBytes(0x5a, 0x7f, 0x0a) : undefined);
    fake.endWatches();
    await until(() => watches() > before + 2);
    await untilSaid(/error the shared store has no quorum/, () => daemon.log);
    assert.equal((await daemon.call('Plugin.Activate')).status, 200);
    assert.ok(daemon.isRunning());
    assert.equal(await daemon.stop(), 0);
  });
});

/** Which cluster it is was said rightly before. */
function ofWatches(misbehaviour: Misbehaviour): FakeEtcd['misbehaves'] {
  return (call) => (call === 'Watch/Watch' ? misbehaviour : undefined);
}

interface Opened {
  readonly fake: FakeEtcd;
  readonly etcd: Etcd;
}

async function open(t: TestContext): Promise<Opened> {
  const fake = await FakeEtcd.open();
  t.after(() => fake.close());
  return { fake, etcd: client(t, fake.endpoint) };
}

function client(t: TestContext, endpoint: string, user: { name: string; password: string } | null = null): Etcd {
  const etcd = new Etcd(accessTo([endpoint], null, user));
  t.after(() => etcd.close());
  return etcd;
}

function sharedHost(t: TestContext, fake: FakeEtcd): SharedHost {
  return new SharedHost(t, { directory: mkdtempSync('/run/host-'), endpoints: [fake.endpoint], cluster: 'lan' });
}

function change(etcd: Etcd, patienceMs: number) {
  return etcd.transaction([], [{ put: { key: KEY, value: CLAIM } }], [KEY], patienceMs);
}

function watch(etcd: Etcd, heard: string[] = []): ChangeStream {
  return etcd.watch('/tsmacvlan/lan/', 1, (changes) => heard.push(...changes.map(({ entry }) => entry.key)));
}

/** The sentence; with more patience each time that the machine stood still and the time of a try was up first. */
async function refusal(act: (patienceMs: number) => Promise<unknown>): Promise<PluginError> {
  for (let patienceMs = ONE_TRY_MS; ; patienceMs *= 4) {
    const error = await act(patienceMs).then(
      () => assert.fail('it was taken for an answer'),
      (reason: unknown) => reason,
    );
    assert.ok(error instanceof PluginError, String(error));
    assert.match(error.code, /^CLUSTER_(UNREACHABLE|FAILED)$/);
    if (patienceMs > 10_000 || !error.message.includes('no answer in time')) return error;
  }
}

async function refusalOrAnswer(act: () => Promise<unknown>): Promise<void> {
  await act().catch((error: unknown) => assert.ok(error instanceof PluginError, String(error)));
}

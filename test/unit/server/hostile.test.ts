/** What no engine sends, and what must come of it: a sentence, no driver asked, and a server that goes on. */
import assert from 'node:assert/strict';
import { connect, type Socket } from 'node:net';
import { setTimeout as delay } from 'node:timers/promises';
import { test } from 'node:test';
import fc from 'fast-check';
import { ask, type Door, openDoor, sentenceOf } from './door.ts';

const options = { timeout: 20_000 };

const CALLS_WITH_BODY = [
  ...['GwAllocCheck', 'AllocateNetwork', 'FreeNetwork', 'CreateNetwork', 'DeleteNetwork', 'CreateEndpoint'],
  ...['DeleteEndpoint', 'EndpointOperInfo', 'Join', 'Leave', 'ProgramExternalConnectivity'],
  ...['RevokeExternalConnectivity', 'DiscoverNew', 'DiscoverDelete'],
]
  .map((verb) => `NetworkDriver.${verb}`)
  .concat(['RequestPool', 'ReleasePool', 'RequestAddress', 'ReleaseAddress'].map((verb) => `IpamDriver.${verb}`));

/** Refused with HTTP 400 and this sentence, without a driver being asked. */
async function refuses(door: Door, call: string, body: unknown, sentence: RegExp): Promise<void> {
  const reply = await ask(door, call, body);
  assert.equal(reply.status, 400, `${call} ${JSON.stringify(body)?.slice(0, 80)}`);
  assert.match(sentenceOf(reply), sentence);
  assert.deepEqual(door.asked, []);
}

test(
  'an empty body, as engines send it when they repeat a call, is refused by every call that needs one',
  options,
  async (t) => {
    const door = await openDoor(t);
    for (const call of CALLS_WITH_BODY)
      await refuses(door, call, undefined, /^empty request body for .* moby#35459\); nothing was changed/);
  },
);

for (const [what, body, sentence] of [
  ['truncated JSON', '{"NetworkID":"abc', /^request body of 17 bytes is not complete JSON; nothing was changed/],
  ['text that is not JSON', 'hello', /is not complete JSON/],
  ['two JSON values', '{}{}', /is not complete JSON/],
  ['a list', '[]', /^the request body must be an object, not a list; nothing was changed/],
  ['a text', '"x"', /must be an object, not "x"/],
  ['null', 'null', /must be an object, not null/],
  ['a number', '1e999', /must be an object, not null/],
  ['lists nested half a million deep', `${'['.repeat(500_000)}${']'.repeat(500_000)}`, /must be an object, not a list/],
  [
    'objects nested fifty thousand deep',
    `${'{"NetworkID":'.repeat(50_000)}1${'}'.repeat(50_000)}`,
    /must be .*, not an object/,
  ],
  ['lists that never close', '['.repeat(1_000_000), /is not complete JSON/],
] as const) {
  test(`a body that is ${what} is refused with a sentence`, options, async (t) => {
    const door = await openDoor(t);
    const calls = what.includes('nested') || what.includes('never') ? ['NetworkDriver.DeleteNetwork'] : CALLS_WITH_BODY;
    const shaped = what === 'objects nested fifty thousand deep';
    for (const call of calls)
      await refuses(door, call, body, shaped ? /^field "NetworkID" must be text, not an object; / : sentence);
    assert.equal((await ask(door, 'Plugin.Activate')).status, 200);
  });
}

test('bytes that are not UTF-8 are refused', options, async (t) => {
  const door = await openDoor(t);
  const body = Buffer.from('{"NetworkID":"\xff\xfe"}', 'latin1');
  const answer = await talk(door, [
    `POST /NetworkDriver.Leave HTTP/1.1\r\nHost: x\r\nContent-Length: ${body.length}\r\n\r\n`,
    body,
  ]);
  assert.match(answer, /^HTTP\/1\.1 400 .*is not complete JSON/s);
});

test('a body above 1 MiB is refused, whether it says so beforehand or not', options, async (t) => {
  const door = await openDoor(t);
  const sentence = /^request body is larger than 1048576 bytes; nothing was changed/;
  await refuses(door, 'NetworkDriver.CreateNetwork', { NetworkID: 'a'.repeat(2 * 1024 * 1024) }, sentence);
  const chunk = `10000\r\n${'x'.repeat(0x10000)}\r\n`;
  const answer = await talk(door, [
    'POST /NetworkDriver.Leave HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n',
    ...Array.from({ length: 40 }, () => chunk),
    '0\r\n\r\n',
  ]);
  assert.match(answer, /^HTTP\/1\.1 400 .*larger than 1048576 bytes/s);
});

test('a compressed body is refused, so that none can grow', options, async (t) => {
  const door = await openDoor(t);
  const reply = await ask(door, 'NetworkDriver.Leave', '{}', { 'Content-Encoding': 'gzip' });
  assert.equal(reply.status, 400);
  assert.match(sentenceOf(reply), /^request body cannot be read \(content encoding unsupported\)/);
});

const ID = 'an id of 1 to 256 letters, digits, "\\.", "_" or "-"';

for (const [what, id, received] of [
  ['empty', '', '""'],
  ['257 characters', 'a'.repeat(257), '"a{77}\\.{3}"'],
  ['half a megabyte', 'a'.repeat(500_000), '"a{77}\\.{3}"'],
  ['a path', '../../etc/passwd', '"\\.\\./\\.\\./etc/passwd"'],
  ['a hidden file', '.profile', '"\\.profile"'],
  ['a control character', 'a\u001b[31mb', '"a\\\\u001b\\[31mb"'],
  ['a line feed at the end', 'abc\n', '"abc\\\\n"'],
  ['a zero byte', 'a\0', '"a\\\\u0000"'],
  ['a C1 control character', 'a\u009b31mb', '"a\\\\u009b31mb"'],
  ['letters of other scripts', 'сеть', '"сеть"'],
] as const) {
  test(`an id that is ${what} is refused and shown harmlessly`, options, async (t) => {
    const door = await openDoor(t);
    const sentence = new RegExp(`^field "NetworkID" must be ${ID}, not ${received}; nothing was changed, `);
    for (const call of ['CreateNetwork', 'DeleteNetwork', 'FreeNetwork'])
      await refuses(door, `NetworkDriver.${call}`, { NetworkID: id }, sentence);
    const endpointSentence = new RegExp(sentence.source.replace('NetworkID', 'EndpointID'));
    for (const call of ['CreateEndpoint', 'Join', 'Leave', 'DeleteEndpoint', 'EndpointOperInfo'])
      await refuses(door, `NetworkDriver.${call}`, { NetworkID: 'n1', EndpointID: id }, endpointSentence);
    assertNothingRaw(door);
  });
}

const BOTH = { NetworkID: 'n1', EndpointID: 'e1' };
const PORTS = 'com.docker.network.portmap';
const GENERIC = 'com.docker.network.generic';

for (const [call, body, sentence] of [
  ['NetworkDriver.CreateNetwork', {}, /^field "NetworkID" is missing in the request; nothing was changed/],
  ['NetworkDriver.CreateNetwork', { NetworkID: null }, /"NetworkID" must be text, not null/],
  ['NetworkDriver.CreateNetwork', { NetworkID: 5 }, /"NetworkID" must be text, not 5/],
  ['NetworkDriver.CreateNetwork', { NetworkID: { a: 1 } }, /"NetworkID" must be text, not an object/],
  ['NetworkDriver.CreateNetwork', { NetworkID: 'n', IPv4Data: {} }, /"IPv4Data" must be a list, not an object/],
  ['NetworkDriver.CreateNetwork', { NetworkID: 'n', IPv4Data: 'x' }, /"IPv4Data" must be a list, not "x"/],
  ['NetworkDriver.CreateNetwork', { NetworkID: 'n', IPv4Data: [1] }, /"IPv4Data.0" must be an object, not 1/],
  ['NetworkDriver.CreateNetwork', { NetworkID: 'n', IPv4Data: [{}] }, /"IPv4Data.0.Pool" is missing/],
  [
    'NetworkDriver.CreateNetwork',
    { NetworkID: 'n', IPv6Data: [{ Pool: true }] },
    /"IPv6Data.0.Pool" must be text, not true/,
  ],
  ['NetworkDriver.CreateNetwork', { NetworkID: 'n', Options: [] }, /"Options" must be an object, not a list/],
  [
    'NetworkDriver.CreateNetwork',
    { NetworkID: 'n', Options: { [GENERIC]: 'x' } },
    /generic" must be an object, not "x"/,
  ],
  [
    'NetworkDriver.CreateNetwork',
    { NetworkID: 'n', Options: { [GENERIC]: { mtu: 1500 } } },
    /generic.mtu" must be text of at most 4096 characters, not 1500/,
  ],
  [
    'NetworkDriver.CreateNetwork',
    { NetworkID: 'n', Options: { [GENERIC]: { a: 'x'.repeat(5000) } } },
    /generic.a" must be text of at most 4096/,
  ],
  [
    'NetworkDriver.CreateNetwork',
    { NetworkID: 'n', Options: { 'com.docker.network.internal': 'true' } },
    /internal" must be true or false, not "true"/,
  ],
  [
    'NetworkDriver.CreateNetwork',
    { NetworkID: 'n', Options: { 'com.docker.network.enable_ipv6': 1 } },
    /enable_ipv6" must be true or false, not 1/,
  ],
  ['NetworkDriver.CreateEndpoint', { NetworkID: 'n' }, /"EndpointID" is missing/],
  ['NetworkDriver.CreateEndpoint', { ...BOTH, Interface: 'x' }, /"Interface" must be an object, not "x"/],
  ['NetworkDriver.CreateEndpoint', { ...BOTH, Interface: { Address: 7 } }, /"Interface.Address" must be text, not 7/],
  [
    'NetworkDriver.CreateEndpoint',
    { ...BOTH, Interface: { MacAddress: ['a'] } },
    /"Interface.MacAddress" must be text, not a list/,
  ],
  ['NetworkDriver.CreateEndpoint', { ...BOTH, Options: { [PORTS]: 'x' } }, /portmap" must be a list, not "x"/],
  [
    'NetworkDriver.CreateEndpoint',
    { ...BOTH, Options: { [PORTS]: [{ Proto: 'tcp' }] } },
    /portmap.0.Proto" must be a number, not "tcp"/,
  ],
  [
    'NetworkDriver.AllocateNetwork',
    { NetworkID: 'n', Options: { a: {} } },
    /"Options.a" must be text of at most 4096 characters, not an object/,
  ],
  ['IpamDriver.RequestPool', { Pool: 10 }, /"Pool" must be text, not 10/],
  ['IpamDriver.RequestPool', { AddressSpace: false }, /"AddressSpace" must be text, not false/],
  ['IpamDriver.RequestPool', { V6: 'no' }, /"V6" must be true or false, not "no"/],
  ['IpamDriver.RequestPool', { Options: { a: null } }, /"Options.a" must be text of at most 4096 characters, not null/],
  ['IpamDriver.ReleasePool', { PoolID: '' }, /"PoolID" must be the PoolID that RequestPool answered, not ""/],
  ['IpamDriver.ReleasePool', { PoolID: 'a\nb' }, /"PoolID" must be the PoolID that RequestPool answered, not "a\\nb"/],
  ['IpamDriver.RequestAddress', { PoolID: 'p', Address: {} }, /"Address" must be text, not an object/],
  ['IpamDriver.ReleaseAddress', { PoolID: 'p' }, /"Address" is missing/],
] as const) {
  test(`${call} refuses ${JSON.stringify(body).slice(0, 90)}`, options, async (t) => {
    await refuses(await openDoor(t), call, body, sentence);
  });
}

test('keys that mean something to JavaScript are keys like any other', options, async (t) => {
  const door = await openDoor(t);
  const body = `{"__proto__":{"NetworkID":"x"},"constructor":{"prototype":{"polluted":1}},"NetworkID":"n1",
    "Options":{"${GENERIC}":{"__proto__":"a","constructor":"b","hasOwnProperty":"c"}}}`;
  assert.equal((await ask(door, 'NetworkDriver.CreateNetwork', body)).status, 200);
  const { networkId, options: given } = door.asked[0]?.[1] as { networkId: string; options: Record<string, string> };
  assert.equal(networkId, 'n1');
  assert.deepEqual(Object.entries(given), [
    ['__proto__', 'a'],
    ['constructor', 'b'],
    ['hasOwnProperty', 'c'],
  ]);
  assert.equal(({} as Record<string, unknown>)['polluted'], undefined);
  await refuses(
    await openDoor(t),
    'NetworkDriver.CreateNetwork',
    '{"__proto__":{"NetworkID":"n1"}}',
    /"NetworkID" is missing/,
  );
});

test('keys nobody asked for are ignored', options, async (t) => {
  const door = await openDoor(t);
  assert.equal(
    (await ask(door, 'NetworkDriver.Leave', { ...BOTH, Future: { deep: [1, 2, { x: null }] } })).status,
    200,
  );
  assert.deepEqual(door.asked, [['leave', 'n1', 'e1']]);
});

test('whatever JSON comes, the answer is 200 or a sentence', { timeout: 60_000 }, async (t) => {
  const door = await openDoor(t);
  const key = fc.constantFrom(
    'NetworkID',
    'EndpointID',
    'Options',
    'Interface',
    'IPv4Data',
    'Pool',
    'PoolID',
    'Address',
    GENERIC,
  );
  const body = fc.dictionary(key, fc.oneof(fc.jsonValue(), fc.dictionary(key, fc.jsonValue()), fc.constant('n1')));
  await fc.assert(
    fc.asyncProperty(fc.constantFrom(...CALLS_WITH_BODY), body, async (call, value) => {
      const reply = await ask(door, call, value);
      if (reply.status === 200) return;
      assert.equal(reply.status, 400);
      assert.match(sentenceOf(reply), /^[a-z][^\n]*; nothing was changed, [^\n.]+$/);
    }),
    { numRuns: 300 },
  );
  assertNothingRaw(door);
});

test('an unknown call gets 404 and a sentence, whatever its name', options, async (t) => {
  const door = await openDoor(t);
  for (const call of [
    'VolumeDriver.Create',
    'networkdriver.join',
    'NetworkDriver.Join/',
    'NetworkDriver',
    '',
    '%',
    '%00',
    '..%2f',
    'x'.repeat(5000),
  ]) {
    const reply = await ask(door, call, '{}');
    assert.equal(reply.status, 404, call);
    assert.match(sentenceOf(reply), /^unknown call "/);
    assert.ok(sentenceOf(reply).length < 250);
  }
  assertNothingRaw(door);
});

test('a known call that is not POSTed gets 405 and a sentence', options, async (t) => {
  const door = await openDoor(t);
  for (const method of ['GET', 'PUT', 'DELETE', 'PATCH', 'OPTIONS']) {
    const answer = await talk(door, [
      `${method} /NetworkDriver.Leave HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n`,
    ]);
    assert.match(
      answer,
      new RegExp(
        `^HTTP/1\\.1 405 .*Allow: POST.*NetworkDriver\\.Leave was asked with \\\\"${method}\\\\"; use POST`,
        's',
      ),
    );
  }
});

test('an engine of 20.10, which sends no host name, is understood', options, async (t) => {
  const door = await openDoor(t);
  const head =
    'Host: \r\nUser-Agent: Go-http-client/1.1\r\nContent-Length: 0\r\nAccept: application/vnd.docker.plugins.v1.2+json';
  const answer = await talk(door, [`POST /Plugin.Activate HTTP/1.1\r\n${head}\r\n\r\n`]);
  assert.match(
    answer,
    /^HTTP\/1\.1 200 OK\r\nContent-Type: application\/vnd\.docker\.plugins\.v1\.2\+json\r\n.*"Implements"/s,
  );
});

test('what is not HTTP ends its connection and nothing else', options, async (t) => {
  const door = await openDoor(t);
  assert.match(
    await talk(door, ['\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03 tls, not http\r\n\r\n']),
    /^HTTP\/1\.1 400 /,
  );
  assert.equal((await ask(door, 'Plugin.Activate')).status, 200);
});

test('a connection reset in the middle of a body asks no driver and leaves nothing behind', options, async (t) => {
  const door = await openDoor(t);
  for (let i = 0; i < 20; i++) {
    const socket = await dial(door);
    socket.write('POST /NetworkDriver.DeleteNetwork HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{"NetworkID":');
    await delay(2);
    socket.destroy();
  }
  while (door.lines.length < 20) await delay(5);
  assert.deepEqual(door.asked, []);
  assert.ok(door.lines.every(({ fields }) => fields['outcome'] === 'BODY_UNREADABLE'));
  assert.equal((await ask(door, 'Plugin.Activate')).status, 200);
});

/** Sends bytes as they are and answers what came back first. */
async function talk(door: Door, parts: readonly (string | Buffer)[]): Promise<string> {
  const socket = await dial(door);
  for (const part of parts) socket.write(part, 'latin1' as BufferEncoding);
  const answer = await new Promise<string>((resolve, reject) => {
    socket.once('data', (data) => resolve(data.toString()));
    socket.once('error', reject);
    socket.once('close', () => resolve(''));
  });
  socket.destroy();
  return answer;
}

async function dial({ socket: path }: Door): Promise<Socket> {
  const socket = connect(path);
  await new Promise<void>((resolve, reject) => socket.once('connect', resolve).once('error', reject));
  socket.on('error', () => undefined);
  return socket;
}

/** No control character reaches a log line or its fields as it came. */
function assertNothingRaw({ lines }: Door): void {
  const texts = lines.flatMap(({ message, fields }) => [message, ...Object.values(fields).map(String)]);
  // biome-ignore lint/suspicious/noControlCharactersInRegex: these are what must not be there.
  assert.deepEqual(
    texts.filter((text) => /[\u0000-\u001f\u007f-\u009f]/.test(text)),
    [],
  );
}

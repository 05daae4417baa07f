/** What a reader of LOG_NETLINK=on sees. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { KernelError } from '../../../src/kernel/errno.ts';
import * as message from '../../../src/kernel/message.ts';
import { type Answer, NLM_F_CREATE, NLM_F_EXCL, type Request, encodeAttribute } from '../../../src/kernel/netlink.ts';
import { RTM_GETNSID, namespaceBody } from '../../../src/kernel/nsid.ts';
import { NetlinkTrace } from '../../../src/kernel/trace.ts';

const timeout = 20_000;
const request = (type: number, body: Buffer, flags = 0): Request => ({ type, flags, body });
const told = (type: number, body: Buffer) => ({ type, flags: 0, sequence: 1, body });
const done: Answer = { messages: [], error: null };

function traced(): { trace: NetlinkTrace; lines: string[] } {
  const lines: string[] = [];
  return { trace: new NetlinkTrace((line) => void lines.push(line)), lines };
}

test('the creation of a macvlan is one line of names and values, and its parent has its name', async () => {
  const { trace, lines } = traced();
  trace.learn(told(message.RTM_NEWLINK, message.linkBody({ index: 3 }, message.linkName('eth0'))));
  const body = message.linkBody(
    {},
    message.linkName('tsm0123456789ab'),
    message.linkGroup(77),
    message.linkParent(3),
    message.macvlanInfo('bridge', 1000),
    message.linkMacAddress('02:42:0a:09:00:02'),
    message.linkMtu(1400),
  );
  const requests = [request(message.RTM_NEWLINK, body, NLM_F_CREATE | NLM_F_EXCL)];
  const answers = [done];
  assert.equal(await trace.batch(requests, Promise.resolve(answers)), answers);
  assert.deepEqual(lines, [
    'newlink +create +excl name tsm0123456789ab group 77 on 3(eth0) kind macvlan mode bridge bc_queue_len 1000 mac 02:42:0a:09:00:02 mtu 1400 → ok',
  ]);
});

test('each other request of the kernel room has its words', () => {
  const { trace } = traced();
  const { linkBody } = message;
  const lines = [
    request(message.RTM_SETLINK, linkBody({ index: 7, flags: message.IFF_UP, change: message.IFF_UP })),
    request(message.RTM_SETLINK, linkBody({ index: 7, change: message.IFF_UP | message.IFF_PROMISC })),
    request(message.RTM_NEWLINK, linkBody({}, message.vlanInfo(50, '802.1ad'), message.withoutAddressGeneration())),
    request(message.RTM_NEWLINK, linkBody({}, message.linkAlias('tsmacvlan endpoint 1'))),
    request(message.RTM_SETLINK, linkBody({ index: 7 }, message.ipv4Config({ 13: 1, 18: 2 }))),
    request(message.RTM_DELLINK, linkBody({ index: 7 }, message.linkNamespace(4))),
    request(message.RTM_NEWADDR, message.addressBody(7, '10.9.0.2/16', true)),
    request(message.RTM_NEWADDR, message.addressBody(7, 'fd00::2/64')),
    request(message.RTM_NEWROUTE, message.routeBody({ destination: '10.9.0.2/32', linkIndex: 7, source: '10.9.0.1' })),
    request(message.RTM_GETROUTE, message.routeDumpBody()),
    request(message.RTM_GETADDR, message.addressDumpBody(4)),
    request(RTM_GETNSID, namespaceBody(20)),
    request(message.RTM_GETLINK, linkBody({}, encodeAttribute(999, Buffer.from('ab')))),
    request(4711, Buffer.alloc(3)),
  ].map((one) => trace.request(one));
  assert.deepEqual(lines, [
    'setlink 7 +up',
    'setlink 7 -up -promisc',
    'newlink kind vlan id 50 protocol 0x88a8 inet6 addr_gen_mode 1',
    'newlink alias "tsmacvlan endpoint 1"',
    'setlink 7 inet conf arp_filter 1 arp_announce 2',
    'dellink 7 netns 4',
    'newaddr on 7 length 16 local 10.9.0.2 address 10.9.0.2 flags 2',
    'newaddr on 7 length 64 local fd00::2 address fd00::2',
    'newroute length 32 to 10.9.0.2 on 7 from 10.9.0.1',
    'getroute',
    'getaddr netns 4',
    'getnsid fd 20',
    'getlink attribute_999 6162',
    'message 4711 of 3 bytes',
  ]);
});

test('a refusal has its name and the words of the kernel; an exchange that fails is told and fails', async () => {
  const { trace, lines } = traced();
  const requests = [request(message.RTM_SETLINK, message.linkBody({ index: 7 }))];
  const refused = [{ messages: [], error: new KernelError('x', 16, 'Device is\nbusy') }];
  await trace.batch(requests, Promise.resolve(refused));
  await assert.rejects(trace.batch(requests, Promise.reject(new KernelError('x', 1))), { code: 'EPERM' });
  await assert.rejects(trace.dump(requests[0] as Request, Promise.reject(new Error('gone'))), /gone/);
  await trace.dump(requests[0] as Request, Promise.resolve([1, 2, 3]));
  await trace.dump(requests[0] as Request, Promise.resolve(undefined));
  assert.deepEqual(lines, [
    'setlink 7 → EBUSY "Device is\\nbusy"',
    'setlink 7 → EPERM',
    'setlink 7 → "Error: gone"',
    'setlink 7 dump → 3 messages',
    'setlink 7 dump → changed meanwhile',
  ]);
});

test('the link that a message is about keeps its name, one of another namespace gives it none', () => {
  const { trace, lines } = traced();
  const link = (...more: Buffer[]) =>
    told(message.RTM_NEWLINK, message.linkBody({ index: 5, flags: message.IFF_UP }, message.linkName('lan0'), ...more));
  trace.learn(link(message.linkNamespace(3)));
  assert.equal(trace.link(5), '5');
  assert.equal(trace.answer({ messages: [link()], error: null }), 'newlink 5(lan0) up name lan0');
  trace.event(told(message.RTM_DELLINK, message.linkBody({ index: 5 })));
  assert.deepEqual(lines, ['event dellink 5(lan0)']);
});

test('control characters in a name are escaped', () => {
  const { trace } = traced();
  const body = message.linkBody({}, message.linkName('a\u001b[2J\u009b\n'), message.linkAlias('b\u2028\r'));
  assert.equal(
    trace.request(request(message.RTM_NEWLINK, body)),
    'newlink name "a\\u001b[2J\\u009b\\n" alias "b\\u2028\\r"',
  );
});

test('whatever bytes are shown, a line comes out', { timeout }, async () => {
  const types = fc.oneof(fc.constantFrom(16, 17, 18, 19, 20, 21, 22, 24, 25, 26, 88, 89, 90), fc.nat(0xffff));
  const raw = fc.uint8Array({ maxLength: 200 }).map((bytes) => Buffer.from(bytes));
  const attributes = fc
    .array(fc.tuple(fc.oneof(fc.nat(60), fc.nat(0x3fff)), fc.uint8Array({ maxLength: 40 })), { maxLength: 8 })
    .map((list) => Buffer.concat([Buffer.alloc(16), ...list.map(([type, value]) => encodeAttribute(type, value))]));
  await fc.assert(
    fc.asyncProperty(types, fc.oneof(raw, attributes), fc.nat(0xffff), async (type, body, flags) => {
      const { trace, lines } = traced();
      const messages = [told(type, body), told(type, body)];
      await trace.batch([request(type, body, flags)], Promise.resolve([{ messages, error: null }]));
      trace.event(told(type, body));
      assert.equal(lines.length, 2);
      // biome-ignore lint/suspicious/noControlCharactersInRegex: these must not be there.
      for (const line of lines) assert.doesNotMatch(line, /[\u0000-\u001f\u007f-\u009f\u2028\u2029]/);
    }),
    { numRuns: 2000 },
  );
});

/** What becomes of an endpoint when the LAN says that somebody has its address. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { formatAddress } from '../../../src/address.ts';
import type { AddressCheck } from '../../../src/lan/lan.ts';
import { NOT_HELD, type Verdict } from '../../../src/lan/verdict.ts';
import type { ConflictPolicy, Network } from '../../../src/model.ts';
import { type AddressGuesses, EndpointLan } from '../../../src/network/endpointlan.ts';
import { interfaceAddress } from '../../lab/addresses.ts';
import { callLimit } from '../../lab/patience.ts';
import { type Line, logInto } from '../server/door.ts';
import { endpointRecord, networkRecord } from '../store/records.ts';

const options = { timeout: 10_000 };
const STRANGER: Verdict = {
  held: true,
  macAddress: '3c:22:fb:10:aa:01',
  linkName: 'eth0',
  simultaneous: false,
  isOnHost: false,
};
const OWN_HOST: Verdict = { ...STRANGER, isOnHost: true };

interface Answers {
  readonly check?: Verdict;
  readonly insist?: Verdict;
  readonly confirm?: Verdict | Promise<Verdict>;
  /** On standby. */
  readonly ready?: string;
}

function lanThatSays(answers: Answers) {
  const asked: string[] = [];
  const limits = new Set<number | undefined>();
  const signals: (AbortSignal | undefined)[] = [];
  const lines: Line[] = [];
  const says = (question: 'check' | 'insist' | 'confirm') => async (request: AddressCheck) => {
    limits.add(request.atMs);
    signals.push(request.signal);
    asked.push(`${question} ${formatAddress(request.address)}`);
    return answers[question] ?? NOT_HELD;
  };
  const nothing = async () => undefined;
  const room = {
    ...{ check: says('check'), insist: says('insist'), confirm: says('confirm') },
    ...{
      watch: () => undefined,
      forget: () => undefined,
      announce: nothing,
      noteLeaver: nothing,
      keepLeft: nothing,
      keep: async () => null,
      mostAtOnce: Number.POSITIVE_INFINITY,
      isOnStandby: ({ address }: Pick<AddressCheck, 'address'>) => formatAddress(address) === answers.ready,
    },
    ...{ endLeft: () => undefined, vacate: nothing, release: () => undefined },
  };
  const heard: string[] = [];
  const guesses: AddressGuesses = {
    given: (_network, { subnet }, address, isReady) =>
      void heard.push(`given ${formatAddress(address)} of ${subnet}${isReady ? ', ready' : ''}`),
    returned: async (_network, { subnet }, address) =>
      void heard.push(`returned ${formatAddress(address)} of ${subnet}`),
    forget: (networkId) => void heard.push(`forget ${networkId}`),
  };
  const open = (usual: ConflictPolicy) => new EndpointLan(room, guesses, { conflict: usual }, logInto(lines));
  return { asked, heard, limits, signals, lines, open };
}

/** Its IPv4 addresses are chosen by Docker's IPAM and its IPv6 addresses by ours. */
function network(conflict: ConflictPolicy | null, isIsolated = false): Network {
  const record = networkRecord('n1');
  return {
    ...record,
    options: { ...record.options, conflict },
    parent: { ...record.parent, recipe: isIsolated ? 'isolated' : null },
    subnets: [
      { addressSpace: 'LocalDefault', subnet: '10.9.0.0/24', gateway: null, realm: null },
      { addressSpace: 'TsmacvlanLocal', subnet: 'fd09::/64', gateway: null, realm: 'TsmacvlanLocal' },
    ],
  };
}

const endpoint = { ...endpointRecord('e1'), addresses: ['10.9.0.2/24', 'fd09::2/64'].map(interfaceAddress) };

test('what Docker’s IPAM chose is asked for until just under the limit, all addresses once more', options, async () => {
  const { asked, lines, open } = lanThatSays({});
  const lan = open('refuse');
  await lan.check(network(null), endpoint, callLimit());
  await lan.confirm(network(null), endpoint, callLimit());
  assert.deepEqual(asked, ['insist 10.9.0.2', 'confirm 10.9.0.2', 'confirm fd09::2']);
  assert.deepEqual(lines, []);
});

test('nothing is waited for longer than the engine waits', options, async () => {
  const { limits, open } = lanThatSays({});
  const limit = callLimit();
  for (const policy of ['refuse', 'warn'] as const) {
    await open(policy).check(network(null), endpoint, limit);
    await open(policy).confirm(network(null), endpoint, limit);
  }
  assert.deepEqual([...limits], [limit.atMs]);
});

test('who goes on having the address is the reason of a refusal that names a way out', options, async () => {
  const lan = lanThatSays({ insist: STRANGER }).open('refuse');
  await assert.rejects(lan.check(network(null), endpoint, callLimit()), {
    code: 'ADDRESS_HELD',
    message:
      /^address 10\.9\.0\.2 is already used on the LAN by 3c:22.*--aux-address used=10\.9\.0\.2.*--ipam-driver tsmacvlan/,
  });
});

test('of an address of this host no device on the LAN is blamed', options, async () => {
  const lan = lanThatSays({ insist: OWN_HOST }).open('refuse');
  await assert.rejects(lan.check(network(null), endpoint, callLimit()), {
    code: 'ADDRESS_HELD',
    message:
      /^address 10\.9\.0\.2 is already used on this host by .*the host's own link or a container's.*--aux-address used=10\.9\.0\.2/,
  });
});

test('who had it since, and gives it up in time, keeps nobody down', options, async () => {
  const { asked, open } = lanThatSays({ confirm: STRANGER });
  await open('refuse').confirm(network(null), endpoint, callLimit());
  assert.deepEqual(asked.toSorted(), ['confirm 10.9.0.2', 'confirm fd09::2', 'insist 10.9.0.2', 'insist fd09::2']);
});

test('who has it since is the reason of a refusal; this host itself at once', options, async () => {
  const isLost = { code: 'ADDRESS_LOST' };
  const stranger = lanThatSays({ confirm: STRANGER, insist: STRANGER }).open('refuse');
  await assert.rejects(stranger.confirm(network(null), endpoint, callLimit()), isLost);
  const { asked, open } = lanThatSays({ confirm: OWN_HOST });
  await assert.rejects(open('refuse').confirm(network(null), endpoint, callLimit()), isLost);
  assert.deepEqual(asked, ['confirm 10.9.0.2', 'confirm fd09::2']);
});

test('what is asked in CreateEndpoint is answered in Join at the latest', options, async () => {
  const late = Promise.withResolvers<Verdict>();
  const lan = lanThatSays({ confirm: late.promise, insist: STRANGER }).open('refuse');
  const { answer, isDoubtful } = lan.ask(network(null), endpoint, callLimit());
  const confirmed = lan.confirm(network(null), endpoint, callLimit());
  assert.equal(isDoubtful(), false, 'nobody waits for it');
  late.resolve(STRANGER);
  await Promise.all([answer, confirmed].map((one) => assert.rejects(one, { code: 'ADDRESS_LOST' })));
  assert.equal(isDoubtful(), true);

  const free = lanThatSays({}).open('refuse');
  await free.ask(network(null), endpoint, callLimit()).answer;
  await free.confirm(network(null), endpoint, callLimit());
});

test('what is asked is called off when the endpoint goes, and all of it when the daemon ends', options, async () => {
  const { promise: never } = Promise.withResolvers<Verdict>();
  const { signals, open } = lanThatSays({ confirm: never });
  const lan = open('refuse');
  for (const id of ['e1', 'e2']) lan.ask(network(null), { ...endpoint, id }, callLimit());
  const areAborted = () => signals.map((signal) => signal?.aborted);
  lan.forget({ id: 'e1' });
  assert.deepEqual(areAborted(), [true, true, false, false]);
  lan.close();
  assert.deepEqual(areAborted(), [true, true, true, true]);
});

test('with the policy to warn nobody is waited for or refused; it is said once a start', options, async () => {
  for (const [usual, own] of [
    ['warn', null],
    ['refuse', 'warn'],
  ] as const) {
    const { asked, lines, open } = lanThatSays({ check: STRANGER, confirm: STRANGER });
    const lan = open(usual);
    for (const id of ['e1', 'e2']) {
      await lan.check(network(own), { ...endpoint, id }, callLimit());
      for (const _ of ['CreateEndpoint', 'Join']) await lan.confirm(network(own), { ...endpoint, id }, callLimit());
    }
    assert.ok(!asked.some((question) => question.startsWith('insist')));
    assert.deepEqual(
      lines.map(({ level, fields }) => `${level} ${String(fields['address'])} ${String(fields['by'])}`),
      ['10.9.0.2', 'fd09::2', '10.9.0.2', 'fd09::2'].map((address) => `warn ${address} 3c:22:fb:10:aa:01`),
    );
  }
});

test('what this host itself has is refused with either policy', options, async () => {
  const { lines, open } = lanThatSays({ check: OWN_HOST, confirm: OWN_HOST });
  const lan = open('warn');
  await assert.rejects(lan.check(network(null), endpoint, callLimit()), { code: 'ADDRESS_HELD' });
  await assert.rejects(lan.confirm(network(null), endpoint, callLimit()), { code: 'ADDRESS_LOST' });
  assert.deepEqual(lines, []);
});

test('the network’s own policy goes before the setting', options, async () => {
  const lan = lanThatSays({ insist: STRANGER }).open('warn');
  await assert.rejects(lan.check(network('refuse'), endpoint, callLimit()), { code: 'ADDRESS_HELD' });
});

test('an isolated network is on no LAN that could be asked', options, async () => {
  const { asked, open } = lanThatSays({ check: STRANGER, confirm: STRANGER });
  const lan = open('refuse');
  await lan.check(network(null, true), endpoint, callLimit());
  await lan.confirm(network(null, true), endpoint, callLimit());
  assert.deepEqual(asked, []);
});

test(
  'who guesses hears of what Docker’s IPAM chose, whether it was ready, and of its end; of ours never',
  options,
  async () => {
    for (const ready of ['', '10.9.0.2']) {
      const { heard, open } = lanThatSays({ ready });
      const lan = open('refuse');
      await lan.check(network(null), endpoint, callLimit());
      await lan.confirm(network(null), endpoint, callLimit());
      await lan.returned(endpoint, network(null));
      lan.endLeft(network(null));
      const given = `given 10.9.0.2 of 10.9.0.0/24${ready === '' ? '' : ', ready'}`;
      assert.deepEqual(heard, [given, 'returned 10.9.0.2 of 10.9.0.0/24', 'forget n1']);
    }
  },
);

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { PluginError } from '../../../src/errors.ts';
import { readNetworkOptions } from '../../../src/network/options.ts';
import { checkRequest } from '../../../src/network/request.ts';

const DEFAULTS = readNetworkOptions({});

function refusal(options: Record<string, string>): string {
  try {
    readNetworkOptions(options);
  } catch (error) {
    assert.ok(error instanceof PluginError, String(error));
    assert.equal(error.kind, 'mistake');
    return error.message;
  }
  return assert.fail(`accepted ${JSON.stringify(options)}`);
}

test('no options mean an isolated bridge network', () => {
  assert.deepEqual(DEFAULTS, {
    parent: null,
    vlan: [],
    vlanProtocol: '802.1q',
    mode: 'bridge',
    mtu: null,
    macPrefix: '02:42',
    gateway: true,
    broadcastQueueLength: null,
    promiscuous: false,
    probe: null,
    conflict: null,
    hostAccess: false,
    hostAddresses: [],
  });
});

test('the built-in driver’s options mean the same here', () => {
  for (const mode of ['bridge', 'private', 'vepa', 'passthru'] as const) {
    assert.deepEqual(readNetworkOptions({ parent: 'eth0.50', macvlan_mode: mode }), {
      ...DEFAULTS,
      parent: 'eth0.50',
      mode,
    });
  }
});

test('each option of ours is read into its own field', () => {
  const given = {
    parent: 'eth0',
    vlan: '10.20',
    vlan_protocol: '802.1AD',
    mtu: '1400',
    mac_prefix: '0A-1B',
    gateway: 'none',
    bc_queue_len: '0',
    promisc: 'true',
    probe: 'rfc',
    conflict: 'warn',
    host_access: 'true',
    host_ip: '10.0.0.9, FD00:0::9',
  };
  assert.deepEqual(readNetworkOptions(given), {
    parent: 'eth0',
    vlan: [10, 20],
    vlanProtocol: '802.1ad',
    mode: 'bridge',
    mtu: 1400,
    macPrefix: '0a:1b',
    gateway: false,
    broadcastQueueLength: 0,
    promiscuous: true,
    probe: 'rfc',
    conflict: 'warn',
    hostAccess: true,
    hostAddresses: ['10.0.0.9', 'fd00::9'],
  });
});

test('options that the engine owns pass, others are refused with the nearest name', () => {
  assert.deepEqual(readNetworkOptions({ 'com.docker.network.bridge.name': 'x' }), DEFAULTS);
  assert.match(
    refusal({ parnt: 'eth0' }),
    /^unknown option -o "parnt" \(did you mean parent\?\); the options are parent, /,
  );
  assert.match(refusal({ zzzzzzz: 'x' }), /^unknown option -o "zzzzzzz"; the options are parent, /);
});

test('a mode that is none is refused with the four and the likely one', () => {
  assert.equal(
    refusal({ macvlan_mode: 'veth' }),
    'unknown macvlan_mode "veth" (did you mean vepa?); use one of bridge, private, vepa, passthru',
  );
  assert.equal(
    refusal({ macvlan_mode: 'Bridge' }),
    'unknown macvlan_mode "Bridge" (did you mean bridge?); use one of bridge, private, vepa, passthru',
  );
});

test('VLAN ids run from 1 to 4094', () => {
  assert.deepEqual(readNetworkOptions({ parent: 'e', vlan: '1' }).vlan, [1]);
  assert.deepEqual(readNetworkOptions({ parent: 'e', vlan: '4094' }).vlan, [4094]);
  for (const vlan of ['0', '4095', '-1', 'x', '10.', '10.0', '99999', '1e3', ' 5']) {
    assert.match(refusal({ parent: 'e', vlan }), /^VLAN id .* is out of range; use 1 to 4094$/);
  }
  assert.match(refusal({ vlan: '5' }), /^option -o vlan= needs a parent interface; add -o parent=$/);
  assert.match(refusal({ parent: 'e', vlan_protocol: '802.1q' }), /has no VLAN to apply to/);
});

test('numbers out of their range are refused with the range', () => {
  assert.equal(refusal({ mtu: '67' }), 'invalid value "67" for -o mtu; use a whole number from 68 to 65535');
  for (const mtu of ['65536', '1500.5', '0x500', '-1', '1e3', '99999999999'])
    assert.match(refusal({ mtu }), /68 to 65535$/);
  assert.match(refusal({ bc_queue_len: 'many' }), /0 to 1000000$/);
});

test('a MAC prefix is two bytes of a unicast address', () => {
  for (const mac_prefix of ['03:42', '02', '02:42:00', 'zz:42'])
    assert.match(refusal({ mac_prefix }), /use two bytes of a unicast address/);
});

test('control characters in a value reach no terminal raw', () => {
  const message = refusal({ macvlan_mode: 'x\u001b[31m\n\u009b' });
  // biome-ignore lint/suspicious/noControlCharactersInRegex: these must not be there.
  assert.doesNotMatch(message, /[\u0000-\u001f\u007f-\u009f]/);
});

test('host access is for mode bridge with a parent, and its address needs it', () => {
  assert.match(
    refusal({ parent: 'e', host_access: 'true', macvlan_mode: 'vepa' }),
    /^host access works in mode bridge only/,
  );
  assert.match(refusal({ host_access: 'true' }), /^option -o host_access= needs a parent interface/);
  assert.match(refusal({ parent: 'e', host_ip: '10.0.0.9' }), /add -o host_access=true$/);
  for (const host_ip of ['x', '10.0.0.9,10.0.0.8', '10.0.0.9,', 'fd00::1%eth0', '10.0.0.9/24']) {
    assert.match(refusal({ parent: 'e', host_access: 'true', host_ip }), /^invalid value ".*" for -o host_ip/);
  }
  for (const promisc of ['yes', '']) assert.match(refusal({ promisc }), /use true or false$/);
  assert.equal(refusal({ host_access: '' }), 'invalid value "" for -o host_access; use true or false');
  assert.equal(refusal({ conflict: 'ask' }), 'invalid value "ask" for -o conflict; use refuse or warn');
});

test('-o gateway= says which families, or which addresses', () => {
  const gateways = (gateway: string) => {
    const { gateway: isAny, gatewayFamilies, gatewayAddresses } = readNetworkOptions({ parent: 'eth0', gateway });
    return { isAny, gatewayFamilies, gatewayAddresses };
  };
  const nothing = { isAny: true, gatewayFamilies: undefined, gatewayAddresses: undefined };
  for (const value of ['', 'auto', 'AUTO']) assert.deepEqual(gateways(value), nothing);
  assert.deepEqual(gateways('none'), { ...nothing, isAny: false });
  assert.deepEqual(gateways('ipv4'), { ...nothing, gatewayFamilies: ['IPv4'] });
  assert.deepEqual(gateways('ipv6'), { ...nothing, gatewayFamilies: ['IPv6'] });
  assert.deepEqual(gateways('10.0.0.1, FD00:0::1'), { ...nothing, gatewayAddresses: ['10.0.0.1', 'fd00::1'] });
  for (const value of ['10.0.0.1,10.0.0.2', '10.0.0.0/24', 'yes'])
    assert.match(
      refusal({ parent: 'eth0', gateway: value }),
      /^invalid value ".*" for -o gateway; use auto, none, ipv4/,
    );
  assert.equal(
    refusal({ parent: 'eth0', gateway: 'nnoe' }),
    'invalid value "nnoe" for -o gateway (did you mean none?); use auto, none, ipv4, ipv6, or an address, or one of each family with a comma between',
  );
  assert.match(refusal({ parent: 'eth0', promisc: 'ture' }), / \(did you mean true\?\); use true or false$/);
  assert.equal(
    refusal({ gateway: '10.0.0.1' }),
    'option -o gateway= needs a parent interface; add -o parent=',
    'nobody would get it',
  );
  assert.equal(readNetworkOptions({ gateway: 'none' }).gateway, false);
});

test('an internal network has no gateway that could be named', () => {
  const request = {
    enableIPv4: true,
    enableIPv6: false,
    internal: true,
    subnets: [{ addressSpace: '', subnet: '10.0.0.0/24', gateway: null }],
  };
  const check = (gateway: string, internal = true) =>
    checkRequest(
      { networkId: 'a'.repeat(64), options: {}, skipsGateways: true, ...request, internal },
      readNetworkOptions({ parent: 'eth0', gateway }),
    );
  assert.throws(
    () => check('10.0.0.1'),
    /^PluginError: an --internal network has no default route, and option -o gateway="10\.0\.0\.1" names one; leave/,
  );
  for (const word of ['auto', 'none', 'ipv4']) check(word);
  check('10.0.0.1', false);
});

test('the announcements that the engine is told of are read as it reads them', () => {
  const NMSGS = 'com.docker.network.advertise_addr_nmsgs';
  const MS = 'com.docker.network.advertise_addr_ms';
  assert.deepEqual(readNetworkOptions({ [NMSGS]: '0' }).announcements, { times: 0 });
  assert.deepEqual(readNetworkOptions({ [NMSGS]: '3', [MS]: '100' }).announcements, { times: 3, gapMs: 100 });
  for (const [name, value] of [
    [NMSGS, '4'],
    [NMSGS, 'x'],
    [MS, '99'],
    [MS, '2001'],
  ] as const)
    assert.match(refusal({ [name]: value }), new RegExp(`^invalid value "${value}" for -o ${name}`));
});

test('a mode that says how containers see each other needs a parent on which they do', () => {
  for (const mode of ['vepa', 'private', 'passthru']) {
    assert.match(
      refusal({ macvlan_mode: mode }),
      new RegExp(`^option -o macvlan_mode=${mode} needs a parent interface`),
    );
    assert.equal(readNetworkOptions({ macvlan_mode: mode, parent: 'eth0' }).mode, mode);
  }
  assert.equal(readNetworkOptions({ macvlan_mode: 'bridge' }).mode, 'bridge');
});

/**
 * docs/messages.md: every sentence a user can see, each with a likely value.
 *
 * Also a command: `node plugin/messages.ts > docs/messages.md`
 */
import * as errors from '../src/errors.ts';

type Makers = typeof errors;
type MakerName = {
  [Name in keyof Makers]: Makers[Name] extends (...values: never[]) => errors.PluginError ? Name : never;
}[keyof Makers];

const NETWORK = '3f2a9c1d04be'.padEnd(64, '0');
const ENDPOINT = '7edcda37f0f2'.padEnd(64, '0');
const CAUSE = new Error('the cause');
const MET = { address: '192.168.1.40', macAddress: '3c:22:fb:10:aa:01', linkName: 'eth0', isWanted: false };

/** A maker without a sample does not pass the type check. */
const SAMPLES: { readonly [Name in MakerName]: Parameters<Makers[Name]> } = {
  emptyBody: ['NetworkDriver.Join'],
  unknownCall: ['NetworkDriver.Join'],
  wrongMethod: ['GET', 'NetworkDriver.Join'],
  bodyTooLarge: [1048576],
  bodyNotJson: [120],
  bodyUnreadable: ['request aborted'],
  missingField: ['EndpointID'],
  wrongField: ['EndpointID', 'a text', 'a number'],
  textTooLong: ['Name', 1000000, 4096],
  containerName: ['web\n1'],
  containerNameLong: ['web', 300, 255],
  callTooSlow: ['NetworkDriver.Join', 9000],
  internalError: ['NetworkDriver.Join', CAUSE],
  socketHeld: ['/run/docker/plugins/tsmacvlan.sock', 'SOCKET'],
  socketBlocked: ['/run/docker/plugins/tsmacvlan.sock', 'ALIAS_SOCKET'],
  socketPathTooLong: ['/run/docker/plugins/x.sock', 120, 107, 'SOCKET'],
  socketFailed: ['/run/docker/plugins/tsmacvlan.sock', 'no space left on device', 'SOCKET'],
  daemonHeld: [1234, { sockets: ['/run/docker/plugins/tsmacvlan.sock'], stateDirectory: '/var/lib/tsmacvlan' }],
  unknownSettingValue: ['LOG_LEVEL', 'loud', 'error, warn, info, debug'],
  metricsNotLocal: ['192.168.1.10:9618', 9618],
  metricsTaken: ['127.0.0.1:9618'],
  hookUnusable: ['/etc/tsmacvlan/hook', 'it is not executable'],
  hookManaged: ['/etc/tsmacvlan/hook'],
  watchersMany: [64],
  unknownOption: ['parnt', 'parent', ['parent', 'macvlan_mode']],
  unknownMode: ['veth', 'vepa', ['bridge', 'private', 'vepa', 'passthru']],
  optionValue: ['mtu', '67', 'a whole number from 68 to 65535'],
  vlanIdRange: ['4095', 'eth0.4095'],
  vlanProtocolWithoutVlan: [],
  optionNeedsParent: ['vlan'],
  modeNeedsParent: ['private'],
  mtuBelowIPv6: [1200],
  mtuAboveParent: [9000, 'eth0', 1500],
  hostAddressWithoutAccess: [],
  hostAccessMode: ['vepa'],
  hostAccessInternal: [],
  hostAddressNeeded: ['192.168.1.0/24'],
  hostAddressOutside: ['10.0.0.9', ['192.168.1.0/24']],
  gatewayInternal: [['192.168.1.1']],
  gatewayOutside: ['10.0.0.9', ['192.168.1.0/24']],
  parentMissing: ['eth9', ['eth0', 'eth1']],
  parentGone: ['eth5', NETWORK, ['eth0']],
  parentLoopback: ['lo'],
  parentWireless: ['wlan0'],
  parentIsChild: ['macvlan0', 'macvlan', 'eth0'],
  parentEnslaved: ['eth1', 'br0', 'bridge'],
  parentNotEthernet: ['tun0'],
  parentNameTooLong: ['enp0s31f6np0.4094'],
  parentNameInvalid: ['eth0:1'],
  vlanNameTaken: ['eth0.50', 'dummy'],
  noDefaultRoute: [],
  parentTaken: ['eth0', NETWORK],
  parentOwnedByPassthru: ['eth0', NETWORK],
  networkUnknown: [NETWORK],
  networkDiffers: [NETWORK],
  subnetMissing: ['IPv6'],
  endpointUnknown: [ENDPOINT, NETWORK],
  endpointDiffers: [ENDPOINT],
  addressOutsideNetwork: ['10.0.0.9/24', NETWORK, ['192.168.1.0/24']],
  macMalformed: ['02:42'],
  macMulticast: ['01:00:5e:00:00:01'],
  macTaken: ['02:42:c0:a8:01:02', ENDPOINT, 'eth0'],
  macOfParent: ['02:42:c0:a8:01:02', 'eth0'],
  addressTaken: ['192.168.1.2', ENDPOINT, 'eth0'],
  macFixedByParent: ['02:42:c0:a8:01:02', 'eth0', '3c:22:fb:10:aa:01'],
  passthruOccupied: ['eth0', ENDPOINT],
  notPermitted: ['add macvlan tsm0123456789ab', CAUSE],
  parentBusy: ['eth0', CAUSE],
  passthruRefusedByKernel: ['eth0', CAUSE],
  macInUseOnParent: ['02:42:c0:a8:01:02', 'eth0', CAUSE],
  parentVanished: ['eth0', CAUSE],
  kindUnsupported: ['VLAN', '8021q', CAUSE],
  kernelRefused: ['add macvlan tsm0123456789ab', 'EINVAL', 'Invalid vlan id', CAUSE],
  storeHeld: ['/var/lib/tsmacvlan', 1234],
  storeGone: ['/var/lib/tsmacvlan/tsmacvlan.db'],
  storeNewer: ['/var/lib/tsmacvlan/tsmacvlan.db', 2, 1],
  storeOlder: ['/var/lib/tsmacvlan/tsmacvlan.db'],
  storeDamaged: ['/var/lib/tsmacvlan/tsmacvlan.db', CAUSE],
  storeNotWritable: ['/var/lib/tsmacvlan', 'no space left on device'],
  storeMissing: ['/var/lib/tsmacvlan/tsmacvlan.db'],
  storeNotReadable: ['/var/lib/tsmacvlan/tsmacvlan.db', 'no space left on device'],
  storeFull: ['/var/lib/tsmacvlan/tsmacvlan.db', CAUSE],
  storeBusy: ['/var/lib/tsmacvlan/tsmacvlan.db', CAUSE],
  storeFailed: ['/var/lib/tsmacvlan/tsmacvlan.db', 'no space left on device', CAUSE],
  storeUnsynced: ['/var/lib/tsmacvlan/tsmacvlan.db', 'i/o error', CAUSE],
  clusterUnreachable: ['10.0.0.1:2379', 'connect ECONNREFUSED 10.0.0.1:2379'],
  clusterFull: ['10.0.0.1:2379'],
  clusterLogin: ['10.0.0.1:2379', 'authentication failed, invalid user ID or password'],
  clusterTls: ['10.0.0.1:2379', 'certificate has expired'],
  clusterFailed: ['10.0.0.1:2379', 'etcdserver: corrupt cluster'],
  clusterSchema: ['/tsmacvlan/default/', '3', '2'],
  clusterNodeTaken: ['web1-3f2a9c1d04be', 'web2', 15, '/var/lib/tsmacvlan/node'],
  clusterNodeCopied: ['web1-3f2a9c1d04be', '/var/lib/tsmacvlan/node'],
  clusterOther: ['10.0.0.1:2379', 'cdf818194e3a8c32'],
  clusterSplit: [
    new Map([
      ['10.0.0.1:2379', ['8e9e05c52164694d']],
      ['10.0.0.2:2379', null],
    ]),
    'cdf818194e3a8c32',
  ],
  clusterRestored: [8],
  clusterUnproven: ['192.168.1.40'],
  addressOfNode: ['192.168.1.40', 'web2-3f2a9c1d04be', '--ip'],
  addressGone: ['192.168.1.40', 'web2-3f2a9c1d04be'],
  addressNotLeased: ['192.168.1.40'],
  storeFileUnreadable: ['STORE_CA', '/etc/tsmacvlan/ca.pem', 'no such file or directory'],
  storeIsLocal: [],
  migrateUsage: [],
  migrateInUse: [3, '192.168.1.40', 2],
  storeUsage: ['node'],
  storeOption: ['--from', 'forget'],
  storeWordMissing: ['forget'],
  nodeFile: ['/var/lib/tsmacvlan/node'],
  nodeAlive: ['web2-3f2a9c1d04be'],
  nodeUnknown: ['web2'],
  settingsApart: ['STORE=etcd', 'SCOPE=global', 'use SCOPE=local'],
  unknownCommand: ['leses', 'leases'],
  unknownCommandOption: ['--clera', '--clear', 'conflicts'],
  optionMissing: ['probe', '--parent', 'probe ADDRESS --parent LINK'],
  optionNeedsValue: ['--parent', 'LINK'],
  optionTakesNoValue: ['--json', 'yes'],
  optionChoice: ['--profile', 'slow', ['fast', 'rfc'], undefined],
  argumentMissing: ['reserve', 'NAME', 'reserve NAME ADDRESS'],
  rootNeeded: ['socket "/run/docker/plugins/tsmacvlan.sock"'],
  severalStates: [['/var/lib/docker/plugins/3f2a/propagated-mount', '/var/lib/docker/plugins/77aa/propagated-mount']],
  backupNotWritable: ['/var/backups/tsmacvlan', 'no space left on device'],
  backupNotReadable: ['/var/backups/tsmacvlan', 'no such file or directory'],
  backupDamaged: ['/var/backups/tsmacvlan', 'its checksum is not that of its records'],
  backupNewer: ['/var/backups/tsmacvlan', 5, 4],
  restoreWhileRunning: ['/run/docker/plugins/tsmacvlan.sock'],
  libraryNowhere: [[['/tmp', 'operation not permitted']]],
  outputFailed: ['no space left on device'],
  surplusArgument: ['extra', 'leases'],
  addressSpaceUnknown: ['Elsewhere', ['TsmacvlanLocal', 'TsmacvlanGlobal']],
  ipamOptionUnknown: ['exclud', 'exclude', ['exclude', 'order', 'parent', 'probe']],
  ipamOptionValue: ['order', 'rest', 'lowest or sequential or rested', 'rested'],
  excludeMalformed: ['192.168.1.300'],
  excludeOutside: ['10.0.0.9', '192.168.1.0/24'],
  subnetMalformed: ['192.168.1/24'],
  subnetHostBits: ['192.168.1.1/24', '192.168.1.0/24'],
  subnetFamily: ['192.168.1.0/24'],
  subnetTooLarge: ['10.0.0.0/7', 8],
  subnetNotForHosts: ['127.0.0.0/24', '127.0.0.0/8', 'loopback'],
  rangeWithoutSubnet: ['192.168.1.32/27'],
  rangeMalformed: ['192.168.1.32-63'],
  rangeHostBits: ['192.168.1.33/27', '192.168.1.32/27'],
  rangeOutside: ['10.0.0.0/27', '192.168.1.0/24'],
  poolOverlaps: ['192.168.1.0/24', '192.168.0.0/16', NETWORK],
  poolTaken: ['192.168.1.0/24', NETWORK],
  poolPending: ['192.168.1.0/24'],
  poolNeedsParent: ['192.168.1.0/24', '192.168.1.0/24', NETWORK],
  defaultSubnetsUsedUp: ['IPv6'],
  poolUnknown: ['TsmacvlanLocal/192.168.1.0/24'],
  addressMalformed: ['192.168.1.300', '--ip'],
  addressOutside: ['10.0.0.9', '192.168.1.0/24', '--ip'],
  addressReserved: ['192.168.1.255', '192.168.1.0/24', 'broadcast address', '--ip'],
  addressIsGateway: ['192.168.1.40', NETWORK, '--ip'],
  addressIsAuxiliary: ['192.168.1.40', NETWORK, '--ip'],
  addressNamedTwice: ['192.168.1.1', 'gateway', '--aux-address'],
  addressIsNoHosts: ['192.168.1.1', '-o host_ip'],
  addressReservedFor: ['192.168.1.70', 'web', '--ip'],
  addressOfHost: ['192.168.1.40', NETWORK, '--ip'],
  addressOfEndpoint: ['192.168.1.40', ENDPOINT, NETWORK, '--ip'],
  addressLeased: ['192.168.1.40', NETWORK, 80, '--ip'],
  addressOfTask: ['192.168.1.40', '--ip'],
  addressHeld: ['192.168.1.40', '3c:22:fb:10:aa:01', 'eth0', '--ip'],
  addressOnHost: ['192.168.1.10', '3c:22:fb:10:aa:01', 'eth0', '--ip'],
  addressOfferedHere: ['192.168.1.40', '3c:22:fb:10:aa:01', 'eth0', '--ip'],
  addressOffered: ['192.168.1.40', '3c:22:fb:10:aa:01', 'eth0', '--ip'],
  addressWanted: ['192.168.1.40', '3c:22:fb:10:aa:01', 'eth0', '--ip'],
  addressLost: ['192.168.1.40', '3c:22:fb:10:aa:01', 'eth0', '--ip'],
  rangeHeld: [['192.168.1.32/27'], [[30, 'used by others on the LAN']], MET],
  rangeAnsweredByOne: [['192.168.1.32/27'], [[30, 'used by others on the LAN']], MET, '3c:22:fb:10:aa:01'],
  recordContended: ['192.168.1.40'],
  dhcpParentGone: ['eth9', ['eth0', 'eth1']],
  dhcpParentDown: ['eth0'],
  probeParentGone: ['192.168.1.40', 'eth0', CAUSE],
  probeParentDown: ['192.168.1.40', 'eth0', CAUSE],
  probeFailed: ['192.168.1.40', 'eth0', 'EINVAL', CAUSE],
  probeStopped: ['192.168.1.40'],
  probeUsage: ['192.168.1'],
  conflictsUsage: ['192.168.1'],
  reserveOutside: ['192.168.1.10', ['192.168.1.64/27']],
  reserveHeld: ['192.168.1.70', '3c:22:fb:10:aa:01', 'eth0'],
  reserveExcluded: ['192.168.1.70', '192.168.1.64/29'],
  reserveUnnamed: ['192.168.1.70', ENDPOINT, NETWORK, 'web'],
  reserveElsewhere: ['web', '192.168.1.64', '192.168.1.70'],
  nameUnknown: ['web'],
  nameAmbiguous: ['web', [NETWORK, '77aa00bb11cc']],
  daemonAbsent: ['/run/docker/plugins/tsmacvlan.sock', 'connect ENOENT'],
  networkNotNamed: ['3f2a', 2, 'call tsmacvlan forget'],
  engineScheme: ['ssh://server', 'ssh'],
  engineAddress: ['tcp://'],
  engineContext: ['nas'],
  engineSilent: ['unix:///var/run/docker.sock', 'permission denied'],
  engineRefused: ['unix:///var/run/docker.sock', 'HTTP 403'],
  whoUsage: [],
  whoUnknown: ['web'],
  doctorUnknown: ['web'],
  mapOptions: ['--listen', '--serve'],
  mapForms: [],
  listenForm: ['8099'],
  listenOpen: ['0.0.0.0:8099'],
  listenFailed: ['127.0.0.1:8099', 'address already in use'],
  pageNotWritten: ['/nowhere/map.html', 'no such file or directory'],
  noDaemonInPicture: [],
  namesAreOld: ['2026-11-30T01:12:00.000Z'],
  pageHost: ['attacker.example'],
  pageMethod: ['POST'],
  pageUnknown: ['/favicon.ico'],
  pageForeign: [],
  pageFull: [32],
  networkHasContainers: [NETWORK, ENDPOINT],
  networkInDocker: [NETWORK, 'lan'],
  daemonSays: ['nothing is reserved or remembered for "web"; tsmacvlan leases lists the names'],
  daemonRefused: [
    'Tsmacvlan.CollectLeaks',
    'no space left on the disk of state file "/var/lib/tsmacvlan/tsmacvlan.db"',
  ],
  rangeExhausted: [
    ['192.168.1.64/27'],
    [
      [30, 'leased'],
      [2, 'held by others on the LAN'],
    ],
    true,
  ],
};

export function samples(): errors.PluginError[] {
  const names = Object.keys(SAMPLES) as MakerName[];
  return names.map((name) => (errors[name] as (...values: readonly unknown[]) => errors.PluginError)(...SAMPLES[name]));
}

/** One heading for each code, in the order of their first sentence: a code is an anchor that others can link to. */
export function messages(): string {
  const all = samples();
  const sections = [...new Set(all.map(({ code }) => code))].map((code) =>
    section(all.filter((one) => one.code === code)),
  );
  return `<!-- Written by "make tables" from src/errors.ts; edit that. -->
# Messages

Every sentence that tsmacvlan can answer, with likely values. Search this page for the words of yours. A *mistake* is something you can fix. A *fault* is a bug in tsmacvlan or a problem on the host; its cause
is in the log. The code is in the log too (\`outcome=\`) and stays the same when the words change.
${sections.join('')}`;
}

function section(sentences: readonly errors.PluginError[]): string {
  const { code, kind } = sentences[0] as errors.PluginError;
  const quoted = sentences.map(({ message }) => `* \`${message.replaceAll('`', "'")}\`\n`);
  return `
## ${code}

A ${kind}:

${quoted.join('')}`;
}

if (import.meta.main) process.stdout.write(messages());

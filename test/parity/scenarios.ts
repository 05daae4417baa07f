/**
 * The scenarios. The host has two links, `lan0` and `lan1`, on one LAN whose switch is 192.0.2.254 and 2001:db8::fe.
 * Behind it lies 198.51.100.1. The host and the switch each have a name server that knows outside.example. Starting a
 * container is what takes time: each scenario does with as few as it can.
 */
import type { Scenario } from './scenario.ts';

const LAN = '--subnet 192.0.2.0/24 --gateway 192.0.2.254 -o parent=lan0';
const LAN6 = '--ipv6 --subnet 2001:db8::/64 --gateway 2001:db8::fe';
const NAME_SERVER = '--dns 192.0.2.254';

export const SCENARIOS: readonly Scenario[] = [
  {
    name: 'a network of the LAN, and what docker run can ask of it',

    steps: [
      `network create ${LAN} --label team=red --attachable net`,
      `run web --net net --network-alias www ${NAME_SERVER} -p 8080:80 --expose 81`,
      'run db --net net --mac-address 02:aa:00:00:00:01 --link-local-ip 169.254.7.7',
      'refused: run app --net net --mac-address 02:aa:00:00:00:01',
      'port web',
      'web pings db',
      'db pings www',
      'web pings 192.0.2.254',
      'web pings 198.51.100.1',
      'web resolves outside.example',
      'refused: network rm net',
    ],
  },
  {
    name: 'a range, auxiliary addresses and a gateway beside it',
    steps: [
      `network create ${LAN} --ip-range 192.0.2.64/30 --aux-address near=192.0.2.64 --aux-address far=192.0.2.9 net`,
      'run web --net net',
      'refused: run db --net net --ip 192.0.2.9',
      'run app --net net --ip 192.0.2.10',
    ],
  },
  {
    name: 'a range and no gateway named',
    moby: ['TestMACVlanDNS/with parent'],
    steps: [
      'network create --subnet 192.0.2.0/24 --ip-range 192.0.2.64/26 -o parent=lan0 net',
      'run web --net net',
      'web resolves outside.example',
    ],
  },
  {
    name: 'addresses taken, of the gateway, used up, and free again',
    steps: [
      'network create --subnet 192.0.2.0/29 --ip-range 192.0.2.2/31 --gateway 192.0.2.6 -o parent=lan0 net',
      'run web --net net --ip 192.0.2.3',
      'refused: run job --net net --ip 192.0.2.3',
      'refused: run hub --net net --ip 192.0.2.6',
      'refused: run bot --net net --ip 192.0.2.9',
      'run db --net net',
      'refused: run app --net net',
      'rm -f web',
      'start app',
    ],
  },
  {
    name: 'both families',
    moby: ['TestDockerNetworkMacvlan/Addressing', 'TestMacvlanIPAM/dual stack'],
    steps: [
      `network create ${LAN} ${LAN6} net`,
      'run web --net net',
      'run db --net net --ip 192.0.2.9 --ip6 2001:db8::9',
      'web pings 2001:db8::9',
      'db pings 2001:db8::fe',
    ],
  },
  {
    name: 'IPv6 and no IPv4',
    moby: ['TestMacvlanIPAM/v6 only'],
    engines: ['28.5.2'],
    steps: [`network create --ipv4=false ${LAN6} -o parent=lan0 net`, 'run web --net net', 'web pings 2001:db8::fe'],
  },
  {
    name: 'several subnets of both families',
    moby: ['TestDockerNetworkMacvlan/MultiSubnetWithParent'],
    steps: [
      'network create -o parent=lan0 --ipv6 --subnet 172.28.100.0/24 --subnet 172.28.102.0/24 --gateway 172.28.102.254' +
        ' --subnet 2001:db8:abc2::/64 --subnet 2001:db8:abc4::/64 --gateway 2001:db8:abc4::254 net',
      'run web --net net --ip 172.28.100.20 --ip6 2001:db8:abc2::20',
      'run db --net net --ip 172.28.100.21 --ip6 2001:db8:abc2::21',
      'run app --net net --ip 172.28.102.20 --ip6 2001:db8:abc4::20',
      'run job --net net --ip 172.28.102.21 --ip6 2001:db8:abc4::21',
      'web pings 172.28.100.21',
      'web pings 2001:db8:abc2::21',
      'app pings 172.28.102.21',
      'app pings 2001:db8:abc4::21',
    ],
  },
  {
    name: 'the lowest address of an IPv6 subnet',
    engines: ['28.5.2'],
    steps: [`network create ${LAN} --ipv6 --subnet 2001:db8:abc2::/64 net`, 'run web --net net'],
  },
  {
    name: 'two addresses and no more (RFC 3021)',
    engines: ['26.1.5', '28.5.2'],
    steps: ['network create --subnet 192.0.2.0/31 -o parent=lan0 net', 'run web --net net'],
  },
  {
    // Before others use its parent: who asks the LAN there keeps a link for some seconds.
    name: 'mode passthru',
    isOfLinks: true,
    steps: [
      'network create --subnet 192.0.2.0/24 --gateway 192.0.2.1 -o parent=lan1 -o macvlan_mode=passthru whole',
      'run web --net whole',
      'web pings 192.0.2.254',
      'refused: run db --net whole',
    ],
  },
  {
    name: 'networks share a subnet by ranges',
    moby: ['TestMacvlanIPAMOverlap'],
    steps: [
      'network create --subnet 192.0.2.0/24 --ip-range 192.0.2.0/25 -o parent=lan0 lower',
      'network create --subnet 192.0.2.0/24 --ip-range 192.0.2.128/25 -o parent=lan1 upper',
      'refused: network create --subnet 192.0.2.0/24 -o parent=lan1 whole',
      'run web --net lower --ip 192.0.2.130',
      'run db --net upper',
      'refused: run app --net upper --ip 192.0.2.130',
    ],
  },
  {
    name: 'networks share a subnet and a gateway',
    steps: [
      `network create ${LAN} --ip-range 192.0.2.0/25 lower`,
      `refused: network create --subnet 192.0.2.0/24 --gateway 192.0.2.254 --ip-range 192.0.2.128/25 -o parent=lan1 upper`,
    ],
  },
  {
    name: 'no subnet named',
    steps: ['network create -o parent=lan0 net', 'network create -o parent=lan1 other'],
  },
  {
    name: 'modes private and vepa',
    isOfLinks: true,
    steps: [
      'network create --subnet 192.0.2.0/24 --gateway 192.0.2.1 -o parent=lan0 -o macvlan_mode=private lonely',
      'network create --subnet 198.51.100.0/24 -o parent=lan1 -o macvlan_mode=vepa outward',
      'run web --net lonely',
      'run db --net outward',
    ],
  },
  {
    name: 'mode passthru shares its parent with no other network',
    isOfLinks: true,
    moby: [
      'TestDockerNetworkMacvlan/OverlapParentPassthruFirst',
      'TestDockerNetworkMacvlan/OverlapParentPassthruSecond',
    ],
    steps: [
      'network create --subnet 192.0.2.0/24 -o parent=lan1 -o macvlan_mode=passthru first',
      'refused: network create --subnet 198.51.100.0/24 -o parent=lan1 second',
      'network rm first',
      'network create --subnet 192.0.2.0/24 -o parent=lan1 first',
      'refused: network create --subnet 198.51.100.0/24 -o parent=lan1 -o macvlan_mode=passthru second',
    ],
  },
  {
    name: 'two networks on one parent',
    moby: ['TestDockerNetworkMacvlan/OverlapKeepExistingParent'],
    steps: [
      'network create --subnet 192.0.2.0/24 -o parent=lan0 first',
      'network create --subnet 198.51.100.0/24 -o parent=lan0 second',
      'run web --net second',
      'rm -f web',
      'network rm second',
      'network rm first',
    ],
  },
  {
    name: 'parents and modes that are refused',
    isOfLinks: true,
    steps: [
      'refused: network create --subnet 192.0.2.0/24 -o parent=lo net',
      'refused: network create --subnet 192.0.2.0/24 -o parent=eth9 net',
      'refused: network create --subnet 192.0.2.0/24 -o parent=eth9.10 net',
      'refused: network create --subnet 192.0.2.0/24 -o parent=lan0.0 net',
      'refused: network create --subnet 192.0.2.0/24 -o parent=lan0.4095 net',
      'refused: network create --subnet 192.0.2.0/24 -o parent=lan0:10 net',
      'refused: network create --subnet 192.0.2.0/24 -o parent=lan0 -o macvlan_mode=veth net',
    ],
  },
  {
    name: 'networks that are refused',
    steps: [
      'refused: network create --subnet 192.0.2.0/24 -o parent=lan9 net',
      'refused: network create --subnet 0.0.0.0/0 -o parent=lan0 net',
      'refused: network create --subnet 192.0.2.0/24 --gateway 198.51.100.1 -o parent=lan0 net',
      'refused: network create --subnet 192.0.2.0/24 --ip-range 198.51.100.0/25 -o parent=lan0 net',
      'refused: network create --subnet 192.0.2.0/24 --aux-address far=198.51.100.1 -o parent=lan0 net',
      'refused: network create --subnet 192.0.2.0/24 --subnet 192.0.2.128/25 -o parent=lan0 net',
      'network create --subnet 192.0.2.0/24 -o parent=lan0 -o macvlan_mode= net',
      'refused: network create --subnet 198.51.100.0/24 -o parent=lan1 net',
      'refused: network create --subnet 192.0.2.0/24 -o parent=lan1 other',
      'refused: network create --subnet 192.0.2.128/25 -o parent=lan1 other',
      'network prune -f',
      'refused: network rm net',
    ],
  },
  {
    name: 'host bits in the subnet',
    engines: ['26.1.5', '28.5.2'],
    steps: ['refused: network create --subnet 192.0.2.1/24 -o parent=lan0 net'],
  },
  {
    name: 'host bits in the subnet, with an engine that does not look at them',
    engines: ['20.10.24'],
    steps: ['network create --subnet 192.0.2.1/24 -o parent=lan0 net'],
  },
  {
    name: 'a subnet larger than any LAN',
    steps: ['network create --subnet 64.0.0.0/2 -o parent=lan0 net'],
  },
  {
    name: 'an MTU for the network',
    isOfLinks: true,
    steps: [
      'network create --subnet 192.0.2.0/24 --gateway 192.0.2.1 -o parent=lan0 -o mtu=1300 net',
      'run web --net net',
    ],
  },
  {
    name: 'an option that nobody knows',
    isOfLinks: true,
    steps: ['refused: network create --subnet 192.0.2.0/24 -o parent=lan0 -o macvlan_mod=private net'],
  },
  {
    name: 'parents that carry no macvlan',
    isOfLinks: true,
    steps: [
      'host: ip link add br7 type bridge',
      'host: ip link add port7 type veth peer name port8',
      'host: ip link set port7 master br7',
      'refused: network create --subnet 192.0.2.0/24 -o parent=port7 net',
    ],
  },
  {
    name: 'a macvlan as parent',
    isOfLinks: true,
    steps: [
      'host: ip link add mv7 link lan0 type macvlan mode bridge',
      'refused: network create --subnet 192.0.2.0/24 -o parent=mv7 net',
    ],
  },
  {
    name: 'a bridge as parent, with an MTU of its own and in promiscuous mode',
    isOfLinks: true,
    steps: [
      'host: ip link add br7 mtu 1400 type bridge',
      'host: ip link set br7 up promisc on',
      'network create --subnet 192.0.2.0/24 --gateway 192.0.2.1 -o parent=br7 net',
      'run web --net net',
      'rm -f web',
      'network rm net',
    ],
  },
  {
    name: 'a parent that is down',
    isOfLinks: true,
    moby: ['TestParentDown'],
    steps: [
      'host: ip tuntap add tap0 mode tap',
      'network create --subnet 192.0.2.0/24 --gateway 192.0.2.1 --ipv6 --subnet 2001:db8::/64 --gateway 2001:db8::fe -o parent=tap0 net',
      'run web --net net',
    ],
  },
  {
    name: 'stopped, its address given to another, started, killed, renamed',
    steps: [
      `network create ${LAN} net`,
      'run web --net net',
      'stop web',
      'look',
      'run db --net net',
      'start web',
      'db pings web',
      'kill db',
      'rename db job',
    ],
  },
  {
    name: 'several networks: connected, disconnected, and who gives the gateway',
    steps: [
      `network create ${LAN} net`,
      'network create --subnet 198.51.100.0/24 -o parent=lan1 away',
      'run web --net net',
      'network connect --ip 198.51.100.9 --alias there away web',
      'look',
      'run db --net away',
      'db pings there',
      'network disconnect net web',
      'network disconnect -f away db',
    ],
  },
  {
    name: 'the network of the higher priority gives the gateway',
    engines: ['28.5.2'],
    steps: [
      `network create ${LAN} net`,
      'network create --subnet 198.51.100.0/24 -o parent=lan1 away',
      'run web --net away',
      'network connect --gw-priority 1 net web',
    ],
  },
  {
    name: 'internal, with a parent',
    moby: ['TestMACVlanDNS/with parent, internal'],
    engines: ['26.1.5', '28.5.2'],
    steps: [
      `network create ${LAN} --internal net`,
      'run web --net net',
      'web pings 192.0.2.254',
      'web does not ping 198.51.100.1',
      'web does not resolve outside.example',
    ],
  },
  {
    name: 'internal, with a parent and an engine that resolves names there too',
    engines: ['20.10.24'],
    steps: [
      `network create ${LAN} --internal net`,
      'run web --net net',
      'web pings 192.0.2.254',
      'web does not ping 198.51.100.1',
      'web resolves outside.example',
    ],
  },
  {
    name: 'neither IPv4 nor IPv6',
    moby: ['TestMacvlanIPAM/no ipam'],
    engines: ['28.5.2'],
    steps: ['network create --ipv4=false -o parent=lan0 net', 'run web --net net'],
  },
  {
    name: 'a network that gives no gateway, until another one does',
    isOurs: true,
    engines: ['26.1.5', '28.5.2'],
    steps: [
      'network create --subnet 192.0.2.0/24 -o parent=lan0 -o gateway=none net',
      'network create --subnet 203.0.113.0/24 --gateway 203.0.113.1 -o parent=lan1 away',
      'run web --net net',
      'web pings 192.0.2.254',
      'web does not ping 198.51.100.1',
      'web does not resolve outside.example',
      'network connect away web',
      'web resolves outside.example',
      'network disconnect away web',
      'web does not resolve outside.example',
    ],
  },
  {
    name: 'a network that gives no gateway, and an engine that resolves names there too',
    isOurs: true,
    engines: ['20.10.24'],
    steps: [
      'network create --subnet 192.0.2.0/24 -o parent=lan0 -o gateway=none net',
      'run web --net net',
      'web does not ping 198.51.100.1',
      'web resolves outside.example',
    ],
  },
  {
    name: 'a network from a configuration',
    steps: [
      `network create --config-only ${LAN} recipe`,
      'network create --config-from recipe net',
      'run web --net net',
    ],
  },
  {
    name: 'a name asked for the interface',
    moby: ['TestEndpointWithCustomIfname'],
    engines: ['28.5.2'],
    steps: [
      `network create ${LAN} net`,
      'run web --network name=net,driver-opt=com.docker.network.endpoint.ifname=foobar',
    ],
  },
  {
    name: 'a name that the engine would give by itself, and switches for the interface',
    engines: ['28.5.2'],
    steps: [
      `network create ${LAN} ${LAN6} -o com.docker.network.advertise_addr_nmsgs=1 net`,
      'run web --network name=net,driver-opt=com.docker.network.endpoint.ifname=net0',
      'run db --network name=net,driver-opt=com.docker.network.endpoint.sysctls=net.ipv6.conf.IFNAME.accept_ra=2',
      'run app --net net --sysctl net.ipv6.conf.all.disable_ipv6=1',
    ],
  },
  {
    name: 'no parent, no subnet',
    moby: ['TestDockerNetworkMacvlan/NilParent', 'TestMACVlanDNS/no parent', 'TestMacvlanIPAM/v4 only'],
    needs: ['dummy'],
    engines: ['26.1.5', '28.5.2'],
    steps: [
      'network create net',
      'run web --net net',
      'run db --net net',
      'web pings db',
      'web does not ping 192.0.2.254',
      'web does not resolve outside.example',
    ],
  },
  {
    name: 'no parent, internal',
    moby: ['TestDockerNetworkMacvlan/InternalMode'],
    needs: ['dummy'],
    steps: [
      'network create --internal net',
      'run web --net net',
      'run db --net net',
      'web pings db',
      'web does not ping 8.8.8.8',
    ],
  },
  {
    name: 'no parent, several subnets of both families',
    moby: ['TestDockerNetworkMacvlan/MultiSubnetNoParent'],
    needs: ['dummy'],
    engines: ['28.5.2'],
    steps: [
      'network create --ipv6 --subnet 172.28.200.0/24 --subnet 172.28.202.0/24 --gateway 172.28.202.254' +
        ' --subnet 2001:db8:abc6::/64 --subnet 2001:db8:abc8::/64 --gateway 2001:db8:abc8::254 net',
      'run app --net net --ip 172.28.202.20 --ip6 2001:db8:abc8::20',
      'run job --net net --ip 172.28.202.21 --ip6 2001:db8:abc8::21',
      'app pings 172.28.202.21',
      'app pings 2001:db8:abc8::21',
    ],
  },
  {
    name: 'no parent, two addresses',
    moby: ['TestPointToPoint'],
    needs: ['dummy'],
    engines: ['28.5.2'],
    steps: ['network create --subnet 192.168.135.0/31 net', 'run web --net net', 'run db --net net', 'web pings db'],
  },
  {
    name: 'networks outlive the engine',
    moby: ['TestDockerNetworkMacvlanPersistence'],
    needs: ['vlan'],
    steps: [
      'network create --subnet 192.0.2.0/24 -o parent=lan0.60 net',
      'the engine restarts',
      'look',
      'run web --net net',
    ],
  },
  {
    name: "the administrator's VLAN stays",
    moby: ['TestDockerNetworkMacvlan/Subinterface'],
    needs: ['vlan'],
    steps: [
      'host: ip link add link lan0 name lan0.20 type vlan id 20',
      'network create --subnet 192.0.2.0/24 --gateway 192.0.2.1 -o parent=lan0.20 net',
      'run web --net net',
      'rm -f web',
      'network rm net',
    ],
  },
  {
    name: 'a VLAN made on the way goes with its last network',
    moby: ['TestDockerNetworkMacvlan/OverlapParent', 'TestDockerNetworkMacvlan/OverlapDeleteCreatedSecond'],
    needs: ['vlan'],
    steps: [
      'network create --subnet 192.0.2.0/24 -o parent=lan0.40 first',
      'network create --subnet 198.51.100.0/24 -o parent=lan0.40 second',
      'network rm second',
      'look',
      'network create --subnet 198.51.100.0/24 -o parent=lan0.40 second',
      'network rm first',
      'look',
      'network rm second',
    ],
  },
];

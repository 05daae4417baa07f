/**
 * The tests of the built-in driver itself, moby's integration/network/macvlan (v28.5.2, and TestMacvlanIPAMOverlap of the
 * main branch), by name; the scenarios say which of them they stand for. Upstream's own pings look only at whether the
 * exec API answered; ours look at the exit code.
 */
export const MOBY_TESTS = [
  'TestDockerNetworkMacvlanPersistence',
  'TestDockerNetworkMacvlan/Subinterface',
  'TestDockerNetworkMacvlan/OverlapParent',
  'TestDockerNetworkMacvlan/OverlapParentPassthruFirst',
  'TestDockerNetworkMacvlan/OverlapParentPassthruSecond',
  'TestDockerNetworkMacvlan/OverlapDeleteCreatedSecond',
  'TestDockerNetworkMacvlan/OverlapKeepExistingParent',
  'TestDockerNetworkMacvlan/NilParent',
  'TestDockerNetworkMacvlan/InternalMode',
  'TestDockerNetworkMacvlan/MultiSubnetWithParent',
  'TestDockerNetworkMacvlan/MultiSubnetNoParent',
  'TestDockerNetworkMacvlan/Addressing',
  'TestMacvlanIPAM/dual stack',
  'TestMacvlanIPAM/v4 only',
  'TestMacvlanIPAM/v6 only',
  'TestMacvlanIPAM/no ipam',
  'TestMacvlanIPAM/enableIPv4 ignored',
  'TestMacvlanIPAMOverlap',
  'TestMACVlanDNS/with parent',
  'TestMACVlanDNS/no parent',
  'TestMACVlanDNS/with parent, internal',
  'TestPointToPoint',
  'TestEndpointWithCustomIfname',
  'TestParentDown',
] as const;

export type MobyTest = (typeof MOBY_TESTS)[number];

/** What stands beside a test in docs/differences.md: it is not met, met in part, or met elsewhere. */
export const REMARKS: Readonly<Partial<Record<MobyTest, string>>> = {
  'TestMacvlanIPAM/enableIPv4 ignored':
    "the engine's own doing: with API 1.46 it sends the plugin the same request as for any IPv4 network",
  TestMacvlanIPAMOverlap:
    'ranges and unique addresses yes; the counts in `docker network inspect` (API 1.52) the engine shows only of its own IPAM: see `tsmacvlan pools`',
  TestEndpointWithCustomIfname:
    'not before engine 29.8, which is the first to take a name from a plugin (moby#52866); until then `foobar` becomes `foobar0`',
};

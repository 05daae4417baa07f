/** Seeds that once failed, or that show something: played in every run, before all others. */

interface NamedSeed {
  readonly seed: string;
  readonly what: string;
}

export const NAMED_SEEDS: readonly NamedSeed[] = [
  {
    seed: 'etcd 43',
    what: 'a ReleaseAddress and a RequestAddress of one address cross: the claim of the second is lost',
  },
  { seed: 'etcd 12', what: 'a member of another cluster: hosts work in two' },
  { seed: 'etcd 49', what: 'a container gets the gateway that a lost host named' },
  { seed: 'etcd 22', what: 'etcd was full while a host was started again: it counts as lost' },
  {
    seed: 'etcd 10',
    what: 'a daemon stands still in the middle of a start, or is killed in one, and another host has the address',
  },
  { seed: 'crossing 6', what: 'the same with the embedded store: the store loses the address of a running container' },
  { seed: 'etcd restore 11000', what: 'etcd is restored while a host is cut off' },
  { seed: 'etcd standstill 3', what: 'a daemon stands still in a start until its host counts as lost' },
  { seed: 'etcd takeover 5', what: 'the taker of a lost host’s address is killed' },
  { seed: 'kill 18 1500', what: 'a silent taker between question and grant; a container with two links' },
  { seed: 'scan 25', what: 'who only asks for addresses keeps them' },
  { seed: 'flood 25', what: 'who answers for all addresses keeps them when he has stopped' },
  { seed: 'clock 25', what: 'the same, and the wall clock is put back' },
  { seed: 'churn 90', what: 'something of each container is left in the daemon' },
  { seed: 'day 2', what: 'the lease of a running container is collected' },
  {
    seed: 'engine 4',
    what: 'an engine is killed in the middle of a start, and the daemon speaks for the interface that nobody comes for',
  },
  { seed: 'engine 15', what: 'the same with our IPAM, after Join' },
  { seed: 'kill 69 1500', what: 'the same after a daemon was killed before its answer' },
  { seed: '47', what: 'the same, and another host has the address meanwhile' },
  { seed: 'disk 13', what: 'a disk fails in a start: the same with a record that the daemon could not take back' },
  {
    seed: 'disk 101',
    what: 'a disk fails before a container is stopped: the daemon speaks for what came back from it',
  },
  { seed: 'full 1', what: 'no room for a start’s records: a refusal, and nothing is left when there is room again' },
  { seed: 'broken 6', what: 'writes fail while containers are stopped' },
  { seed: 'torn 9', what: 'a daemon is killed in the middle of a write, and finds no room when it is started again' },
  { seed: 'families 20', what: 'the second address of a start is refused: the first goes back' },
  { seed: 'filter 1', what: 'a port hides the answer of who has the address' },
  { seed: 'security 31', what: 'a port drops what containers say' },
  { seed: 'swarm request 1', what: 'a leader’s plugin is killed before it answers with a task’s address' },
  {
    seed: 'swarm return 14',
    what: 'a new leader’s plugin is killed as it answers a claim, which is refused when it is repeated',
  },
  { seed: 'swarm election 9', what: 'a leader is killed between a request and the task' },
  { seed: 'etcd gateway 3', what: 'others fill the range in which a lost host has named a gateway' },
  { seed: 'etcd alarm 1', what: 'etcd is full until a host counts as lost that is there' },
  {
    seed: '7134',
    what: 'a machine sleeps while it is asked whether a container is gone: RequestAddress failed without a sentence',
  },
  { seed: '3113', what: 'who answers late has an address that was on standby: nobody could have known better' },
  {
    seed: '412',
    what: 'Docker’s IPAM offers an IPv6 address that somebody has, beside the IPv4 address that was named (as life 9002)',
  },
  {
    seed: 'crowd 10',
    what: 'an engine is killed before it hears which address it was given, the last of the range (as life 9106)',
  },
  { seed: 'timer 1', what: 'nobody tells daemons when a socket can be read; the four that follow with that too' },
  { seed: 'timer kill 18 1500', what: 'a silent taker' },
  { seed: 'timer etcd 10', what: 'a daemon stands still in a start' },
  { seed: 'timer swarm election 9', what: 'a leader is killed' },
  { seed: 'timer day 2', what: 'a host is at rest for hours' },
  { seed: 'kill 2 1500', what: 'a call that waits for as long as it may; two hosts that make MAC addresses at once' },
];

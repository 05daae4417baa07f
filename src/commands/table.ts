/** The commands. What one of them needs is loaded when it runs. */
import type { Command } from './command.ts';

const JSON_OUTPUT = { json: 'print data as JSON' } as const;
const NAMED = { 'no-trunc': "whole ids, and beside them Docker's names", ...JSON_OUTPUT } as const;

/** By name, in the order of the help. */
export const COMMANDS: Readonly<Record<string, Command>> = {
  serve: {
    summary: 'run the plugin; settings come from the environment (tsmacvlan settings)',
    examples: { serve: 'as the systemd service and the managed plugin do' },
    run: async () => (await import('../serve.ts')).serveUntilSignal(process.env),
  },
  map: {
    summary: 'draw interfaces, VLANs, networks and containers; or as a page for a browser, in a file or live',
    details:
      'The page shows who is where, what every address of a subnet is, and conflicts over days. It is only read, and asks Docker and the daemon each second while somebody looks. On a server, look at it from elsewhere by ssh -L 8099:127.0.0.1:8099 SERVER.',
    options: {
      html: 'write the page, with what it shows, into one file',
      serve: 'serve the page, as it changes, until Ctrl-C',
      listen: 'where to serve it: 127.0.0.1:8099 (the default), or for example unix:/run/tsmacvlan-map.sock',
      open: 'serve it also at an address that other machines reach, without a password',
      cluster: 'on the page also what other hosts have that share addresses in etcd',
      ...NAMED,
    },
    examples: {
      map: 'which container is where',
      'map --json | jq .networks': 'the same as data',
      'map --html map.html': 'a picture to keep, or to send',
      'map --serve': 'live, at http://127.0.0.1:8099/',
    },
    async run(options) {
      const isPage = ['html', 'serve', 'listen', 'open', 'cluster'].some((name) => Object.hasOwn(options, name));
      return isPage ? (await import('./mappage.ts')).mapPage(options) : (await import('./listings.ts')).map(options);
    },
  },
  networks: {
    summary: 'list the networks',
    options: NAMED,
    examples: { networks: 'with parent, subnets and conflicts' },
    run: async (options) => (await import('./listings.ts')).networks(options),
  },
  endpoints: {
    summary: 'list the attachments of containers',
    options: NAMED,
    examples: { endpoints: 'with MAC address and addresses' },
    run: async (options) => (await import('./listings.ts')).endpoints(options),
  },
  who: {
    summary: 'tell who has an address, a MAC address or a name, since when, and whether it answers',
    details:
      'A name is that of a container or a network; the beginning of an id works too. For an address that nobody has it says free, and which address is given out next. Last it asks the LAN; if nobody answers, that takes 0.7 seconds.',
    arguments: ['ADDRESS|MAC|NAME'],
    options: NAMED,
    examples: {
      'who 192.168.1.70': 'which container has .70, or who else',
      'who web': 'where the container named web is',
      'who 3c:22:fb:10:aa:01': 'whose MAC address this is',
    },
    run: async (options, whom) => (await import('./who.ts')).who(options, whom),
  },
  doctor: {
    summary: 'look for what keeps containers off the LAN, and say what to do; exit code 0 nothing, 3 something',
    arguments: ['[NETWORK|CONTAINER]'],
    options: NAMED,
    examples: {
      doctor: 'of all networks and containers here',
      'doctor lan': 'of one network and its containers',
      'doctor web': 'of one container and its networks',
    },
    run: async (options, subject) => (await import('./doctor.ts')).doctor(options, subject),
  },
  watch: {
    summary: 'tell what happens as it happens: conflicts, containers, networks, parent interfaces, warnings',
    details:
      'One line for each thing that happens, until you interrupt it or nobody reads its output any more. If the daemon ends, it says so and waits until the daemon is back. It begins with the conflicts that last.',
    options: { 'no-trunc': 'whole ids', json: 'one line of JSON each' },
    examples: {
      watch: 'with names, for people',
      'watch --json | jq -c \'select(.what == "conflict")\'': 'conflicts alone, for programs',
    },
    run: async (options) => (await import('./watch.ts')).watch(options),
  },
  pools: {
    summary: 'list the address pools, how much of each is used, and which address is next',
    options: NAMED,
    examples: { pools: 'what is free in each range' },
    run: async (options) => (await import('./pooluses.ts')).pools(options),
  },
  leases: {
    summary: 'list the addresses given out, here or by all hosts that share them',
    options: { cluster: 'of all hosts that share addresses in etcd', ...NAMED },
    examples: {
      leases: 'in the order of addresses, with those kept for names',
      'leases --cluster': 'of all hosts that share an etcd',
    },
    run: async (options) =>
      options.cluster
        ? (await import('./sharedstore.ts')).printSharedAddresses(options)
        : (await import('./listings.ts')).leases(options),
  },
  conflicts: {
    summary: 'list addresses that strangers on the LAN have, or forget what was recorded',
    arguments: ['[ADDRESS]'],
    options: { clear: 'forget them; what lasts is reported again', ...NAMED },
    examples: {
      conflicts: 'all that were seen',
      'conflicts 192.168.1.70': 'those of one address',
      'conflicts 192.168.1.70 --clear': 'forget them',
    },
    async run(options, address) {
      if (options.clear) return (await import('./changes.ts')).clearConflicts(options, address);
      return (await import('./listings.ts')).conflicts(options, address);
    },
  },
  probe: {
    summary: 'ask the LAN who has an address; exit code 0 nobody, 3 somebody',
    arguments: ['ADDRESS'],
    options: {
      parent: 'the interface to ask on',
      profile: 'fast (0.7 s, the default), or rfc (4 to 7 s, as in RFC 5227)',
      ...JSON_OUTPUT,
    },
    needs: ['parent'],
    examples: { 'probe 192.168.1.70 --parent eth0': 'does any machine have .70?' },
    run: async (options, address) => (await import('./probe.ts')).probe(options, address),
  },
  dhcp: {
    summary: 'ask which DHCP servers a LAN has and what they offer; nothing is taken from them',
    arguments: ['PARENT'],
    options: JSON_OUTPUT,
    examples: { 'dhcp eth0': 'the servers that answer within four seconds' },
    run: async (options, parent) => (await import('./dhcp.ts')).dhcp(options, parent),
  },
  gc: {
    summary: 'have the daemon remove what dead containers left; a dry run only lists what and why',
    options: { 'dry-run': 'remove nothing', ...JSON_OUTPUT },
    examples: { 'gc --dry-run': 'what is left over, and why' },
    run: async (options) => (await import('./changes.ts')).collectLeaks(options),
  },
  forget: {
    summary:
      'forget a network that Docker removed while the plugin was away, and free its addresses; one that Docker has is refused',
    arguments: ['NETWORK'],
    options: JSON_OUTPUT,
    examples: { 'forget 3f2a9c1d04be': 'by the id, or its beginning, that tsmacvlan networks lists' },
    run: async (options, network) => (await import('./changes.ts')).forget(options, network),
  },
  store: {
    summary: 'hosts that share addresses in etcd: list them, free what a scrapped one has, move in or out',
    details:
      'nodes lists the hosts. forget NODE frees the addresses of a host that never comes back. migrate moves this host in (--from local --to etcd://HOST:PORT), which claims its addresses in etcd, or out (the other way round), which gives them back there; its daemon must be stopped first.',
    arguments: ['nodes|forget|migrate', '[NODE]'],
    options: {
      from: 'with migrate: local, or etcd://HOST:PORT',
      to: 'with migrate: the other of the two',
      'dry-run': 'with forget and migrate: only tell what would be done',
      force: 'with forget: also what is in use; with migrate: also while containers run',
      ...JSON_OUTPUT,
    },
    examples: {
      'store nodes': 'the hosts that share addresses',
      'store forget web2 --dry-run': 'what a scrapped host still has',
      'store migrate --from local --to etcd://10.0.0.1:2379': "claim this host's addresses in etcd",
      'store migrate --from etcd://10.0.0.1:2379 --to local': 'give them back there',
    },
    run: async (options, word, node) => (await import('./sharedstore.ts')).sharedStore(options, word, node),
  },
  reserve: {
    summary: "give a container's name an address for good: it gets this one at each start, and no other container does",
    arguments: ['NAME', 'ADDRESS'],
    options: {
      network: 'where several networks have the address: its name, or the beginning of its id',
      ...JSON_OUTPUT,
    },
    examples: { 'reserve web 192.168.1.70': 'the container named web gets .70' },
    run: async (options, name, address) => (await import('./changes.ts')).reserve(options, name, address),
  },
  unreserve: {
    summary: 'forget the address that is reserved or remembered for a name',
    arguments: ['NAME'],
    options: { network: 'on this network only: its name, or the beginning of its id', ...JSON_OUTPUT },
    examples: { 'unreserve web': 'its address may go to other containers' },
    run: async (options, name) => (await import('./changes.ts')).unreserve(options, name),
  },
  backup: {
    summary: 'write all that is recorded into a file, also while the plugin runs',
    arguments: ['FILE'],
    options: JSON_OUTPUT,
    examples: { 'backup /var/backups/tsmacvlan': 'for root alone; an older backup there is replaced' },
    run: async (options, file) => (await import('./backups.ts')).backup(options, file),
  },
  restore: {
    summary: 'put back what a backup has, while the plugin is stopped; what was there is kept beside it',
    details:
      'Containers keep running. Stop the plugin first (systemctl stop tsmacvlan, or docker plugin disable --force), and start it afterwards: it finds containers that were started after the backup by their interfaces.',
    arguments: ['FILE'],
    options: { 'dry-run': 'only tell what would be restored', ...JSON_OUTPUT },
    examples: {
      'restore /var/backups/tsmacvlan --dry-run': 'what is in it, beside what is there now',
      'restore /var/backups/tsmacvlan': 'do it',
    },
    run: async (options, file) => (await import('./backups.ts')).restore(options, file),
  },
  settings: {
    summary: 'list the settings with their defaults',
    options: JSON_OUTPUT,
    examples: { settings: 'what /etc/default/tsmacvlan can contain' },
    run: async (options) => (await import('./listings.ts')).settings(options),
  },
};

/**
 * `node test/sim/reverted.ts`: takes mends back, one after the other, in a copy of the source, and plays the seed that finds what was
 * wrong without it. Prints a table; fails where a seed finds nothing, or something else. ROWS=L1,S2 for some of them.
 */
import { execFile } from 'node:child_process';
import { cpSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import type { Rule } from './judge.ts';

/** Text of a file of src/, which is there once, and what comes in its place. */
type Edit = readonly [file: string, from: string, to: string];

/** A mend that is taken back. */
interface Reverted {
  readonly row: string;
  readonly what: string;
  readonly edits: readonly Edit[];
  readonly seed: string;
  readonly rule: Rule;
}

const RESTS_LONG: Edit = ['ipam/passed-over.ts', 'return FIRST_REST_MS;', 'return LONGEST_REST_MS;'];
const RESTS_ALWAYS: Edit = ['ipam/passed-over.ts', 'if (taken.length === most ||', 'if (taken.length >= 0 ||'];

const REVERTED: readonly Reverted[] = [
  {
    row: 'L1',
    what: 'a standby address is given out on silence alone, and asked for no more',
    edits: [
      ['lan/timing.ts', 'probes: 1, lastWaitMs: Math.max(DEFENCE_MS, ANSWER_MS[family])', 'probes: 0, lastWaitMs: 0'],
      ['lan/lan.ts', 'await this.#questions.confirm({ ...question, givenTo })', '((_) => NOT_HELD)(givenTo)'],
    ],
    seed: 'kill 18 1500',
    rule: 'double',
  },
  {
    row: 'L2',
    what: 'nothing is void and nothing is asked again when a cable is back',
    edits: [
      ['lan/lan.ts', 'outdate: (parentName) => this.voidParent(parentName),', 'outdate: () => undefined,'],
      [
        'lan/lan.ts',
        'recheck: async (endpoint, address) => void (await this.#recheck(endpoint, address, true)),',
        'recheck: async () => undefined,',
      ],
    ],
    seed: 'life 1',
    rule: 'told',
  },
  {
    row: 'L3',
    what: 'whoever is said to have one address that nobody can have is a proxy',
    edits: [
      [
        'lan/proxyarp.ts',
        'return certain.every(isAnswered) && likely.filter(isAnswered).length >= leastLikely;',
        'return [...certain, ...likely].filter(isAnswered).length >= Math.min(1, leastLikely);',
      ],
      [
        'lan/proxyarp.ts',
        "if (packet.protocol === 'ARP' && packet.destinationMac !== this.#spec.macAddress) return;",
        'void packet;',
      ],
    ],
    seed: 'life 2',
    rule: 'double',
  },
  {
    row: 'L8',
    what: 'who asks for an address without having one counts as its holder for five minutes',
    edits: [RESTS_LONG, RESTS_ALWAYS],
    seed: 'scan 25',
    rule: 'progress',
  },
  {
    row: 'L9',
    what: 'who answers for every address counts as its holder for five minutes after he stopped',
    edits: [RESTS_LONG, RESTS_ALWAYS],
    seed: 'flood 25',
    rule: 'progress',
  },
  {
    row: 'L10',
    what: 'how long an address is passed over is measured by the wall clock, which is put back ten hours',
    edits: [
      RESTS_LONG,
      RESTS_ALWAYS,
      ['ipam/passed-over.ts', 'this.#nowMs = nowMs;', 'this.#nowMs = () => Date.now() + 0 * nowMs();'],
    ],
    seed: 'clock 600',
    rule: 'progress',
  },
  {
    row: 'L11',
    what: 'who has a MAC address of a daemon’s kind is taken for a daemon',
    edits: [
      ['lan/frames/sighting.ts', '!isMulticastMac(packet.destinationMac) &&', 'isMulticastMac !== undefined &&'],
      ['lan/frames/sighting.ts', 'packet.sourceMac !== macAddress &&', 'packet !== undefined &&'],
      ['lan/frames/sighting.ts', 'standbyMac(packet.sourceMac) === macAddress', 'standbyMac !== undefined'],
    ],
    seed: 'life 9',
    rule: 'told',
  },
  {
    row: 'L13',
    what: 'a container’s other interfaces count as strangers',
    edits: [
      [
        'lan/ownhost.ts',
        "if (found.some((id) => id !== null && place.namespaceIds.includes(id))) return { kind: 'container' };",
        '',
      ],
    ],
    seed: 'kill 18 1500',
    rule: 'false alarm',
  },
  {
    row: 'S1',
    what: 'a daemon that stood still in a start goes on with an address that etcd says is another’s',
    edits: [
      [
        'store/etcd/leases.ts',
        'async assure(named: Named): Promise<void> {',
        'async assure(named: Named): Promise<void> {\n    if (named !== null) return;',
      ],
      ['store/etcd/leases.ts', 'if (!isOurs && (await this.#isIdle(lease))) {', 'if (lease.kind !== lease.kind) {'],
    ],
    seed: 'etcd standstill 3',
    rule: 'double',
  },
  {
    row: 'S2',
    what: 'the taker of a lost host’s address is killed, and who had it is forgotten',
    edits: [
      [
        'store/etcd/claims.ts',
        'return mayInherit ? { ...ours, heir: heir ?? { kind: standing.kind, nodes } } : null;',
        'return mayInherit ? ours : null;',
      ],
    ],
    seed: 'etcd takeover 5',
    rule: 'double',
  },
  {
    row: 'S3',
    what: 'a member of another cluster takes the place of one',
    edits: [
      [
        'store/etcd/client.ts',
        'if (clusterId !== this.#clusterId) throw CallFailure.ofOtherCluster(clusterId);',
        'this.#clusterId = clusterId;',
      ],
    ],
    seed: 'etcd 12',
    rule: 'gateway',
  },
  {
    row: 'S6',
    what: 'etcd is restored while a host is cut off, and its addresses are given to others after 10 s',
    edits: [['store/etcd/view.ts', 'return this.#isRestored || this.#awaited.size > 0;', 'return false;']],
    seed: 'etcd restore 25000',
    rule: 'double',
  },
  {
    row: 'S8',
    what: 'a lost host’s gateway is given to a container',
    edits: [
      ['store/etcd/claims.ts', 'const mayInherit = !isShared(standing.kind) && ', 'const mayInherit = '],
      ['store/etcd/view.ts', '&& !isShared(claim.kind) && !this.isOurs(key)', '&& !this.isOurs(key)'],
    ],
    seed: 'etcd gateway 3',
    rule: 'gateway',
  },
  {
    row: 'S9',
    what: 'hosts are lost while etcd is full, and the LAN is not asked for what they had',
    edits: [
      ['store/etcd/view.ts', 'const since = Math.max(this.#writableSinceMs, ', 'const since = Math.max('],
      ['store/etcd/leases.ts', "|| view.at(key)?.claim.heir !== undefined ? 'fast' : null", "? 'fast' : null"],
    ],
    seed: 'etcd alarm 1',
    rule: 'double',
  },
  {
    row: 'L4',
    what: 'nobody looks whether a port hides answers',
    edits: [
      [
        'lan/prober.ts',
        "if (request.mode !== 'passthru') await this.#filters.check(parent, stop);",
        'void parent.name;',
      ],
    ],
    seed: 'filter 1',
    rule: 'double',
  },
  {
    row: 'S12',
    what: 'what a leader’s plugin was killed with before it answered stays in its books',
    edits: [['ipam/swarm.ts', 'return askedBy !== undefined;', 'return askedBy === null;']],
    seed: 'swarm request 1',
    rule: 'left over',
  },
  {
    row: '-',
    what: 'who led before and leads again says that the addresses of that time are in use',
    edits: [['ipam/leases.ts', ' && existing.round === wanted.round;', ';']],
    seed: 'swarm return 60',
    rule: 'progress',
  },
  {
    row: '-',
    what: 'the cluster that etcd was restored to is said to be another one than itself',
    edits: [
      [
        'store/etcd/client.ts',
        'for (const [endpoint, other] of this.#others) if (other === clusterId) this.#others.delete(endpoint);',
        '',
      ],
    ],
    seed: 'etcd restore 11000',
    rule: 'sentence',
  },
  {
    row: '-',
    what: 'a write that failed counts as done',
    edits: [
      [
        'store/local.ts',
        'this.#translated(() => statement.run(...values).changes) === 1;',
        '[1].every(() => { try { return statement.run(...values).changes === 1; } catch { return true; } });',
      ],
    ],
    seed: 'full 1',
    rule: 'left over',
  },
];

const ROOT = join(import.meta.dirname, '../..');
const run = promisify(execFile);

/** What the seed breaks without the mend, and how long that took. */
async function play({ edits, seed }: Reverted): Promise<{ told: string; seconds: number }> {
  const directory = mkdtempSync(join(tmpdir(), 'tsmacvlan-reverted-'));
  try {
    for (const part of ['src', 'test/sim', 'package.json'])
      cpSync(join(ROOT, part), join(directory, part), { recursive: true });
    symlinkSync(join(ROOT, 'node_modules'), join(directory, 'node_modules'));
    for (const [file, from, to] of edits) {
      const path = join(directory, 'src', file);
      const parts = readFileSync(path, 'utf8').split(from);
      if (parts.length !== 2) return { told: `${file} has this ${parts.length - 1} times: ${from}`, seconds: 0 };
      writeFileSync(path, parts.join(to));
    }
    const beganMs = performance.now();
    const main = join(directory, 'test/sim/main.ts');
    const told = await run(process.execPath, [main], { env: { ...process.env, SEEDS: seed }, maxBuffer: 64 << 20 })
      .then(({ stdout }) => stdout)
      .catch((error: { stdout?: string; stderr?: string }) => `${error.stdout ?? ''}${error.stderr ?? ''}`);
    return { told, seconds: (performance.now() - beganMs) / 1000 };
  } finally {
    rmSync(directory, { recursive: true, force: true });
  }
}

async function main(): Promise<void> {
  const rows = process.env['ROWS']?.split(',');
  for (const reverted of REVERTED.filter(({ row }) => rows?.includes(row) ?? true)) {
    const { told, seconds } = await play(reverted);
    const isFound = told.includes(`: ${reverted.rule} at `);
    if (!isFound) process.exitCode = 1;
    const { row, what, rule, seed } = reverted;
    console.log(`| ${row} | ${what} | ${isFound ? rule : 'NOT FOUND'} | \`${seed}\` | ${seconds.toFixed(1)} |`);
    if (!isFound) console.log(told.split('\n').slice(0, 3).join('\n'));
  }
}

if (import.meta.main) await main();

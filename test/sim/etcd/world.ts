/** The etcd of a world: three members, who reaches them, and what is done to them. */
import type { Step } from '../scenario.ts';
import { Cluster, type EtcdNetwork, Member, type Snapshot } from './cluster.ts';

const ADDRESSES = ['10.9.0.1:2379', '10.9.0.2:2379', '10.9.0.3:2379'];
const FIRST_ID = 7001;
const STRAY_ID = 9001;

type EtcdStep = Exclude<Step, { host: number } | { stranger: number }>;

export class EtcdWorld {
  #cluster = new Cluster(FIRST_ID);
  readonly #members = new Map(ADDRESSES.map((address) => [address, new Member(this.#cluster)]));
  /** Hosts that reach none of them. */
  readonly #cut = new Set<string>();
  #saved: Snapshot | null = null;
  #strays = 0;

  /** Of the daemons. Nothing but etcd decides. */
  get settings(): Record<string, string> {
    return { STORE: `etcd://${ADDRESSES.join(',')}`, PROBE: 'off' };
  }

  networkOf(host: string): EtcdNetwork {
    return { reach: (address) => (this.#cut.has(host) ? null : (this.#members.get(address) ?? null)) };
  }

  cut(host: string, isCut: boolean): void {
    if (isCut) this.#cut.add(host);
    else this.#cut.delete(host);
  }

  /** Whether a claim of this host's stands for the address. */
  hasClaim(address: string, host: string): boolean {
    const { kvs } = this.#cluster.range('', '\uffff', 0);
    return kvs.some(({ key, value }) => key.endsWith(`/${address}`) && value.toString().includes(host));
  }

  do(step: EtcdStep): void {
    switch (step.do) {
      case 'save etcd':
        this.#saved = this.#cluster.snapshot();
        return;
      case 'restore etcd':
        return this.#restore();
      case 'compact etcd':
        return this.#cluster.compact();
      case 'fill etcd':
        this.#cluster.isFull = true;
        return;
      case 'behead etcd':
        this.#cluster.isHeadless = true;
        return;
      case 'stray member': {
        const member = this.#members.get(ADDRESSES[step.member] ?? '');
        if (member !== undefined) member.cluster = new Cluster(STRAY_ID + this.#strays++);
        return;
      }
    }
  }

  mend(step: EtcdStep): void {
    if (step.do === 'fill etcd') this.#cluster.isFull = false;
    else if (step.do === 'behead etcd') this.#cluster.isHeadless = false;
    else if (step.do === 'stray member') {
      const member = this.#members.get(ADDRESSES[step.member] ?? '');
      if (member !== undefined) member.cluster = this.#cluster;
    }
  }

  /** As `etcdctl snapshot restore` on all members: another cluster, with what was saved. */
  #restore(): void {
    if (this.#saved === null) return;
    this.#cluster = new Cluster(this.#cluster.id + 1, this.#saved);
    for (const member of this.#members.values()) member.cluster = this.#cluster;
  }
}

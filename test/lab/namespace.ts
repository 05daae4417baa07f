/** Network namespaces and the LAN between them: a bridge with a port for every cable that is plugged in. */
import { randomBytes } from 'node:crypto';
import { output, run, type Result, type RunOptions } from './command.ts';

export class Namespace {
  readonly name: string;
  readonly path: string;

  private constructor(name: string) {
    this.name = name;
    this.path = `/run/netns/${name}`;
  }

  static async create(name: string): Promise<Namespace> {
    const namespace = new Namespace(name);
    await output(['ip', 'netns', 'add', name]);
    await namespace.ip('link set lo up');
    return namespace;
  }

  /** Runs `ip` with these words, as `namespace.ip('link set lan0 up')`; throws what it complains about. */
  ip(words: string): Promise<string> {
    return output(['ip', '-n', this.name, ...words.split(' ')]);
  }

  /** What `ip` shows, as data: `await namespace.show<Link>('-d link')`. */
  async show<T>(words: string): Promise<T[]> {
    return JSON.parse((await this.ip(`-j ${words}`)) || '[]') as T[];
  }

  run(argv: string[], options?: RunOptions): Promise<Result> {
    return run(this.enter(argv), options);
  }

  /** The command that runs another one in here. */
  enter(argv: string[]): string[] {
    return ['nsenter', `--net=${this.path}`, ...argv];
  }

  delete(): Promise<string> {
    return output(['ip', 'netns', 'delete', this.name]);
  }
}

/** A switch in a namespace of its own, with an address on it that anyone may ping. */
export class Lan {
  readonly namespace: Namespace;
  private ports = 0;

  private constructor(namespace: Namespace) {
    this.namespace = namespace;
  }

  /** `addresses` are those of the switch itself, as `192.0.2.254/24`. */
  static async create(addresses: string[] = [], name = 'lan'): Promise<Lan> {
    const namespace = await Namespace.create(name);
    // Else it has the lowest of its ports', and hosts lose it when that one is unplugged (br_stp_recalculate_bridge_id).
    const macAddress = `0a:5c:${randomBytes(4)
      .toString('hex')
      .replaceAll(/..(?=.)/g, '$&:')}`;
    await namespace.ip(`link add br0 address ${macAddress} type bridge mcast_snooping 0`);
    await namespace.ip('link set br0 up');
    for (const address of addresses) await namespace.ip(`address add ${address} dev br0 nodad`);
    return new Lan(namespace);
  }

  /** Plugs a cable into a new port; its other end is the link `name` of `namespace`, which is up at once. Answers the port. */
  async plug(namespace: Namespace, name = 'lan0'): Promise<string> {
    const port = `port${++this.ports}`;
    await this.namespace.ip(`link add ${port} type veth peer name ${name} netns ${namespace.name}`);
    await this.namespace.ip(`link set ${port} master br0 up`);
    await namespace.ip(`link set ${name} up`);
    return port;
  }

  /** Removing the port takes the link at the other end with it at once; deleting its namespace does so some time later. */
  async unplug(port: string): Promise<void> {
    await this.namespace.ip(`link delete ${port}`);
  }

  /** Whether the switch sends a frame back through the port it came from, as vepa needs. */
  async setHairpin(port: string, isOn: boolean): Promise<void> {
    await this.namespace.ip(`link set ${port} type bridge_slave hairpin ${isOn ? 'on' : 'off'}`);
  }

  /** A switch that is turned off, or a cable pulled out: the host at the port loses its carrier. */
  async setCarrier(port: string, isOn: boolean): Promise<void> {
    await this.namespace.ip(`link set ${port} ${isOn ? 'up' : 'down'}`);
  }

  /** Ports that are set apart hear all others, but not each other, and nobody loses a carrier. */
  async setApart(port: string, isOn: boolean): Promise<void> {
    await this.namespace.ip(`link set ${port} type bridge_slave isolated ${isOn ? 'on' : 'off'}`);
  }

  /** With spanning tree a port forwards nothing for some time although there is a carrier (IEEE 802.1D: BR_STATE_DISABLED). */
  async setForwarding(port: string, isOn: boolean): Promise<void> {
    await this.namespace.ip(`link set ${port} type bridge_slave state ${isOn ? 3 : 0}`);
  }
}

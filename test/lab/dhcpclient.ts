/** A DHCP client that is not ours: busybox udhcpc on a machine of its own. */
import assert from 'node:assert/strict';
import { chmod, writeFile } from 'node:fs/promises';
import { type Lan, Namespace } from './namespace.ts';
import { dhcpEnvironment, dhcpProgram } from './packages.ts';

interface Wish {
  readonly address?: string;
  readonly hostname?: string;
}

/** What it was given, by the server's words; the address is the kernel's. */
interface Given {
  readonly address: string;
  readonly router: string;
  /** Of option 121, `10.9.0.0/16 10.77.0.254 …`. */
  readonly routes: string;
  readonly domain: string;
  readonly leaseSeconds: number;
}

const SCRIPT = `#!/bin/sh
[ "$1" = bound ] || exit 0
ip address flush dev $interface
ip address add $ip/$mask dev $interface
printf '%s\\n' "given:$router|$staticroutes|$domain|$lease"
`;

export class PlainClient {
  readonly namespace: Namespace;
  readonly #script: string;

  private constructor(namespace: Namespace) {
    this.namespace = namespace;
    this.#script = `/run/${namespace.name}.script`;
  }

  static async plug(lan: Lan, name: string): Promise<PlainClient> {
    const client = new PlainClient(await Namespace.create(name));
    await lan.plug(client.namespace);
    await writeFile(client.#script, SCRIPT);
    await chmod(client.#script, 0o755);
    return client;
  }

  /** Asks with a MAC address, as one that is new on the LAN or with a wish. */
  async acquire(macAddress: string, { address, hostname }: Wish = {}): Promise<Given> {
    await this.namespace.ip('link set lan0 down');
    await this.namespace.ip(`link set lan0 address ${macAddress} up`);
    const wishes = [...(address ? ['-r', address] : []), ...(hostname ? ['-x', `hostname:${hostname}`] : [])];
    const once = ['-f', '-q', '-n', '-t', '10', '-T', '1', '-i', 'lan0', '-s', this.#script, '-O', 'staticroutes'];
    const argv = [dhcpProgram('bin/busybox'), 'udhcpc', ...once, ...wishes];
    const { stdout, stderr } = await this.namespace.run(argv, { env: dhcpEnvironment() });
    const given = /^given:(.*)$/m.exec(stdout)?.[1];
    assert.ok(given !== undefined, `${stdout}${stderr}`);
    const [router = '', routes = '', domain = '', lease = ''] = given.split('|');
    return { address: await this.#address(), router, routes, domain, leaseSeconds: Number(lease) };
  }

  async #address(): Promise<string> {
    const [link] = await this.namespace.show<{ addr_info: { local: string }[] }>('-4 address show lan0');
    return link?.addr_info[0]?.local ?? '';
  }
}

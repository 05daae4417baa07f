/** What this host says about links by files: sysfs shows the namespace it was mounted in, /proc/sys that of this thread. */
import { existsSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import type { Link } from './message.ts';

/** Names of the links that sit on this one; null where sysfs shows another namespace, or is not there. */
export function upperNames({ name, index, macAddress }: Link): string[] | null {
  const directory = `/sys/class/net/${name}`;
  const read = (file: string) => readFileSync(`${directory}/${file}`, 'utf8').trim();
  try {
    if (read('ifindex') !== String(index) || read('address') !== macAddress) return null;
    return readdirSync(directory).flatMap((entry) =>
      entry.startsWith('upper_') ? [entry.slice('upper_'.length)] : [],
    );
  } catch {
    return null;
  }
}

/** IFLA_WIRELESS occurs only in events. */
export function isWirelessName(name: string): boolean {
  if (name === '' || name === '.' || name === '..' || name.includes('/')) return false;
  return ['phy80211', 'wireless'].some((entry) => existsSync(`/sys/class/net/${name}/${entry}`));
}

/** A switch of the host's IPv6 on a link, where it can be written: not in a plugin's container, nor in a kernel without IPv6. */
export function writeIPv6Switch(name: string, key: string, value: string): void {
  try {
    writeFileSync(`/proc/sys/net/ipv6/conf/${name}/${key}`, value);
  } catch {
    // Read-only, or there is none.
  }
}

/** What this host says about links by files: sysfs shows the namespace it was mounted in, /proc/sys that of this thread. */
import { existsSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import type { Link } from './message.ts';

/** Names of the links that sit on this one; null where sysfs shows another namespace, or is not there. */
export function upperNames(link: Link): string[] | null {
  return inSysfs(link, (directory) =>
    readdirSync(directory).flatMap((entry) => (entry.startsWith('upper_') ? [entry.slice('upper_'.length)] : [])),
  );
}

/** Received and sent since it was made, wherever it was moved; null where sysfs shows another namespace, or is not there. */
export function carriedFrames(link: Link): number | null {
  const count = (file: string) => Number(readFileSync(file, 'utf8'));
  return inSysfs(
    link,
    (directory) => count(`${directory}/statistics/rx_packets`) + count(`${directory}/statistics/tx_packets`),
  );
}

function inSysfs<T>({ name, index, macAddress }: Link, read: (directory: string) => T): T | null {
  const directory = `/sys/class/net/${name}`;
  const text = (file: string) => readFileSync(`${directory}/${file}`, 'utf8').trim();
  try {
    return text('ifindex') === String(index) && text('address') === macAddress ? read(directory) : null;
  } catch {
    return null;
  }
}

/** IFLA_WIRELESS occurs only in events. */
export function isWirelessName(name: string): boolean {
  return isPlain(name) && ['phy80211', 'wireless'].some((entry) => existsSync(`/sys/class/net/${name}/${entry}`));
}

/** One of the many devices of a card (SR-IOV), whose MAC addresses the card's owner decides. */
export function isVirtualFunctionName(name: string): boolean {
  return isPlain(name) && existsSync(`/sys/class/net/${name}/device/physfn`);
}

function isPlain(name: string): boolean {
  return name !== '' && name !== '.' && name !== '..' && !name.includes('/');
}

/** A switch of the host's IPv6 on a link, where it can be written: not in a plugin's container, nor in a kernel without IPv6. */
export function writeIPv6Switch(name: string, key: string, value: string): void {
  try {
    writeFileSync(`/proc/sys/net/ipv6/conf/${name}/${key}`, value);
  } catch {
    // Read-only, or there is none.
  }
}

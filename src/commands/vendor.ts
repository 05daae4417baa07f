/**
 * Who made the interface with a MAC address, by the list of the host's own distribution: it is kept up to date there, and takes
 * megabytes that most commands have no use for.
 */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';

interface VendorList {
  readonly file: string;
  /** The line of a prefix of six hexadecimal digits, with the vendor's name in its group. */
  readonly line: (prefix: string) => RegExp;
}

/** Of systemd (hwdb), of the package hwdata, and of Debian's ieee-data. */
const LISTS: readonly VendorList[] = [
  {
    file: '/usr/lib/udev/hwdb.d/20-OUI.hwdb',
    line: (prefix) => new RegExp(`^OUI:${prefix}\\*\\n ID_OUI_FROM_DATABASE=(.*)$`, 'm'),
  },
  ...['/usr/share/hwdata/oui.txt', '/usr/share/ieee-data/oui.txt'].map((file) => ({
    file,
    line: (prefix: string) => new RegExp(`^${prefix}\\s+\\(base 16\\)\\s+(.*?)\\s*$`, 'm'),
  })),
];

/** The second lowest bit of the first byte: not given by a vendor (IEEE 802-2014, 8.2.2). */
const LOCAL = 2;

/** In words; null where no list is there, or none has it. `root`: where the lists are below. */
export function vendorOf(macAddress: string, root = '/'): string | null {
  if ((Number.parseInt(macAddress.slice(0, 2), 16) & LOCAL) !== 0)
    return 'no vendor: made up by a container, a virtual machine, or a device that hides its own';
  const prefix = macAddress.slice(0, 8).replaceAll(':', '').toUpperCase();
  for (const { file, line } of LISTS) {
    const found = line(prefix).exec(textOf(join(root, file)))?.[1];
    if (found !== undefined) return found;
  }
  return null;
}

function textOf(file: string): string {
  try {
    return readFileSync(file, 'utf8');
  } catch {
    return '';
  }
}

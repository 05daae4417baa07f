/** A link made for a moment to hear from the kernel whether anybody on a parent has a MAC address. */
import { isKernelError } from '../kernel/errno.ts';
import type { Link, Links, MacvlanSpec } from '../kernel/link.ts';
import { PROBE_ALIAS, makeTrialLinkName } from '../linknames.ts';
import type { Mode } from '../model.ts';

/** Below 1280 the kernel gives a link no IPv6 at all (addrconf_notify, net/ipv6/addrconf.c): it says nothing on the LAN. */
const MTU = 1279;

/**
 * Undefined when the kernel does not say. A second link with one MAC address on a parent is refused when it comes up,
 * whatever the modes (macvlan_open: EADDRINUSE); but only for a first one that is up, so "not occupied" is half an answer.
 * Beside a passthru link none can be made (macvlan_common_newlink: EINVAL).
 */
export async function isOccupied(
  links: Links,
  parent: Link,
  { mode, macAddress }: { mode: Mode; macAddress: string },
): Promise<boolean | undefined> {
  const spec: MacvlanSpec = {
    name: makeTrialLinkName(),
    alias: PROBE_ALIAS,
    parentIndex: parent.index,
    mode: 'bridge',
    macAddress: mode === 'passthru' ? null : macAddress,
    mtu: Math.min(MTU, parent.mtu),
    broadcastQueueLength: null,
  };
  let link: Link | undefined;
  try {
    link = await links.addMacvlan(spec);
    if (mode === 'passthru') return false;
    await links.setArp(link.index, false);
    await links.setUp(link.index);
    return false;
  } catch (error) {
    return isKernelError(error, link === undefined ? 'EINVAL' : 'EADDRINUSE') ? true : undefined;
  } finally {
    if (link !== undefined) await links.deleteLink(link.index);
  }
}

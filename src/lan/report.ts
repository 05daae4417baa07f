/** What the log says of a conflict of a running container. */
import { formatAddress } from '../address.ts';
import type { Fields } from '../log.ts';
import type { ConflictSeen } from './takers.ts';

/** A message with its fields; null for what was told not long ago. */
export function conflictLine(conflict: ConflictSeen): readonly [string, Fields] | null {
  const { kind, news, hostLinkName: link, parentName: parent, macAddress: by, ourMacAddress: container } = conflict;
  const address = formatAddress(conflict.address);
  if (news === null) return null;
  if (news === 'many')
    return [
      'too many MAC addresses use addresses of running containers to name them all; those that follow are only counted',
      { parent, address, by },
    ];
  if (kind === 'mac')
    return ['another host uses the MAC address of a running container', { container, parent, with: address }];
  if (link !== null)
    return ['this host itself has the address of a running container', { address, parent, link, container }];
  return ['somebody else uses the address of a running container', { address, parent, by, container }];
}

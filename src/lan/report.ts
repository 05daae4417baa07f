/** What becomes of a conflict of a running container: a record, and a line in the log; and the lines about a LAN as a whole. */
import { type Address, formatAddress } from '../address.ts';
import type { Fields, Log } from '../log.ts';
import type { MonitorParts } from './monitor.ts';
import type { ProberParts } from './prober.ts';
import type { ConflictSeen } from './takers.ts';

interface ReportParts {
  readonly log: Log;
  /** For the beginnings of conflicts; left out as `log`. */
  readonly conflictLog?: Log;
  readonly record: (conflict: ConflictSeen) => Promise<void>;
  readonly ended: (parentName: string, address: Address) => Promise<void>;
}

/** For the administrator of the switch or hypervisor. */
const PORT_FILTERS =
  'the network port of the parent delivers frames to its own MAC address only: containers on it get no answers; have it let other MAC addresses through (VMware: promiscuous mode, MAC address changes and forged transmits; Hyper-V: MAC address spoofing; a switch: port security)';

/** What was found out about a LAN, in the log. */
export function lanReports(log: Log): Pick<ProberParts, 'onProxy' | 'onPortFilter'> {
  return {
    onProxy: ({ parentName: parent, macAddress: device }) =>
      log.warn('a device answers for every address (proxy ARP), which is no conflict', { parent, device }),
    onPortFilter(parent, isFiltered) {
      if (isFiltered) log.warn(PORT_FILTERS, { parent });
      else log.info('the network port of the parent lets frames for other MAC addresses through now', { parent });
    },
  };
}

/** What the watch tells, written down. */
export function conflictReports({
  log,
  conflictLog = log,
  record,
  ended,
}: ReportParts): Pick<MonitorParts, 'onConflict' | 'onEnd' | 'onLost'> {
  const failed = (what: string, address: Address) => (error: unknown) =>
    log.error(what, { address: formatAddress(address), error: String(error) });
  return {
    onConflict(seen) {
      const line = conflictLine(seen);
      if (line !== null) conflictLog.warn(...line);
      void record(seen).catch(failed('a conflict was not recorded', seen.address));
    },
    onEnd(parent, address) {
      log.info('nobody else uses the address of a container any more', { address: formatAddress(address), parent });
      void ended(parent, address).catch(failed('the end of a conflict was not recorded', address));
    },
    onLost: (parent, count) =>
      log.warn('more frames about addresses of running containers came than could be read', { parent, count }),
  };
}

/** A message with its fields; null for what was told not long ago. */
function conflictLine(conflict: ConflictSeen): readonly [string, Fields] | null {
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

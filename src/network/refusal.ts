/** What the kernel refuses, turned into sentences: each errno has a known cause in this room, named here and only here. */
import * as errors from '../errors.ts';
import { KernelError } from '../kernel/errno.ts';
import type { Mode } from '../model.ts';

/** The sub-interface that the kernel refused. */
export interface SubInterfaceAttempt {
  readonly parent: string;
  readonly mode: Mode;
  readonly macAddress: string | null;
  /** Bytes that were asked for, and those of the parent; left out where none were. */
  readonly mtu?: { readonly wanted: number | null; readonly parents: number };
}

/** Refusals of macvlan_common_newlink (drivers/net/macvlan.c) and of rtnetlink around it. */
export function subInterfaceRefusal(error: unknown, { parent, mode, macAddress, mtu }: SubInterfaceAttempt): unknown {
  if (!(error instanceof KernelError)) return error;
  // The parent's was lowered since the network was made; macvlan_common_newlink says EINVAL for that too.
  if (error.code === 'EINVAL' && mtu !== undefined && mtu.wanted !== null && mtu.wanted > mtu.parents)
    return errors.mtuAboveParent(mtu.wanted, parent, mtu.parents);
  switch (error.code) {
    case 'EBUSY':
      return errors.parentBusy(parent, error);
    case 'EINVAL':
      // The port is in mode passthru, or this one is and the port has children; a bad MTU comes with a text.
      return error.detail === null ? errors.passthruRefusedByKernel(parent, error) : common(error);
    case 'EADDRINUSE':
      return errors.macInUseOnParent(macAddress ?? 'of the parent', parent, error);
    case 'EADDRNOTAVAIL':
      return macAddress === null ? common(error) : errors.macMalformed(macAddress);
    case 'ENODEV':
      return errors.parentVanished(parent, error);
    case 'EOPNOTSUPP':
    case 'ENOTSUP':
      return errors.kindUnsupported('macvlan', 'macvlan', error);
    default:
      return mode === 'passthru' && error.code === 'EEXIST'
        ? errors.passthruRefusedByKernel(parent, error)
        : common(error);
  }
}

/** Refusals to make a link of a kind that this kernel may not have. */
export function kindRefusal(error: unknown, kind: string, module: string): unknown {
  if (!(error instanceof KernelError)) return error;
  const isUnknownKind = error.code === 'EOPNOTSUPP' || error.code === 'ENOTSUP';
  return isUnknownKind ? errors.kindUnsupported(kind, module, error) : common(error);
}

function common(error: KernelError): errors.PluginError {
  if (error.code === 'EPERM' || error.code === 'EACCES') return errors.notPermitted(error.operation, error);
  return errors.kernelRefused(error.operation, error.code, error.detail, error);
}

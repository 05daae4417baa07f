/** Stands where src/kernel/sysfs.ts stands: what files say of the links of the machine whose process is running. */
import type { Link } from '../../../src/kernel/message.ts';
import { currentProcess } from '../time.ts';
import type { Computer } from './kernel.ts';

export function upperNames(_link: Link): string[] | null {
  return null;
}

export function carriedFrames({ index }: Link): number | null {
  const machine = currentProcess()?.machine as Computer | undefined;
  return machine?.kernel.host.links.get(index)?.carried ?? null;
}

export function isWirelessName(_name: string): boolean {
  return false;
}

export function isVirtualFunctionName(_name: string): boolean {
  return false;
}

export function writeIPv6Switch(_name: string, _key: string, _value: string): void {}

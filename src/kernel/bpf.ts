/** Classic BPF (linux/filter.h): programs that choose in the kernel which frames a packet socket receives. Pure. */

/** struct sock_filter. */
export interface BpfInstruction {
  readonly code: number;
  /** Instructions to skip when the comparison holds, and when it does not. */
  readonly jt: number;
  readonly jf: number;
  readonly k: number;
}

const LOAD_WORD = 0x20; // BPF_LD | BPF_W | BPF_ABS
const LOAD_HALF = 0x28; // BPF_LD | BPF_H | BPF_ABS
const LOAD_BYTE = 0x30; // BPF_LD | BPF_B | BPF_ABS
const SET_INDEX = 0x01; // BPF_LDX | BPF_W | BPF_IMM
const JUMP = 0x05; // BPF_JMP | BPF_JA
const JUMP_IF_EQUAL = 0x15; // BPF_JMP | BPF_JEQ | BPF_K
const JUMP_IF_EQUAL_INDEX = 0x1d; // BPF_JMP | BPF_JEQ | BPF_X
const JUMP_IF_ANY_SET = 0x45; // BPF_JMP | BPF_JSET | BPF_K
const RETURN = 0x06; // BPF_RET | BPF_K

const WHOLE_FRAME = 0x40000;

/** SKF_AD_OFF + SKF_AD_VLAN_TAG and SKF_AD_VLAN_TAG_PRESENT: what the frame's bytes no longer show. */
const VLAN_TAG = 0xfffff000 + 44;
const VLAN_TAG_PRESENT = 0xfffff000 + 48;

type Target = string | undefined;
export type Step = { readonly code: number; readonly k: number; readonly then?: Target; readonly otherwise?: Target };

/** Big-endian, from the start of the Ethernet header. */
export const loadWord = (offset: number): Step => ({ code: LOAD_WORD, k: offset });
export const loadHalf = (offset: number): Step => ({ code: LOAD_HALF, k: offset });
export const loadByte = (offset: number): Step => ({ code: LOAD_BYTE, k: offset });
/** Without a label the next step follows. */
export const ifEqual = (value: number, then: Target, otherwise?: Target): Step => ({
  code: JUMP_IF_EQUAL,
  k: value,
  then,
  otherwise,
});
export const ifAnySet = (mask: number, then: Target, otherwise?: Target): Step => ({
  code: JUMP_IF_ANY_SET,
  k: mask,
  then,
  otherwise,
});
/** Keeps a value for ifEqualIndex; what was loaded stays. */
export const setIndex = (value: number): Step => ({ code: SET_INDEX, k: value });
/** What was loaded last is what setIndex was given last. */
export const ifEqualIndex = (then: Target, otherwise?: Target): Step => ({
  code: JUMP_IF_EQUAL_INDEX,
  k: 0,
  then,
  otherwise,
});
/** However far. */
export const jump = (to: string): Step => ({ code: JUMP, k: 0, then: to });
export const accept: Step = { code: RETURN, k: WHOLE_FRAME };
export const drop: Step = { code: RETURN, k: 0 };

/** A string is a label for the step after it. Jumps lead forwards only. */
export function assemble(lines: readonly (Step | string)[]): BpfInstruction[] {
  const labels = new Map<string, number>();
  const steps: Step[] = [];
  for (const line of lines) {
    if (typeof line === 'string') labels.set(line, steps.length);
    else steps.push(line);
  }
  return steps.map(({ code, k, then, otherwise }, position) => {
    if (code === JUMP) return { code, jt: 0, jf: 0, k: distance(labels, position, then, 0xffff_ffff) };
    return { code, jt: distance(labels, position, then), jf: distance(labels, position, otherwise), k };
  });
}

function distance(labels: ReadonlyMap<string, number>, position: number, target: Target, most = 255): number {
  if (target === undefined) return 0;
  const skipped = (labels.get(target) ?? -1) - position - 1;
  if (skipped < 0 || skipped > most) throw new RangeError(`no BPF jump leads from step ${position} to "${target}"`);
  return skipped;
}

/** An array of struct sock_filter {u16 code; u8 jt; u8 jf; u32 k}. */
export function encodeProgram(program: readonly BpfInstruction[]): Buffer {
  const bytes = Buffer.alloc(program.length * 8);
  program.forEach(({ code, jt, jf, k }, position) => {
    bytes.writeUInt16LE(code, position * 8);
    bytes.set([jt, jf], position * 8 + 2);
    bytes.writeUInt32LE(k, position * 8 + 4);
  });
  return bytes;
}

/**
 * The start of a program, which needs a label 'drop': frames of a VLAN are dropped. The kernel has taken their tag out,
 * so a VLAN's ARP would look like one of the untagged LAN. Tag 0 carries only a priority (IEEE 802.1Q).
 */
export const DROP_TAGGED: readonly (Step | string)[] = [
  loadByte(VLAN_TAG_PRESENT),
  ifEqual(0, 'untagged'),
  loadHalf(VLAN_TAG),
  ifAnySet(0x0fff, 'drop'),
  'untagged',
];

/** Untagged ARP, and ICMPv6 Neighbour Solicitations (135) and Advertisements (136) without extension headers. */
export const ARP_AND_NEIGHBOUR_DISCOVERY: readonly BpfInstruction[] = assemble([
  ...DROP_TAGGED,
  loadHalf(12),
  ifEqual(0x0806, 'accept'),
  ifEqual(0x86dd, undefined, 'drop'),
  loadByte(20),
  ifEqual(58, undefined, 'drop'),
  loadByte(54),
  ifEqual(135, 'accept'),
  ifEqual(136, undefined, 'drop'),
  'accept',
  accept,
  'drop',
  drop,
]);

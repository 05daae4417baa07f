/** Runs classic BPF programs as the kernel does for packet sockets (net/core/filter.c), as far as this product writes them. */
import type { BpfInstruction } from '../../../src/kernel/bpf.ts';

const LOAD_WORD = 0x20;
const LOAD_HALF = 0x28;
const LOAD_BYTE = 0x30;
const SET_INDEX = 0x01;
const JUMP = 0x05;
const JUMP_IF_EQUAL = 0x15;
const JUMP_IF_EQUAL_INDEX = 0x1d;
const JUMP_IF_ANY_SET = 0x45;
const RETURN = 0x06;
/** SKF_AD_OFF: what the kernel knows beside the bytes. No frame here has a VLAN tag. */
const ANCILLARY = 0xfffff000;

/** Reads back struct sock_filter {u16 code; u8 jt; u8 jf; u32 k}. */
export function decodeProgram(bytes: Buffer): BpfInstruction[] {
  return Array.from({ length: bytes.length / 8 }, (_, position) => ({
    code: bytes.readUInt16LE(position * 8),
    jt: bytes.readUInt8(position * 8 + 2),
    jf: bytes.readUInt8(position * 8 + 3),
    k: bytes.readUInt32LE(position * 8 + 4),
  }));
}

/** Whether the program takes the frame. A load beyond its end drops it. */
export function accepts(program: readonly BpfInstruction[], frame: Buffer): boolean {
  let [loaded, index] = [0, 0];
  for (let at = 0; at < program.length; at++) {
    const { code, jt, jf, k } = program[at] as BpfInstruction;
    switch (code) {
      case LOAD_WORD:
      case LOAD_HALF:
      case LOAD_BYTE: {
        const value = load(code, k, frame);
        if (value === null) return false;
        loaded = value;
        break;
      }
      case SET_INDEX:
        index = k;
        break;
      case JUMP:
        at += k;
        break;
      case JUMP_IF_EQUAL:
        at += loaded === k ? jt : jf;
        break;
      case JUMP_IF_EQUAL_INDEX:
        at += loaded === index ? jt : jf;
        break;
      case JUMP_IF_ANY_SET:
        at += (loaded & k) !== 0 ? jt : jf;
        break;
      case RETURN:
        return k !== 0;
      default:
        throw new Error(`BPF instruction ${code} is not known here`);
    }
  }
  throw new Error('a BPF program ended without a return');
}

function load(code: number, offset: number, frame: Buffer): number | null {
  if (offset >= ANCILLARY) return 0;
  const size = code === LOAD_WORD ? 4 : code === LOAD_HALF ? 2 : 1;
  return offset + size > frame.length ? null : frame.readUIntBE(offset, size);
}

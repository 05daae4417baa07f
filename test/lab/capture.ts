/** What passes a link, frame by frame, as tcpdump sees it. */
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { setTimeout as sleep } from 'node:timers/promises';
import type { Namespace } from './namespace.ts';

export interface Frame {
  /** Since the epoch, when the kernel saw it. */
  atMs: number;
  /** Lower case with colons. */
  sourceMac: string;
  destinationMac: string;
  /** 0x0806 is ARP, 0x0800 IPv4, 0x86dd IPv6. Behind VLAN tags it is that of the innermost. */
  etherType: number;
  /** Outermost first. */
  vlans: number[];
  arp?: Arp;
  /** Neighbour Advertisement or Solicitation: what it says of who has an address. */
  neighbour?: Neighbour;
  /** What stands behind the Ethernet header and its tags. */
  payload: Buffer;
}

export interface Arp {
  operation: 'request' | 'reply';
  senderMac: string;
  senderAddress: string;
  targetAddress: string;
}

/** Addresses as 32 hexadecimal digits. */
export interface Neighbour {
  kind: 'advertisement' | 'solicitation';
  source: string;
  target: string;
}

// A pcap file: 24 bytes of header, then for each frame 16 bytes (seconds, microseconds, captured length, length), then the frame.
const FILE_HEADER_BYTES = 24;
const RECORD_HEADER_BYTES = 16;
const CAPTURED_LENGTH_OFFSET = 8;
const START_TIMEOUT_MS = 30_000;
/** Between two looks whether tcpdump has read what the kernel holds for it: what it has not when it is told to end is lost. */
const SETTLE_MS = 50;
const SETTLE_TIMEOUT_MS = 20_000;
/** What it prints on SIGUSR1 (tcpdump(1)). */
const COUNTS = /(\d+) packets? captured, (\d+) packets? received by filter/;

export class Capture {
  private readonly tcpdump: ChildProcess;
  private readonly chunks: Buffer[] = [];
  /** What tcpdump says of itself. */
  private words = '';

  private constructor(tcpdump: ChildProcess) {
    this.tcpdump = tcpdump;
    tcpdump.stdout?.on('data', (chunk: Buffer) => this.chunks.push(chunk));
    tcpdump.stderr?.setEncoding('utf8').on('data', (words: string) => (this.words += words));
  }

  /** Starts to listen; `filter` in tcpdump's language, as `arp or icmp`. Frames from now on are seen. */
  static async start(namespace: Namespace, link: string, filter = ''): Promise<Capture> {
    // Its own privileges have to stay: as another user it could not write to our pipe.
    // 8 MB, so that nothing is lost while a busy machine lets us wait.
    const options = ['--immediate-mode', '-B', '8192', '-U', '-n', '-Z', 'root', '-w', '-', '-i', link];
    const [command = '', ...args] = namespace.enter(['tcpdump', ...options, ...filter.split(' ').filter(Boolean)]);
    const tcpdump = spawn(command, args, { stdio: ['ignore', 'pipe', 'pipe'] });
    const capture = new Capture(tcpdump);
    const listening = new Promise<void>((resolve, reject) => {
      tcpdump.stderr.on('data', () => capture.words.includes('listening on') && resolve());
      tcpdump.once('exit', () => reject(new Error(`tcpdump on ${link} ended: ${capture.words}`)));
      const late = () => reject(new Error(`tcpdump on ${link} does not start: ${capture.words}`));
      setTimeout(late, START_TIMEOUT_MS).unref();
    });
    await listening;
    return capture;
  }

  /** The frames up to now. */
  frames(): Frame[] {
    return readFrames(Buffer.concat(this.chunks));
  }

  /** Ends listening and answers all frames. */
  async stop(): Promise<Frame[]> {
    await this.settle();
    this.tcpdump.kill('SIGINT');
    if (this.isRunning) await once(this.tcpdump, 'close');
    return this.frames();
  }

  /** Until tcpdump has read every frame that was there for it. */
  async settle(): Promise<void> {
    const deadlineMs = performance.now() + SETTLE_TIMEOUT_MS;
    do {
      await sleep(SETTLE_MS);
      this.words = '';
      this.tcpdump.kill('SIGUSR1');
      while (this.isRunning && performance.now() < deadlineMs && !COUNTS.test(this.words)) await sleep(5);
    } while (this.isRunning && performance.now() < deadlineMs && !this.hasAll());
  }

  private hasAll(): boolean {
    const [, captured, received] = COUNTS.exec(this.words) ?? [];
    return captured === received;
  }

  private get isRunning(): boolean {
    return this.tcpdump.exitCode === null && this.tcpdump.signalCode === null;
  }
}

function readFrames(file: Buffer): Frame[] {
  const frames: Frame[] = [];
  for (let offset = FILE_HEADER_BYTES; offset + RECORD_HEADER_BYTES <= file.length; ) {
    const start = offset + RECORD_HEADER_BYTES;
    offset = start + file.readUInt32LE(offset + CAPTURED_LENGTH_OFFSET);
    const atMs = file.readUInt32LE(start - RECORD_HEADER_BYTES) * 1000 + file.readUInt32LE(start - 12) / 1000;
    if (offset <= file.length) frames.push(parse(file.subarray(start, offset), atMs));
  }
  return frames;
}

function parse(frame: Buffer, atMs: number): Frame {
  const vlans: number[] = [];
  let offset = 12;
  while ([0x8100, 0x88a8].includes(frame.readUInt16BE(offset))) {
    vlans.push(frame.readUInt16BE(offset + 2) & 0xfff);
    offset += 4;
  }
  const etherType = frame.readUInt16BE(offset);
  const payload = frame.subarray(offset + 2);
  return {
    atMs,
    destinationMac: mac(frame, 0),
    sourceMac: mac(frame, 6),
    etherType,
    vlans,
    payload,
    ...(etherType === 0x0806 && { arp: parseArp(payload) }),
    ...(etherType === 0x86dd && parseNeighbour(payload)),
  };
}

/** RFC 4861 4.3 and 4.4, right behind the IPv6 header. */
function parseNeighbour(packet: Buffer): { neighbour: Neighbour } | undefined {
  const kind = ({ 135: 'solicitation', 136: 'advertisement' } as const)[packet.at(40) ?? 0];
  if (packet.at(6) !== 58 || kind === undefined) return undefined;
  return { neighbour: { kind, source: packet.toString('hex', 8, 24), target: packet.toString('hex', 48, 64) } };
}

/** RFC 826, for Ethernet and IPv4. */
function parseArp(packet: Buffer): Arp {
  return {
    operation: packet.readUInt16BE(6) === 1 ? 'request' : 'reply',
    senderMac: mac(packet, 8),
    senderAddress: [...packet.subarray(14, 18)].join('.'),
    targetAddress: [...packet.subarray(24, 28)].join('.'),
  };
}

function mac(bytes: Buffer, offset: number): string {
  return [...bytes.subarray(offset, offset + 6)].map((byte) => byte.toString(16).padStart(2, '0')).join(':');
}

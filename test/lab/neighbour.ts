/** A machine on the LAN whose every word a test decides: one packet socket in a namespace with a cable to the switch. */
import { ARP_AND_NEIGHBOUR_DISCOVERY } from '../../src/kernel/bpf.ts';
import { PacketSocket } from '../../src/kernel/packet.ts';
import { type Packet, decodePacket } from '../../src/lan/frames/sighting.ts';
import { type Lan, Namespace } from './namespace.ts';
import { inNamespace } from './thread.ts';

/** ARP and neighbour discovery that came in, with the time of its reading (performance.now). */
export interface Heard {
  readonly atMs: number;
  readonly packet: Packet;
}

/** Calls `hear` whenever frames have come, until the socket is closed. */
export function hearAll(socket: PacketSocket, hear: () => void): void {
  socket.whenReadable(() => {
    hear();
    hearAll(socket, hear);
  });
}

export class Neighbour {
  readonly namespace: Namespace;
  readonly macAddress: string;
  readonly heard: Heard[] = [];
  /** Called for each packet, as soon as it has come. */
  react: (packet: Packet) => void = () => undefined;
  readonly #socket: PacketSocket;

  private constructor(namespace: Namespace, macAddress: string, socket: PacketSocket) {
    this.namespace = namespace;
    this.macAddress = macAddress;
    this.#socket = socket;
    hearAll(socket, () => this.drain());
  }

  /** Its link is `lan0`; its kernel has no address until a test gives it one, and then answers by itself. */
  static async plug(lan: Lan, name: string, macAddress: string): Promise<Neighbour> {
    const namespace = await Namespace.create(name);
    await lan.plug(namespace);
    await namespace.ip(`link set lan0 address ${macAddress}`);
    const [link] = await namespace.show<{ ifindex: number }>('link show lan0');
    const spec = { linkIndex: link?.ifindex ?? 0, filter: ARP_AND_NEIGHBOUR_DISCOVERY, ignoreOutgoing: true };
    return new Neighbour(
      namespace,
      macAddress,
      inNamespace(name, () => PacketSocket.open(spec)),
    );
  }

  send(frame: Buffer): void {
    this.#socket.send(frame);
  }

  /** Forgets what it heard and how it reacted. */
  reset(): void {
    this.drain();
    this.heard.length = 0;
    this.react = () => undefined;
  }

  close(): void {
    this.#socket.close();
  }

  /** Hears what has come in by now. */
  drain(): void {
    for (const { frame } of this.#socket.receive()) {
      const packet = decodePacket(frame);
      if (packet === undefined) continue;
      this.heard.push({ atMs: performance.now(), packet });
      this.react(packet);
    }
  }
}

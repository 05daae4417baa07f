/**
 * What the Docker engine calls its containers and networks. Asked by the command line alone, never by the daemon: two GETs, which
 * change nothing, without an API version, so that each engine answers with its own.
 */
import { type IncomingMessage, request as requestPlain } from 'node:http';
import { request as requestTls } from 'node:https';
import { getSystemErrorMessage } from 'node:util';
import * as errors from '../errors.ts';
import { type EnginePlace, fieldIn, textIn } from './place.ts';

/** A container's place on one network. */
export interface EngineAttachment {
  readonly networkId: string;
  /** Empty while the container does not run. */
  readonly endpointId: string;
}

/** A container, whether it runs or not. */
export interface EngineContainer {
  readonly id: string;
  /** Without the engine's slash. */
  readonly name: string;
  /** The engine's word: `running`, `exited`, `created`, `paused`, … */
  readonly state: string;
  readonly attachments: readonly EngineAttachment[];
}

/** A network of whatever driver. */
export interface EngineNetwork {
  readonly id: string;
  readonly name: string;
  readonly driver: string;
  /** `default` for Docker's own. */
  readonly ipamDriver: string;
  /** What was typed after `--ipam-opt`, without the values. */
  readonly ipamOptions: readonly string[];
}

/** All that the engine has. */
export interface EngineInventory {
  readonly containers: readonly EngineContainer[];
  readonly networks: readonly EngineNetwork[];
}

/** What is only good to know is not waited for longer, all in all. */
const PATIENCE_MS = 2000;

/** Ten thousand containers take some 25 MB. */
const MOST_BYTES = 64 * 1024 * 1024;

/** Throws ENGINE_SILENT or ENGINE_REFUSED, with the reason. */
export async function askEngine(place: EnginePlace): Promise<EngineInventory> {
  const signal = AbortSignal.timeout(PATIENCE_MS);
  const [containers, networks] = await Promise.all([
    getList(place, '/containers/json?all=true', signal),
    getList(place, '/networks', signal),
  ]);
  const known = networks.map(readNetwork);
  return { containers: containers.map((one) => readContainer(one, known)), networks: known };
}

async function getList(place: EnginePlace, path: string, signal: AbortSignal): Promise<unknown[]> {
  try {
    const { status, body } = await get(place, path, signal);
    if (status !== 200) throw errors.engineRefused(place.text, `HTTP ${status}`);
    const list = JSON.parse(body) as unknown;
    if (!Array.isArray(list)) throw new SyntaxError('no list');
    return list as unknown[];
  } catch (error) {
    if (error instanceof errors.PluginError) throw error;
    throw errors.engineSilent(place.text, reasonOf(error, signal));
  }
}

function get(place: EnginePlace, path: string, signal: AbortSignal): Promise<{ status: number; body: string }> {
  const { isTls, options } = place;
  // Without a host of its own Node says "localhost", which is what an engine wants to hear on its socket.
  const question = { ...options, path, method: 'GET', signal, agent: false };
  return new Promise((resolve, reject) => {
    const answered = (response: IncomingMessage) => {
      textOf(response).then((body) => resolve({ status: response.statusCode ?? 0, body }), reject);
    };
    const asked = isTls ? requestTls(question, answered) : requestPlain(question, answered);
    asked.on('error', reject);
    asked.end();
  });
}

/** What goes on for ever is no engine's answer. */
async function textOf(response: IncomingMessage): Promise<string> {
  const chunks: Buffer[] = [];
  let bytes = 0;
  for await (const chunk of response as AsyncIterable<Buffer>) {
    bytes += chunk.length;
    if (bytes > MOST_BYTES) throw new SyntaxError('no list');
    chunks.push(chunk);
  }
  return Buffer.concat(chunks).toString();
}

function reasonOf(error: unknown, signal: AbortSignal): string {
  if (signal.aborted) return `it did not answer within ${PATIENCE_MS / 1000} seconds`;
  if (error instanceof SyntaxError) return 'what answers there is no Docker engine';
  const errno = fieldIn(error, 'errno');
  return typeof errno === 'number'
    ? getSystemErrorMessage(errno)
    : error instanceof Error
      ? error.message
      : 'no answer';
}

/** An engine that was killed leaves such a container the endpoint that it had. */
const ENDED: readonly string[] = ['exited', 'dead'];

function readContainer(value: unknown, known: readonly EngineNetwork[]): EngineContainer {
  const state = textIn(value, 'State');
  const names = fieldIn(value, 'Names');
  const networks = fieldIn(fieldIn(value, 'NetworkSettings'), 'Networks');
  return {
    id: textIn(value, 'Id'),
    name: nameOf(Array.isArray(names) ? names : []),
    state,
    attachments: Object.entries(typeof networks === 'object' && networks !== null ? networks : {}).map(
      ([key, one]) => ({
        networkId: textIn(one, 'NetworkID') || idOf(key, known),
        endpointId: ENDED.includes(state) ? '' : textIn(one, 'EndpointID'),
      }),
    ),
  };
}

/** A container that was never started has only what was typed after `--network`. */
function idOf(typed: string, known: readonly EngineNetwork[]): string {
  return known.find(({ id, name }) => name === typed || id === typed)?.id ?? '';
}

/** Another container's link to it stands among its names as `/other/alias`. */
function nameOf(names: readonly unknown[]): string {
  const known = names.filter((name) => typeof name === 'string').map((name) => name.replace(/^\//, ''));
  return known.find((name) => !name.includes('/')) ?? known[0] ?? '';
}

function readNetwork(value: unknown): EngineNetwork {
  const ipam = fieldIn(value, 'IPAM');
  const options = fieldIn(ipam, 'Options');
  return {
    id: textIn(value, 'Id'),
    name: textIn(value, 'Name'),
    driver: textIn(value, 'Driver'),
    ipamDriver: textIn(ipam, 'Driver'),
    ipamOptions: Object.keys(typeof options === 'object' && options !== null ? options : {}),
  };
}

/** Where the Docker API is, as the docker command finds it: DOCKER_HOST, else the current context, else the usual socket. */
import { createHash } from 'node:crypto';
import { existsSync, readFileSync } from 'node:fs';
import type { RequestOptions } from 'node:https';
import { join } from 'node:path';
import * as errors from '../errors.ts';

/** The Docker API, and how a request gets there. */
export interface EnginePlace {
  /** As it was given: `unix:///var/run/docker.sock`. */
  readonly text: string;
  readonly isTls: boolean;
  /** For node:http, or node:https where isTls. */
  readonly options: RequestOptions;
}

/** Certificates, and whether the engine's own is looked at. */
interface Tls {
  readonly directory: string;
  readonly isVerified: boolean;
}

type Environment = Readonly<Record<string, string | undefined>>;

const USUAL = 'unix:///var/run/docker.sock';
const PORTS = { plain: '2375', tls: '2376' };

/** `home`: of the user. Throws ENGINE_SCHEME, ENGINE_ADDRESS or ENGINE_CONTEXT. */
export function findEngine(environment: Environment, home: string): EnginePlace {
  const directory = environment['DOCKER_CONFIG'] || join(home, '.docker');
  const host = environment['DOCKER_HOST'];
  if (host) return placeOf(host, tlsOf(environment, directory));
  const context = environment['DOCKER_CONTEXT'] || currentContext(directory);
  return context === 'default' ? placeOf(USUAL, null) : contextPlace(directory, context);
}

/** https://docs.docker.com/reference/cli/docker/#environment-variables: any value but the empty one switches it on. */
function tlsOf(environment: Environment, directory: string): Tls | null {
  const isVerified = Boolean(environment['DOCKER_TLS_VERIFY']);
  if (!isVerified && !environment['DOCKER_TLS']) return null;
  return { directory: environment['DOCKER_CERT_PATH'] || directory, isVerified };
}

/** A file that is not there, or that the docker command could not read either, names no context. */
function currentContext(directory: string): string {
  const file = readJson(join(directory, 'config.json'));
  return textIn(file, 'currentContext') || 'default';
}

/** Contexts lie below the SHA-256 of their names (docker/cli, cli/context/store). */
function contextPlace(directory: string, name: string): EnginePlace {
  const hash = createHash('sha256').update(name).digest('hex');
  const meta = readJson(join(directory, 'contexts/meta', hash, 'meta.json'));
  const endpoint = fieldIn(fieldIn(meta, 'Endpoints'), 'docker');
  const host = textIn(endpoint, 'Host');
  if (host === '') throw errors.engineContext(name);
  const certificates = join(directory, 'contexts/tls', hash, 'docker');
  const isVerified = fieldIn(endpoint, 'SkipTLSVerify') !== true;
  const isTls = existsSync(certificates) || !isVerified;
  return placeOf(host, isTls ? { directory: certificates, isVerified } : null);
}

function placeOf(text: string, tls: Tls | null): EnginePlace {
  const [, scheme = 'tcp', rest = text] = /^([a-z]+):\/\/(.*)$/.exec(text) ?? [];
  if (scheme === 'unix') return { text, isTls: false, options: { socketPath: rest || '/var/run/docker.sock' } };
  if (!['tcp', 'http', 'https'].includes(scheme)) throw errors.engineScheme(text, scheme);
  const isTls = tls !== null || scheme === 'https';
  const url = URL.canParse(`http://${rest}`) ? new URL(`http://${rest}`) : undefined;
  if (url === undefined) throw errors.engineAddress(text);
  const hostname = url.hostname.replace(/^\[(.*)\]$/, '$1');
  const port = url.port || (isTls ? PORTS.tls : PORTS.plain);
  return { text, isTls, options: { host: hostname, port, ...(tls && certificatesOf(text, tls)) } };
}

/** Those that are there: an engine need not ask for a client's. Throws ENGINE_SILENT for one that cannot be read. */
function certificatesOf(text: string, { directory, isVerified }: Tls): RequestOptions {
  const read = (name: string) => (existsSync(join(directory, name)) ? readFileSync(join(directory, name)) : undefined);
  try {
    return { ca: read('ca.pem'), cert: read('cert.pem'), key: read('key.pem'), rejectUnauthorized: isVerified };
  } catch (error) {
    throw errors.engineSilent(text, error instanceof Error ? error.message : String(error));
  }
}

function readJson(file: string): unknown {
  try {
    return JSON.parse(readFileSync(file, 'utf8')) as unknown;
  } catch {
    return undefined;
  }
}

/** A field of what may be anything. */
export function fieldIn(value: unknown, key: string): unknown {
  return typeof value === 'object' && value !== null ? (value as Record<string, unknown>)[key] : undefined;
}

/** A field that should be text; empty where it is not. */
export function textIn(value: unknown, key: string): string {
  const field = fieldIn(value, key);
  return typeof field === 'string' ? field : '';
}

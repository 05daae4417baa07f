/** How etcd is reached, from the settings: what they name by path is read here. */
import { existsSync, readFileSync } from 'node:fs';
import { getSystemErrorMessage } from 'node:util';
import { storeFileUnreadable } from '../../errors.ts';
import type { ClusterSettings } from '../../settings.ts';
import type { EtcdAccess } from './client.ts';

/** Throws STORE_FILE. */
export function readAccess({ endpoints, isSecure, user, password, ca, cert, key }: ClusterSettings): EtcdAccess {
  const tls = { ...pem('STORE_CA', 'ca', ca), ...pem('STORE_CERT', 'cert', cert), ...pem('STORE_KEY', 'key', key) };
  const login = user === '' ? null : { name: user, password: secret(password) };
  return { endpoints, tls: isSecure ? tls : null, user: login };
}

/** Nothing for an empty setting. */
function pem(setting: string, option: 'ca' | 'cert' | 'key', value: string): EtcdAccess['tls'] {
  if (value === '') return {};
  return { [option]: value.startsWith('-----BEGIN') ? value : read(setting, value) };
}

function secret(value: string): string {
  return value.startsWith('/') && existsSync(value) ? read('STORE_PASSWORD', value).trimEnd() : value;
}

function read(setting: string, file: string): string {
  try {
    return readFileSync(file, 'utf8');
  } catch (error) {
    throw storeFileUnreadable(setting, file, getSystemErrorMessage((error as NodeJS.ErrnoException).errno ?? 0));
  }
}

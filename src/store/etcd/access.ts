/** How etcd is reached, from the settings: what they name by path is read whenever it is needed, as it stands then. */
import { readFileSync } from 'node:fs';
import { getSystemErrorMessage } from 'node:util';
import { storeFileUnreadable } from '../../errors.ts';
import type { ClusterSettings } from '../../settings.ts';
import type { EtcdAccess, TlsFiles } from './client.ts';

/** Throws a TypeError for bytes that are no UTF-8, which etcd cannot be told. */
const TEXT = new TextDecoder('utf-8', { fatal: true });

/** What it answers throws STORE_FILE for what cannot be read at that moment, as before a secret is mounted. */
export function readAccess({ endpoints, isSecure, user, password, ca, cert, key }: ClusterSettings): EtcdAccess {
  const tls = () => ({
    ...pem('STORE_CA', 'ca', ca),
    ...pem('STORE_CERT', 'cert', cert),
    ...pem('STORE_KEY', 'key', key),
  });
  const isFile = password.startsWith('/');
  const login = () => ({ name: user, password: isFile ? read('STORE_PASSWORD', password).trimEnd() : password });
  return { endpoints, tls: isSecure ? tls : () => null, user: user === '' ? () => null : login };
}

/** Nothing for an empty setting. */
function pem(setting: string, option: keyof TlsFiles, value: string): TlsFiles {
  if (value === '') return {};
  return { [option]: value.startsWith('-----BEGIN') ? value : read(setting, value) };
}

function read(setting: string, file: string): string {
  try {
    return TEXT.decode(readFileSync(file));
  } catch (error) {
    const { errno } = error as NodeJS.ErrnoException;
    throw storeFileUnreadable(setting, file, errno === undefined ? 'it is no text' : getSystemErrorMessage(errno));
  }
}

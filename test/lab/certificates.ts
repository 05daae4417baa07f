/** Certificates for tests, made with openssl. */
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { output } from './command.ts';

/** Paths of PEM files. */
export interface Certificate {
  readonly cert: string;
  readonly key: string;
}

const KEY = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes'];

export class Authority {
  readonly #directory: string;
  readonly ca: Certificate;
  #serial = 1;

  private constructor(directory: string) {
    this.#directory = directory;
    this.ca = this.#pair('ca');
  }

  static async create(directory: string): Promise<Authority> {
    mkdirSync(directory, { recursive: true });
    const authority = new Authority(directory);
    const { cert, key } = authority.ca;
    await output(['openssl', 'req', '-x509', ...KEY, '-keyout', key, '-out', cert, '-subj', '/CN=test', '-days', '30']);
    return authority;
  }

  /** For 127.0.0.1, server or client. `days`: negative for one that has expired. */
  async issue(name: string, days = 30): Promise<Certificate> {
    const { cert, key } = this.#pair(name);
    const [request, extensions] = [join(this.#directory, `${name}.csr`), join(this.#directory, `${name}.ext`)];
    writeFileSync(extensions, 'subjectAltName=IP:127.0.0.1\nextendedKeyUsage=serverAuth,clientAuth\n');
    await output(['openssl', 'req', ...KEY, '-keyout', key, '-out', request, '-subj', `/CN=${name}`]);
    const signer = ['-CA', this.ca.cert, '-CAkey', this.ca.key, '-set_serial', String(++this.#serial)];
    const period = ['-days', String(days)];
    await output([
      'openssl',
      'x509',
      '-req',
      '-in',
      request,
      '-out',
      cert,
      '-extfile',
      extensions,
      ...signer,
      ...period,
    ]);
    return { cert, key };
  }

  #pair(name: string): Certificate {
    return { cert: join(this.#directory, `${name}.pem`), key: join(this.#directory, `${name}.key`) };
  }
}

/** Their texts, as TLS wants them. */
export function pem({ cert, key }: Certificate, ca: Certificate): { cert: string; key: string; ca: string } {
  const read = (path: string) => readFileSync(path, 'utf8');
  return { cert: read(cert), key: read(key), ca: read(ca.cert) };
}

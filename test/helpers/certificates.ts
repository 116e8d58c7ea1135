/** An authority of the test's own, and certificates that it signed, made by the openssl command. */
import { execFileSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { TlsOptions } from '../../lib/migration/transport-tls';

export interface CertificateOptions {
  /** As in subjectAltName: DNS:there or IP:127.0.0.1. */
  names?: readonly string[];
  /** Not valid any more. */
  expired?: boolean;
}

export class Authority {
  readonly #folder = mkdtempSync(join(tmpdir(), 'vhost-net-ca-'));
  #made = 0;

  constructor(name: string) {
    this.#openssl('req', '-x509', ...this.#newKey('ca'), '-days', '2', '-subj', `/CN=${name}`, '-out', 'ca.pem');
  }

  /** What a side is given whose certificate has that common name. */
  tls(name: string, { names = [`DNS:${name}`], expired = false }: CertificateOptions = {}): TlsOptions {
    const id = `leaf${++this.#made}`;
    this.#openssl('req', '-new', ...this.#newKey(id), '-subj', `/CN=${name}`, '-out', `${id}.csr`);
    writeFileSync(join(this.#folder, `${id}.ext`), `subjectAltName=${names.join(',')}\n`);
    // Ended yesterday.
    const days = expired ? '-1' : '2';
    const signer = ['-CA', 'ca.pem', '-CAkey', 'ca.key', '-set_serial', `${this.#made}`, '-extfile', `${id}.ext`];
    this.#openssl('x509', '-req', '-in', `${id}.csr`, '-days', days, ...signer, '-out', `${id}.pem`);
    return { ca: this.#read('ca.pem'), cert: this.#read(`${id}.pem`), key: this.#read(`${id}.key`) };
  }

  get ca(): string {
    return this.#read('ca.pem');
  }

  remove(): void {
    rmSync(this.#folder, { recursive: true });
  }

  #newKey(id: string): string[] {
    return ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes', '-keyout', `${id}.key`];
  }

  #openssl(...args: string[]): void {
    execFileSync('openssl', args, { cwd: this.#folder, stdio: ['ignore', 'ignore', 'pipe'] });
  }

  #read(file: string): string {
    return readFileSync(join(this.#folder, file), 'utf8');
  }
}

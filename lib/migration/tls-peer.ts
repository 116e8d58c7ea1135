/** Who the other side of a TLS connection is, by its certificate, and whether it is accepted. */
import type { PeerCertificate, TLSSocket } from 'node:tls';

/** Names, of which a certificate must have one, or what decides of them. */
export type AllowedPeer = readonly string[] | ((names: readonly string[]) => boolean);

/** Why a peer is not accepted, or null. */
export function refusal(
  secure: TLSSocket,
  certificate: PeerCertificate,
  allowedPeer: AllowedPeer | undefined,
): string | null {
  if (Object.keys(certificate).length === 0) return 'no certificate';
  if (!secure.authorized) return `certificate: ${certificateError(String(secure.authorizationError))}`;
  if (allowedPeer === undefined) return null;
  const names = namesOf(certificate);
  const allowed =
    typeof allowedPeer === 'function' ? allowedPeer(names) : names.some((name) => allowedPeer.includes(name));
  return allowed ? null : `none of the names ${names.join(', ')} is allowed`;
}

const CERTIFICATE_ERRORS: Readonly<Record<string, string>> = {
  CERT_HAS_EXPIRED: 'expired',
  CERT_NOT_YET_VALID: 'not valid yet',
  UNABLE_TO_VERIFY_LEAF_SIGNATURE: 'not signed by the trusted authority',
  UNABLE_TO_GET_ISSUER_CERT: 'not signed by the trusted authority',
  UNABLE_TO_GET_ISSUER_CERT_LOCALLY: 'not signed by the trusted authority',
  SELF_SIGNED_CERT_IN_CHAIN: 'signed by an authority that is not trusted',
  DEPTH_ZERO_SELF_SIGNED_CERT: 'signed by itself',
  CERT_SIGNATURE_FAILURE: 'not signed by the trusted authority',
  INVALID_PURPOSE: 'not meant for this side of a connection',
};

function certificateError(code: string): string {
  const words = CERTIFICATE_ERRORS[code];
  return words === undefined ? code : `${words} (${code})`;
}

/** Subject common name and subject alternative names. Quoted ones hold characters that no name should have, and are left out. */
function namesOf(certificate: PeerCertificate): string[] {
  const common: unknown = certificate.subject?.CN;
  const names = (Array.isArray(common) ? common : [common]).filter((name): name is string => typeof name === 'string');
  for (const [, name] of (certificate.subjectaltname ?? '').matchAll(
    /(?:DNS|IP Address|URI):("(?:[^"\\]|\\.)*"|[^,]*)/g,
  )) {
    if (!name!.startsWith('"')) names.push(name!);
  }
  return [...new Set(names)];
}

/** Messages of the peer as untrusted input: what is not as docs/migration-stream.md says throws ProtocolError, and nothing else is passed on. */
import { ProtocolError } from '../errors';
import type { Channel, Frame } from './channel';
import { readEnvironment } from './environment';
import { FRAME_HEADER_SIZE, type FrameType, frameName } from './frame';
import type { DestinationAccount, SourceAccount } from './handover/account';
import { isObject, type Json } from './json';
import type { AuditResult, Difference, OpenMessage, RoundEndMessage, SetupAckMessage, StateMessage } from './messages';
import { validateAddresses, validateVlans } from './setup';

/** Of one list in a message. */
const MOST_ENTRIES = 4096;
const NONCE = /^[0-9a-f]{32}$/;

/** The object of a JSON payload. */
export function readObject(channel: Channel, frame: Frame): Json {
  const value = channel.parseJson<unknown>(frame);
  if (isObject(value)) return value;
  throw new ProtocolError(`${frameName(frame.type)}: no object`, payloadAt(frame), 'a JSON object');
}

export async function receiveObject(channel: Channel, type: FrameType): Promise<{ frame: Frame; json: Json }> {
  const frame = await channel.receive([type]);
  return { frame, json: readObject(channel, frame) };
}

export function payloadAt(frame: Frame): number {
  return frame.offset + FRAME_HEADER_SIZE;
}

function refuse(frame: Frame, field: string, value: unknown, expected: string): never {
  const found = JSON.stringify(value) ?? 'missing';
  throw new ProtocolError(`${frameName(frame.type)}: ${field} is ${found.slice(0, 80)}`, payloadAt(frame), expected);
}

function count(frame: Frame, json: Json, field: string): number {
  const value = json[field];
  if (typeof value === 'number' && Number.isSafeInteger(value) && value >= 0) return value;
  return refuse(frame, field, value, 'a whole number');
}

function countOrNull(frame: Frame, json: Json, field: string): number | null {
  return json[field] === null ? null : count(frame, json, field);
}

function flag(frame: Frame, json: Json, field: string): boolean {
  const value = json[field];
  return typeof value === 'boolean' ? value : refuse(frame, field, value, 'true or false');
}

function msOrNull(frame: Frame, json: Json, field: string): number | null {
  const value = json[field];
  if (value === null || (typeof value === 'number' && Number.isFinite(value))) return value;
  return refuse(frame, field, value, 'milliseconds or null');
}

export function readRoundEnd(channel: Channel, frame: Frame): RoundEndMessage {
  const json = readObject(channel, frame);
  const [round, pages] = [count(frame, json, 'round'), count(frame, json, 'pages')];
  return { round, pages, final: flag(frame, json, 'final') };
}

/** `device` and what is in `guest` are checked by whoever builds of them. */
export function readState(channel: Channel, frame: Frame): StateMessage {
  const json = readObject(channel, frame);
  const { guest } = json;
  if (!isObject(guest)) return refuse(frame, 'guest', guest, 'an object');
  const at = payloadAt(frame);
  const device = json.device as StateMessage['device'];
  return { device, guest, addresses: validateAddresses(json.addresses, at), vlans: validateVlans(json.vlans, at) };
}

export function readOpen(channel: Channel, frame: Frame): OpenMessage {
  const json = readObject(channel, frame);
  const device = json.device as OpenMessage['device'];
  return { device, addresses: validateAddresses(json.addresses, payloadAt(frame)) };
}

export async function receiveSetupAck(channel: Channel, type: FrameType): Promise<SetupAckMessage> {
  const { frame, json } = await receiveObject(channel, type);
  const { differences, environment } = json;
  if (!Array.isArray(differences) || differences.length > MOST_ENTRIES) {
    return refuse(frame, 'differences', differences, `a list of up to ${MOST_ENTRIES}`);
  }
  return {
    differences: differences.map((difference: unknown) => readDifference(frame, difference)),
    environment: readEnvironment(environment),
    relay: flag(frame, json, 'relay'),
  };
}

function readDifference(frame: Frame, value: unknown): Difference {
  const json = isObject(value) ? value : {};
  const { what, source, destination, severity } = json;
  if (severity !== 'fatal' && severity !== 'degraded' && severity !== 'fine') {
    return refuse(frame, 'severity of a difference', severity, 'fatal, degraded or fine');
  }
  for (const text of [what, source, destination]) {
    if (typeof text !== 'string') refuse(frame, 'a difference', value, 'texts what, source and destination');
  }
  return { what: what as string, source: source as string, destination: destination as string, severity };
}

/** The nonce of OPENED. */
export async function receiveNonce(channel: Channel, type: FrameType): Promise<Uint8Array> {
  const { frame, json } = await receiveObject(channel, type);
  const { nonce } = json;
  if (typeof nonce !== 'string' || !NONCE.test(nonce)) return refuse(frame, 'nonce', nonce, '32 hexadecimal digits');
  return Buffer.from(nonce, 'hex');
}

function accountOf(frame: Frame, json: Json): Json {
  const { account } = json;
  return isObject(account) ? account : refuse(frame, 'account', account, 'an object');
}

/** DRAINED. */
export async function receiveSourceAccount(channel: Channel, type: FrameType): Promise<SourceAccount> {
  const { frame, json } = await receiveObject(channel, type);
  const account = accountOf(frame, json);
  const { cutBy } = account;
  if (cutBy !== 'marker' && cutBy !== 'timeout') return refuse(frame, 'cutBy', cutBy, 'marker or timeout');
  const number = (field: keyof SourceAccount): number => count(frame, account, field);
  return {
    read: number('read'),
    sent: number('sent'),
    own: number('own'),
    groupAfterCut: number('groupAfterCut'),
    markers: number('markers'),
    late: number('late'),
    dropped: countOrNull(frame, account, 'dropped'),
    cutBy,
    weakGraces: number('weakGraces'),
  };
}

/** SETTLED. */
export async function receiveDestinationAccount(channel: Channel, type: FrameType): Promise<DestinationAccount> {
  const { frame, json } = await receiveObject(channel, type);
  const account = accountOf(frame, json);
  const number = (field: keyof DestinationAccount): number => count(frame, account, field);
  return {
    discarded: number('discarded'),
    read: number('read'),
    own: number('own'),
    matched: number('matched'),
    kept: number('kept'),
    received: number('received'),
    dropped: countOrNull(frame, account, 'dropped'),
    ambiguous: number('ambiguous'),
    disagreeing: number('disagreeing'),
    missing: number('missing'),
    unordered: number('unordered'),
    weakGraces: number('weakGraces'),
    complete: flag(frame, account, 'complete'),
    firstReceivedMs: msOrNull(frame, account, 'firstReceivedMs'),
    firstSentMs: msOrNull(frame, account, 'firstSentMs'),
  };
}

/** The audit of END. */
export async function receiveAudit(channel: Channel, type: FrameType): Promise<AuditResult | null> {
  const { frame, json } = await receiveObject(channel, type);
  const { audit } = json;
  if (audit === null) return null;
  if (!isObject(audit)) return refuse(frame, 'audit', audit, 'an object or null');
  const { pages } = audit;
  if (!Array.isArray(pages) || pages.length > MOST_ENTRIES || !pages.every(Number.isSafeInteger)) {
    return refuse(frame, 'pages', pages, `a list of up to ${MOST_ENTRIES} addresses`);
  }
  return { total: count(frame, audit, 'total'), differing: count(frame, audit, 'differing'), pages };
}

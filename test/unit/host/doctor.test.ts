import { table } from '../../../lib/cli/doctor';
import { diagnose, VERDICT_STATUS, verdict } from '../../../lib/host/doctor';
import { nodeFinding } from '../../../lib/host/doctor-process';
import { which } from '../../../lib/host/doctor-tools';
import { type Finding, finding } from '../../../lib/host/finding';

const here = (found: boolean): Finding => finding('vhost-net', 'device', found, 'seen', 'load it');
const vm = (found: boolean): Finding => finding('vm', 'emulator', found, 'seen', 'install it');
const everything = (found: boolean): Finding => finding('everything', 'Node', found, 'seen', 'update it');
const optional = finding('optional', 'extra', false, 'absent', 'if you like');

test.each([
  [[everything(true), here(true), vm(false)], 'here', 0],
  [[everything(true), here(true), here(false), vm(true), optional], 'vm', 1],
  [[everything(true), here(false), vm(true), vm(false)], 'nowhere', 2],
  [[everything(false), here(true), vm(true)], 'nowhere', 2],
] as const)('where a device can run', (findings, where, status) => {
  expect(verdict(findings)).toBe(where);
  expect(VERDICT_STATUS[where]).toBe(status);
});

test('the table says what to do about what is missing, and about nothing else', () => {
  const lines = table([here(false), vm(true), optional]).split('\n');
  expect(lines.map((line) => line.trim().split(/\s+/)[0])).toEqual(['missing', 'load', 'ok', '-', 'if']);
});

test.each([
  ['20.18.9', false],
  ['20.19.0', true],
  ['22.0.0', true],
  ['18.20.0', false],
])('Node %s', (version, enough) => {
  expect(nodeFinding(version).found).toBe(enough);
});

test('this machine: every finding has a name, a value, and advice where something is missing', async () => {
  const findings = await diagnose();
  expect(new Set(findings.map(({ name }) => name)).size).toBe(findings.length);
  for (const { name, found, value, neededFor, advice } of findings) {
    expect([name, value.length > 0]).toEqual([name, true]);
    if (!found && neededFor !== 'optional') expect([name, advice]).toEqual([name, expect.any(String)]);
  }
  expect(findings.find(({ name }) => name === 'memfd')!.found).toBe(true);
  expect(['here', 'vm', 'nowhere']).toContain(verdict(findings));
});

test('programs are looked for on the path', () => {
  expect(which('sh')).toMatch(/\/sh$/);
  expect(which('no-such-program')).toBeUndefined();
  expect(which('sh', '/nonexistent:/bin')).toBe('/bin/sh');
});

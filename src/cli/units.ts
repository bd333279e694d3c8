/** The systemd units with which Gate runs in a machine: systems/gate_vm/units/. */
import { copyFileSync, existsSync, mkdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { writeFileAtomic } from '../base/state.ts';
import { projectDir } from '../base/version.ts';

export const UNITS = ['gate-broker.service', 'gate-mount.service', 'gate-sftp.service'] as const;
const FOLDER = `${projectDir}/systems/gate_vm/units`;

/** Settings of `/etc/gate/gate.env`, by the names of their variables. */
export type UnitSettings = Readonly<Record<string, string>>;

/** As systemd.exec(5) reads it (EnvironmentFile), and a shell, too. */
function quoted(value: string): string {
  return /^[\w@%+=:,./-]*$/.test(value) ? value : `"${value.replace(/[\\"$`]/g, (char) => `\\${char}`)}"`;
}

/** The file with these settings in place of its own; those that it does not know come at its end. */
export function withSettings(text: string, settings: UnitSettings): string {
  const lines = text.trimEnd().split('\n');
  for (const [name, value] of Object.entries(settings)) {
    const line = `${name}=${quoted(value)}`;
    const at = lines.findIndex((each) => each.startsWith(`${name}=`));
    if (at < 0) lines.push(line);
    else lines[at] = line;
  }
  return `${lines.join('\n')}\n`;
}

/** Puts the units and their settings below `prefix`; what somebody else set before stays. Gives the files written. Throws what the file system throws. */
export function installUnits(prefix: string, settings: UnitSettings): string[] {
  const env = join(prefix, '/etc/gate/gate.env');
  const units = join(prefix, '/etc/systemd/system');
  mkdirSync(join(prefix, '/etc/gate'), { recursive: true });
  mkdirSync(units, { recursive: true });
  const before = readFileSync(existsSync(env) ? env : `${FOLDER}/gate.env`, 'utf8');
  writeFileAtomic(env, withSettings(before, settings), 0o644);
  for (const unit of UNITS) copyFileSync(`${FOLDER}/${unit}`, join(units, unit));
  return [env, ...UNITS.map((unit) => join(units, unit))];
}

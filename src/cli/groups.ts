/** Group names to numbers, from /etc/group. */
import { readFileSync } from 'node:fs';
import { usage } from './context.ts';

/** The number of a group given by name or number. Throws when there is no such group. */
export function groupId(group: string | undefined): number | undefined {
  if (group === undefined || group === '') return undefined;
  if (/^\d+$/.test(group)) return Number(group);
  for (const line of readFileSync('/etc/group', 'utf8').split('\n')) {
    const [name, , number] = line.split(':');
    if (name === group) return Number(number);
  }
  throw usage(`there is no group '${group}'`);
}

/** Holds and waits as lines for people. */

import { processInfo } from '../base/process.ts';
import type { Blocker, HoldInfo, Target, VolumeInfo, WaitInfo, Who } from '../broker/wire.ts';
import { duration, table } from './output.ts';

const COMMAND_CHARS = 60;

/** The whole command line where /proc still shows that very process, else what the broker was told. */
function commandOf(who: Who | undefined): string {
  const told = who?.command ?? '';
  const here = who?.pid && who.host === undefined ? processInfo(who.pid) : undefined;
  return here?.comm === told ? here.command : told;
}

/** `vim notes.md (pid 12)`, as much of it as is known. */
export function whoText(who: Who | undefined): string {
  const full = commandOf(who);
  const command = full.length > COMMAND_CHARS ? `${full.slice(0, COMMAND_CHARS - 1)}…` : full;
  if (command && who?.pid) return `${command} (pid ${who.pid})`;
  if (who?.pid) return `pid ${who.pid}`;
  return command || '-';
}

/** What a target covers, as a path in the mount when there is one. Link targets (`#ino/…`) are no news to people. */
export function targetText(targets: readonly Target[], volume: VolumeInfo | undefined): string {
  const named = targets.filter((target) => !target.path.startsWith('#ino/'));
  const top = volume?.mount ?? volume?.root;
  const shown = (named.length ? named : targets).map(({ path, scope }) => {
    const full = top === undefined ? `/${path}` : path === '' ? top : `${top}/${path}`;
    return scope === 'tree' ? `${full}/**` : full;
  });
  return shown.length > 2 ? `${shown[0]} and ${shown.length - 1} more` : shown.join(', ');
}

export function modeText(targets: readonly Target[]): string {
  const modes = new Set(targets.map((target) => target.mode));
  return modes.has('write') ? 'write' : modes.has('replace') ? 'replace' : 'read';
}

function blockerText(blockers: readonly Blocker[]): string {
  const first = blockers[0];
  if (!first) return '-';
  const more = blockers.length > 1 ? ` and ${blockers.length - 1} more` : '';
  const who = first.who?.pid ? whoText(first.who) : first.owner;
  return `${who} ${first.state}${more}`;
}

/** Every wait there is, in order of arrival. */
export function waitsTable(
  waits: readonly WaitInfo[],
  volumes: readonly VolumeInfo[],
  nowMs: number,
): string {
  const rows = [...waits]
    .sort((a, b) => a.ticket - b.ticket)
    .map((wait) => [
      targetText(
        wait.targets,
        volumes.find((volume) => volume.id === wait.volume),
      ),
      modeText(wait.targets),
      duration(nowMs - wait.arrivedAtMs),
      whoText(wait.who),
      wait.owner,
      blockerText(wait.blockers),
    ]);
  return table([['PATH', 'WANTS TO', 'WAITS FOR', 'COMMAND', 'ACTOR', 'BEHIND'], ...rows]);
}

export function holdsTable(
  holds: readonly HoldInfo[],
  volumes: readonly VolumeInfo[],
  nowMs: number,
): string {
  const rows = holds.map((hold) => [
    targetText(
      hold.targets,
      volumes.find((volume) => volume.id === hold.volume),
    ),
    `${modeText(hold.targets)}${hold.count > 1 ? ` ×${hold.count}` : ''}${hold.detached ? ' (no name any more)' : ''}`,
    duration(nowMs - hold.grantedAtMs),
    whoText(hold.who),
    hold.owner,
  ]);
  return table([['PATH', 'HOLDS TO', 'SINCE', 'COMMAND', 'ACTOR'], ...rows]);
}

/** The queue of one path, numbered. */
export function queueTable(queue: readonly WaitInfo[], nowMs: number): string {
  const rows = queue.map((wait, i) => [
    `${i + 1}.`,
    modeText(wait.targets),
    duration(nowMs - wait.arrivedAtMs),
    whoText(wait.who),
    wait.owner,
  ]);
  return table([['', 'WANTS TO', 'WAITS FOR', 'COMMAND', 'ACTOR'], ...rows]);
}

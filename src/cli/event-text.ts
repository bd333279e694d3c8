/** An event as one line for people. */
import type { GateEvent, VolumeInfo } from '../broker/wire.ts';
import { duration } from './output.ts';
import { whoText } from './people.ts';

export function eventLine(event: GateEvent, volumes: readonly VolumeInfo[]): string {
  const at = new Date(event.time * 1000).toISOString().slice(0, 23).replace('T', ' ');
  const volume = volumes.find((one) => one.id === event.volume);
  const top = volume ? (volume.mount ?? volume.root) : '';
  const paths = (event.paths ?? (event.path === undefined ? [] : [event.path])).filter(
    (path) => !path.startsWith('#ino/'),
  );
  const parts = [
    at,
    event.type.padEnd(10),
    event.mode ?? '',
    paths.map((path) => (path === '' && top ? top : `${top}/${path}`)).join(', '),
    event.owner ? `by ${event.owner}` : '',
    event.who ? `[${whoText(event.who)}]` : '',
    event.waitedMs ? `after ${duration(event.waitedMs)}` : '',
    event.reason && event.reason !== 'released' ? `(${event.reason})` : '',
    event.message ?? '',
  ];
  return parts.filter(Boolean).join(' ');
}

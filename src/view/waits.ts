import type { GateSession } from '../client/index.ts';

/** `/.gate/who`: every wait of a volume, with who is in the way. Never throws: a reader gets words instead. */
export async function waitsAsText(session: GateSession, volume: string): Promise<string> {
  try {
    const waits = (await session.waits()).filter((wait) => wait.volume === volume);
    if (waits.length === 0) return 'Nobody waits.\n';
    const lines: string[] = [];
    for (const wait of waits) {
      const target = wait.targets[0]!;
      const status = await session.status(target.path, volume);
      const holders =
        status.holds.map((hold) => named(hold.owner, hold.who)).join(', ') || 'those who came first';
      lines.push(
        `${target.path}: ${named(wait.owner, wait.who)} waits to ${target.mode}, behind ${holders}\n`,
      );
    }
    return lines.join('');
  } catch (error) {
    return `The broker does not answer: ${(error as Error).message}\n`;
  }
}

function named(owner: string, who: { command?: string; pid?: number } | undefined): string {
  return who?.pid === undefined ? owner : `${who.command ?? '?'} (pid ${who.pid}, ${owner})`;
}

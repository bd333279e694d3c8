/** Processes that work in a repository beside its view, as lines for people. */
import { type PathUser, parentOf, processesUsing } from '../base/process.ts';
import { projectDir } from '../base/version.ts';
import { lookBelow, type UserBelow } from '../mount/below.ts';
import { isInside } from './mounts.ts';

const SHOWN_MAX = 10;
const WORDS = { cwd: 'working directory', root: 'root', fd: 'open file', map: 'mapped file' } as const;

/** `code (pid 12) bypasses Gate: …`, for each process that works in the backing tree beside the view. */
export function bypassers(root: string, mount: string | undefined): string[] {
  if (mount === root) return besideInPlace(root);
  if (mount !== undefined && isInside(mount, root)) return [];
  const parents = ancestors();
  return processesUsing(root)
    .filter((user) => !parents.has(user.pid) && !user.command.includes(`${projectDir}/src/cli/main.ts`))
    .slice(0, SHOWN_MAX)
    .map((user) => line(user, user.how === 'fd' ? WORDS.fd : user.how));
}

function line(user: Pick<PathUser, 'comm' | 'pid' | 'path'>, how: string): string {
  return `${user.comm} (pid ${user.pid}) bypasses Gate: its ${how} is ${user.path}`;
}

/** In place: who still works in the tree beneath the view, and where else that tree is to be had. */
function besideInPlace(root: string): string[] {
  const { users, open } = lookBelow(root, true);
  return [
    ...users
      .slice(0, SHOWN_MAX)
      .map((user) => `${line(user, WORDS[user.how[0]!])}, from before this view was mounted`),
    ...open.map((place) => `the repository is also to be had, beside its view, at ${place}`),
  ];
}

/** Who is in the way of a view that is to be mounted over `root`. */
export interface InTheWay {
  /** They would go on in the tree below. */
  readonly others: readonly string[];
  /** Ancestors of this process, like the shell it was started from, that only stand there: one `cd` brings them into the view. */
  readonly ancestors: readonly UserBelow[];
}

/** Looks for processes that would not see a view mounted over `root`. */
export function inTheWayOf(root: string): InTheWay {
  const parents = ancestors();
  const onlyStands = (user: UserBelow) => parents.has(user.pid) && user.how.every((how) => how === 'cwd');
  const { users } = lookBelow(root, true);
  return {
    others: users
      .filter((user) => !onlyStands(user))
      .map(({ comm, pid, how, path }) => `${comm} (pid ${pid}): its ${WORDS[how[0]!]} is ${path}`),
    ancestors: users.filter(onlyStands),
  };
}

/** This process's ancestors: the shell that one stands in with `gate up` is no news. */
function ancestors(): Set<number> {
  const found = new Set<number>();
  for (let pid = process.ppid; pid > 1 && !found.has(pid); pid = parentOf(pid)) found.add(pid);
  return found;
}

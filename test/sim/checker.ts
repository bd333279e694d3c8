/**
 * The checker: decides from what was seen whether the lock system kept its promises. It knows the rules as people know them,
 * looks at everything each time, and shares no code with the lock core.
 *
 * It sees two things. The *journal*: the rows that the broker wrote, commit by commit; from them it checks the queue. And the
 * *handles*: what holders believe to have, from when they are told until they give it back or may not act any more by their own
 * clock; from them it checks what users rely on. Handles of open files are compared by inode, whatever its name is by now.
 */
import type { Hold, Target, Waiter } from '../../src/lock/types.ts';
import type { Told, Written } from './disk.ts';
import type { Kernel } from './kernel.ts';

const DELEGATE = '#delegate';

export class Violation extends Error {}

/** Below a folder. */
export function within(path: string, tree: string): boolean {
  return tree === '' ? path !== '' : path.startsWith(`${tree}/`);
}

export function touch(a: Omit<Target, 'mode'>, b: Omit<Target, 'mode'>): boolean {
  if (a.path === b.path) return true;
  return (a.scope === 'tree' && within(b.path, a.path)) || (b.scope === 'tree' && within(a.path, b.path));
}

type Kind = 'name' | 'handle';

/** Whether two targets of different owners exclude each other. */
function exclude(a: Target, aKind: Kind, b: Target, bKind: Kind): boolean {
  if (!touch(a, b)) return false;
  if (a.mode === 'read' && b.mode === 'read') return false;
  // Who renames or removes a name does not disturb who has the file open for reading.
  if (a.mode === 'replace' && b.mode === 'read' && bKind === 'handle') return false;
  if (b.mode === 'replace' && a.mode === 'read' && aKind === 'handle') return false;
  return true;
}

interface Claim {
  readonly owner: string;
  readonly volume: string;
  readonly kind: Kind;
  readonly targets: readonly Target[];
}

function against(a: Claim, b: Claim): boolean {
  if (a.owner === b.owner || a.volume !== b.volume) return false;
  return a.targets.some((x) => b.targets.some((y) => exclude(x, a.kind, y, b.kind)));
}

function show({ owner, kind, targets }: Claim): string {
  const list = targets.map(({ path, mode, scope }) => `${mode} ${scope} '${path}'`).join(' + ');
  return `${owner} (${kind}: ${list})`;
}

/** An open file, as the world's file system knows it. */
export interface Inode {
  readonly id: number;
  path: string | null;
}

/** What a holder believes to have. */
export interface Handle extends Claim {
  readonly lockId: string;
  readonly token: number;
  readonly inode: Inode | null;
  /** True while its holder may act, by its own clock. */
  readonly mayAct: () => boolean;
  over: boolean;
}

interface WaiterSeen {
  readonly waiter: Waiter;
  readonly commit: number;
  changedIn: number;
}

export class Checker {
  readonly kernel: Kernel;
  readonly holds = new Map<string, Hold>();
  readonly waiters = new Map<string, WaiterSeen>();
  readonly live = new Set<Handle>();
  /** Lock ids that were ever on the disk. */
  /** Locks whose targets changed after they were granted. */
  readonly #moved = new Set<string>();
  readonly #everHeld = new Map<string, number>();
  readonly #tokens = new Map<string, number>();
  readonly #tokenOf = new Map<number, string>();
  /** Greatest token granted so far, by claim. */
  readonly #greatest = new Map<string, { claim: Claim; token: number; lockId: string }>();
  #commit = 0;
  #latestTicket = 0;
  /** Power was lost and acknowledged rows with it: only the numbers are promised to be new. */
  amnesia = false;
  /** Locks that may be taken from their holders: by order, or by a cap. */
  readonly breakable = new Set<string>();
  granted = 0;
  localGrants = 0;
  waited = 0;
  checks = 0;
  readonly trace: string[] = [];

  constructor(kernel: Kernel) {
    this.kernel = kernel;
  }

  note(line: string): void {
    if (this.trace.length > 40_000) this.trace.splice(0, 20_000);
    this.trace.push(`${this.kernel.nowMs.toFixed(1).padStart(9)} ${line}`);
  }

  /** The first broken promise. */
  violation: Error | null = null;

  /** Remembered, because the code under test may catch what is thrown through it. */
  fail(what: string): never {
    const violation = new Violation(`at ${this.kernel.nowMs.toFixed(1)} ms: ${what}`);
    this.violation ??= violation;
    throw violation;
  }

  // ------------------------------------------------------------ the journal

  written(changes: readonly Written[], { moved, fresh }: Told): void {
    this.#commit++;
    const heldBefore = new Map(this.holds);
    const waitedBefore = new Map(this.waiters);
    const granted: Hold[] = [];
    const tickets: number[] = [];
    for (const { table, key, row } of changes) {
      if (table === 'waiter') {
        if (row === undefined) this.waiters.delete(key);
        else tickets.push(...this.#waits(key, row as Waiter));
      } else if (table === 'hold') {
        if (row === undefined) this.#gone(key);
        else {
          const hold = row as Hold;
          if (!this.holds.has(key)) granted.push(hold);
          else if (moved.has(key)) this.note(`moved ${show(hold)} ${key}${hold.detached ? ' detached' : ''}`);
          this.holds.set(key, hold);
        }
      }
    }
    for (const hold of granted) {
      if (this.#everHeld.has(hold.lockId) && !this.amnesia) this.fail(`lock id ${hold.lockId} came twice`);
      this.#everHeld.set(hold.lockId, this.#commit);
      const waits = [...waitedBefore.values()].some(
        ({ waiter }) => waiter.ticket === hold.ticket && waiter.request.session === hold.session,
      );
      if (!waits) tickets.push(hold.ticket);
      this.note(`granted ${show(hold)} ${hold.lockId} token ${hold.token} ticket ${hold.ticket}`);
    }
    for (const lockId of moved) this.#moved.add(lockId);
    this.#checkTickets(tickets);
    if (this.amnesia) return;
    for (const hold of granted) {
      const waited = waitedBefore.get(`${hold.session} ${hold.requestId}`)?.waiter;
      // Who gave up and asked again in the same turn, under the same id, did not wait.
      const inQueue = waited !== undefined && !fresh.has(hold.lockId) && !this.#adopted(hold);
      if (inQueue && waited.ticket !== hold.ticket)
        this.fail(`${show(hold)} waited with ticket ${waited.ticket} and was granted with ${hold.ticket}`);
      // Where its file had gone in this very turn it was not asked for.
      if (!moved.has(hold.lockId)) this.#checkGrant(hold, heldBefore, waitedBefore, moved);
    }
    this.#checkNobodyForgotten();
  }

  /** Power was lost, and rows that had not been synced: this is what is left. */
  lost(holds: readonly [string, Hold][], waiters: readonly [string, Waiter][]): void {
    this.amnesia = true;
    this.holds.clear();
    for (const [key, hold] of holds) this.holds.set(key, hold);
    this.waiters.clear();
    for (const [key, waiter] of waiters)
      this.waiters.set(key, { waiter, commit: this.#commit, changedIn: this.#commit });
  }

  #waits(key: string, waiter: Waiter): number[] {
    const known = this.waiters.get(key);
    if (known === undefined) {
      this.waiters.set(key, { waiter, commit: this.#commit, changedIn: this.#commit });
      this.waited++;
      this.note(`waits ${show(waiter.request)} ${waiter.request.requestId} ticket ${waiter.ticket}`);
      return [waiter.ticket];
    }
    // Given up and asked for anew in one turn.
    if (known.waiter.arrivedAtMs !== waiter.arrivedAtMs) {
      this.waiters.set(key, { waiter, commit: this.#commit, changedIn: this.#commit });
      return [waiter.ticket];
    }
    if (known.waiter.ticket !== waiter.ticket)
      this.fail(
        `${show(waiter.request)} lost its place: ticket ${known.waiter.ticket} became ${waiter.ticket}`,
      );
    this.waiters.set(key, { waiter, commit: known.commit, changedIn: this.#commit });
    return [];
  }

  #gone(lockId: string): void {
    const hold = this.holds.get(lockId);
    this.holds.delete(lockId);
    if (hold) this.note(`gone ${show(hold)} ${lockId}`);
    for (const handle of [...this.live]) {
      if (handle.lockId !== lockId) continue;
      if (this.breakable.has(lockId) || this.amnesia) this.ends(handle);
      else if (handle.mayAct())
        this.fail(`the broker dropped ${show(handle)} ${lockId}, and its holder has it`);
    }
  }

  /** Tickets of requests that are seen for the first time are later than all that were seen before. */
  #checkTickets(tickets: readonly number[]): void {
    let latest = this.#latestTicket;
    for (const ticket of tickets) {
      if (ticket <= this.#latestTicket)
        this.fail(`ticket ${ticket} was drawn after ticket ${this.#latestTicket}`);
      latest = Math.max(latest, ticket);
    }
    this.#latestTicket = latest;
  }

  /** Granted elsewhere, and only told of. */
  #adopted(hold: Hold): boolean {
    return hold.owner === DELEGATE || hold.lockId.includes('.');
  }

  #checkGrant(
    hold: Hold,
    heldBefore: ReadonlyMap<string, Hold>,
    waitedBefore: ReadonlyMap<string, WaiterSeen>,
    moved: ReadonlySet<string>,
  ): void {
    if (this.#adopted(hold)) return;
    this.checks++;
    const own = [...heldBefore.values(), ...this.holds.values()].filter(
      (one) => one.lockId !== hold.lockId && one.owner === hold.owner && one.volume === hold.volume,
    );
    for (const other of this.holds.values()) {
      if (other === hold || other.detached || !against(hold, other)) continue;
      // It came here in this turn, perhaps after the grant.
      const before = moved.has(other.lockId) ? heldBefore.get(other.lockId) : undefined;
      if (moved.has(other.lockId) && (before === undefined || !against(hold, before))) continue;
      // What was adopted in this very turn may have come after the grant.
      if (this.#adopted(other) && !heldBefore.has(other.lockId)) continue;
      // Inodes went where they went: who has it already may have it again, whoever was moved there too.
      const cameHere = [other, ...own].some((one) => this.#adopted(one) || this.#moved.has(one.lockId));
      if (cameHere && hold.targets.every((target) => this.#has(own, target))) continue;
      this.fail(`the broker granted ${show(hold)} beside ${show(other)} ${other.lockId}`);
    }
    if (own.some((one) => this.#meets(one, hold))) return;
    // Another request of its owner ended in this turn: it may have been granted, and lost with its session, before this one.
    for (const [key, { waiter }] of waitedBefore)
      if (
        waiter.request.owner === hold.owner &&
        waiter.request.requestId !== hold.requestId &&
        !this.waiters.has(key) &&
        this.#meets(waiter.request, hold)
      )
        return;
    for (const { waiter, commit, changedIn } of this.waiters.values()) {
      // Retargeted in this very turn: whether before or after the grant is not to be seen.
      if (waiter.ticket > hold.ticket || (commit < changedIn && changedIn === this.#commit)) continue;
      if (against(waiter.request, hold))
        this.fail(
          `${show(hold)} ticket ${hold.ticket} overtook ${show(waiter.request)} ${waiter.request.requestId}, ` +
            `which waits with ticket ${waiter.ticket}`,
        );
    }
  }

  #has(own: readonly Hold[], target: Target): boolean {
    return own.some(
      ({ targets, spread }) =>
        !spread &&
        targets.some(
          (have) =>
            (have.mode === 'write' || have.mode === target.mode) &&
            ((have.path === target.path ? have.scope === 'tree' || target.scope === 'file' : false) ||
              (have.scope === 'tree' && within(target.path, have.path))),
        ),
    );
  }

  #meets(a: Claim, b: Claim): boolean {
    return a.targets.some((x) => b.targets.some((y) => touch(x, y)));
  }

  /** Whoever waits has somebody in the way, now. */
  #checkNobodyForgotten(): void {
    for (const { waiter } of this.waiters.values()) {
      const { request } = waiter;
      this.checks++;
      const held = [...this.holds.values()].some((hold) => !hold.detached && against(request, hold));
      if (held) continue;
      const queued = [...this.waiters.values()].some(({ waiter: other }) => {
        if (other === waiter || !against(request, other.request)) return false;
        return other.ticket < waiter.ticket || this.#carries(other);
      });
      if (!queued) this.fail(`${show(request)} ${request.requestId} waits, and nobody is in its way`);
    }
  }

  /** It holds something that touches what it waits for, and may so have an earlier ticket. */
  #carries({ request }: Waiter): boolean {
    for (const hold of this.holds.values())
      if (hold.owner === request.owner && hold.volume === request.volume && this.#meets(hold, request))
        return true;
    return false;
  }

  // ------------------------------------------------------------ handles

  /** A holder was told that it has a lock. */
  begins(handle: Handle, local: boolean): void {
    this.granted++;
    if (local) this.localGrants++;
    this.note(`has ${show(handle)} ${handle.lockId} token ${handle.token}${local ? ' by its own' : ''}`);
    if (!handle.mayAct()) {
      if (local) this.fail(`${show(handle)} was granted by a delegate whose session is over`);
      handle.over = true;
      return;
    }
    // Broken by order before its holder heard of the grant; that it is broken comes next.
    if (
      this.breakable.has(handle.lockId) &&
      this.#everHeld.has(handle.lockId) &&
      !this.holds.has(handle.lockId)
    ) {
      handle.over = true;
      return;
    }
    if (!local && !this.#everHeld.has(handle.lockId) && !handle.lockId.includes('.'))
      this.fail(`${show(handle)} ${handle.lockId} was acknowledged and is on no disk`);
    this.#checkToken(handle);
    this.live.add(handle);
    this.checkHandle(handle);
  }

  /** It was given back, or its holder knows that it is lost. */
  ends(handle: Handle): void {
    if (handle.over) return;
    handle.over = true;
    this.live.delete(handle);
    this.note(`ends ${show(handle)} ${handle.lockId}`);
  }

  #checkToken(handle: Handle): void {
    const { lockId, token } = handle;
    const known = this.#tokens.get(lockId);
    if (known !== undefined) {
      if (known !== token) this.fail(`lock ${lockId} has tokens ${known} and ${token}`);
      return;
    }
    const other = this.#tokenOf.get(token);
    if (other !== undefined) this.fail(`token ${token} was given to ${other} and to ${lockId}`);
    this.#tokens.set(lockId, token);
    this.#tokenOf.set(token, lockId);
    // The token of an open file that was renamed is from before it came to this name.
    if (this.amnesia || this.#moved.has(lockId)) return;
    const key = `${handle.kind} ${handle.owner} ${JSON.stringify(handle.targets)}`;
    for (const before of this.#greatest.values())
      if (before.token > token && against({ ...before.claim }, handle))
        this.fail(
          `token ${token} of ${show(handle)} ${lockId} is not above ${before.token} of ${show(before.claim)} ${before.lockId} before it`,
        );
    const greatest = this.#greatest.get(key);
    if (greatest === undefined || greatest.token < token)
      this.#greatest.set(key, { claim: handle, token, lockId });
  }

  /** Nobody has what this one has. */
  checkHandle(handle: Handle): void {
    if (this.amnesia) return;
    for (const other of [...this.live]) {
      if (other === handle || other.owner === handle.owner || other.volume !== handle.volume) continue;
      if (!other.mayAct()) {
        this.ends(other);
        continue;
      }
      if (!handle.mayAct()) return;
      this.checks++;
      if (this.#clash(handle, other))
        this.fail(
          `${show(handle)} ${handle.lockId} beside ${show(other)} ${other.lockId}${inodes(handle, other)}`,
        );
    }
  }

  /** After a change of names. */
  checkAll(): void {
    for (const handle of [...this.live]) if (!handle.over && handle.mayAct()) this.checkHandle(handle);
  }

  #clash(a: Handle, b: Handle): boolean {
    if (a.inode !== null && b.inode !== null) return a.inode === b.inode && (writes(a) || writes(b));
    const x = standing(a);
    const y = standing(b);
    return x !== null && y !== null && against(x, y);
  }

  /** A holder gave its lock back, and was told that there is none. */
  unknownAtRelease(handle: Handle): void {
    if (this.amnesia || this.breakable.has(handle.lockId)) return;
    this.fail(`${show(handle)} ${handle.lockId} was lost while its holder had it`);
  }
}

function writes({ targets }: Handle): boolean {
  return targets.some(({ mode }) => mode === 'write');
}

/** A handle with its file's name of now; null: it has none, and excludes nobody. */
function standing(handle: Handle): Claim | null {
  const { inode } = handle;
  if (inode === null) return handle;
  if (inode.path === null) return null;
  const mode = writes(handle) ? 'write' : 'read';
  return { ...handle, targets: [{ path: inode.path, mode, scope: 'file' }] };
}

function inodes(a: Handle, b: Handle): string {
  return a.inode || b.inode ? ` (inodes ${a.inode?.id ?? '-'}, ${b.inode?.id ?? '-'})` : '';
}

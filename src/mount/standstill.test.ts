import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { Blocked, ProcessTable } from './blocked.ts';
import { findStandstills, type InTheWay, type LockWait } from './standstill.ts';

/** Processes by pid: what each of their threads waits for, the first being the process's own. */
function table(
  processes: Record<number, readonly (Blocked | null)[]>,
  served: Record<number, number> = {},
): ProcessTable {
  return {
    threads: (pid) => (processes[pid] ?? []).map((_, at) => pid + at),
    blocked: (pid, tid) => processes[pid]![tid - pid]!,
    hasOpen: () => true,
    serves: (pid, client) => served[client] === pid,
  };
}

const on = (...pids: number[]): Blocked => ({ on: 'processes', pids });
const holder = (pid: number, path = 'f'): InTheWay => ({ owner: `o${pid}`, holds: true, pid, path });
const earlier = (pid: number, path = 'f'): InTheWay => ({ owner: `o${pid}`, holds: false, pid, path });

/** A wait of process `pid`, by its first thread, with its pid for a ticket. */
function wait(pid: number, blockers: readonly InTheWay[], path = 'f', tid = pid): LockWait {
  return { requestId: `r${pid}`, owner: `o${pid}`, ticket: pid, path, tid, pid, blockers };
}

test('a holder that waits for the waiter alone is joined', () => {
  const waits = [wait(10, [holder(20)])];
  assert.deepEqual(findStandstills(waits, table({ 10: [null], 20: [on(10)] })), [
    { requestId: 'r10', join: 'o20' },
  ]);
  // Through others, and of two holders the one that waits.
  const two = [wait(10, [holder(30), holder(20)])];
  const processes = { 10: [null], 20: [on(40)], 30: [null], 40: [on(10), { on: 'threads' } as const] };
  assert.deepEqual(findStandstills(two, table(processes)), [{ requestId: 'r10', join: 'o20' }]);
});

test('whoever can go on, or be woken by somebody who can, is waited for', () => {
  const waits = [wait(10, [holder(20)])];
  const cases: Record<number, (Blocked | null)[]>[] = [
    { 10: [null], 20: [null] },
    { 10: [null], 20: [on(10, 30)], 30: [null] },
    { 10: [null], 20: [on(10), null] },
    { 10: [null, null], 20: [on(10)] },
    { 10: [null, { on: 'events' } as const], 20: [on(10)] },
    { 10: [null], 20: [on(99)] },
    { 10: [null], 20: [{ on: 'threads' } as const] },
  ];
  for (const processes of cases)
    assert.deepEqual(findStandstills(waits, table(processes)), [], JSON.stringify(processes));
  const closed = { ...table({ 10: [null], 20: [on(10)] }), hasOpen: () => false };
  assert.deepEqual(findStandstills(waits, closed), []);
});

test('a client waits for its server when only a lock keeps that from answering', () => {
  const waits = [wait(10, [holder(20)], 'f', 11)];
  const client: readonly Blocked[] = [{ on: 'socket', fd: 3 }];
  const events: Blocked = { on: 'events' };
  assert.deepEqual(findStandstills(waits, table({ 10: [events, null], 20: client }, { 20: 10 })), [
    { requestId: 'r10', join: 'o20' },
  ]);
  assert.deepEqual(findStandstills(waits, table({ 10: [events, null], 20: client })), []);
  assert.deepEqual(findStandstills(waits, table({ 10: [null, null], 20: client }, { 20: 10 })), []);
});

test('of a circle with several waits the newest is refused, once', () => {
  const waits = [wait(10, [holder(30)], 'f'), wait(20, [holder(40, 'g')], 'g')];
  // 30 waits for its child 20, 40 for its child 10.
  const processes = { 10: [null], 20: [null], 30: [on(20)], 40: [on(10)] };
  assert.deepEqual(findStandstills(waits, table(processes)), [{ requestId: 'r20', join: null }]);
  // A wait of elsewhere cannot be refused from here.
  const foreign = [waits[0]!, { ...waits[1]!, tid: 0, pid: 0 }];
  assert.deepEqual(findStandstills(foreign, table(processes)), []);
});

test('who waits behind a circle, and is not in it, is left alone', () => {
  const waits = [wait(10, [holder(20)]), wait(30, [holder(20), earlier(10)])];
  assert.deepEqual(findStandstills(waits, table({ 10: [null], 20: [on(10)], 30: [null] })), [
    { requestId: 'r10', join: 'o20' },
  ]);
});

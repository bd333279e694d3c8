import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import { createServer, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { systemClock } from '../base/clock.ts';
import { VmError } from './errors.ts';
import { Qmp, type QmpEvent } from './qmp.ts';

const GREETING =
  '{"QMP": {"version": {"qemu": {"micro": 0, "minor": 2, "major": 7}}, "capabilities": []}}\r\n';

/** A socket that greets, and answers each command with what `answer` writes. */
async function fake(
  t: TestContext,
  answer: (command: { execute: string; id: number }, socket: Socket) => void,
) {
  const dir = mkdtempSync(join(tmpdir(), 'gate-qmp-'));
  const path = join(dir, 'qmp');
  const server = createServer((socket) => {
    socket.write(GREETING);
    let text = '';
    socket.on('data', (chunk) => {
      text += chunk;
      const lines = text.split('\n');
      text = lines.pop() ?? '';
      for (const line of lines) {
        const command = JSON.parse(line) as { execute: string; id: number };
        if (command.execute === 'qmp_capabilities') socket.write(`{"return": {}, "id": ${command.id}}\r\n`);
        else answer(command, socket);
      }
    });
    socket.on('error', () => {});
  });
  await new Promise<void>((done) => server.listen(path, done));
  t.after(() => {
    server.close();
    rmSync(dir, { recursive: true });
  });
  return path;
}

test('replies find their commands, with events between and lines in pieces', async (t) => {
  const events: QmpEvent[] = [];
  const waiting: { id: number; socket: Socket }[] = [];
  const path = await fake(t, ({ id }, socket) => {
    waiting.push({ id, socket });
    if (waiting.length < 2) return;
    const [first, second] = [waiting[0]!, waiting[1]!];
    // In the other order, an event before and between, and cut anywhere.
    const text =
      '{"event": "RESUME", "timestamp": {}}\r\n' +
      `{"return": {"n": 2}, "id": ${second.id}}\r\n{"event": "STOP", "data": {"a": 1}}\r\n{"return": {"n": 1}, "id": ${first.id}}\r\n`;
    for (let at = 0; at < text.length; at += 7) socket.write(text.slice(at, at + 7));
  });
  const qmp = await Qmp.connect(path, systemClock, (event) => events.push(event));
  const [one, two] = await Promise.all([qmp.execute('query-status'), qmp.execute('query-name')]);
  assert.deepEqual([one, two], [{ n: 1 }, { n: 2 }]);
  assert.deepEqual(
    events.map(({ event }) => event),
    ['RESUME', 'STOP'],
  );
  qmp.close();
  await qmp.closed;
});

test("an error is thrown with QEMU's words", async (t) => {
  const path = await fake(t, ({ id }, socket) =>
    socket.write(
      `{"id": ${id}, "error": {"class": "CommandNotFound", "desc": "The command x has not been found"}}\r\n`,
    ),
  );
  const qmp = await Qmp.connect(path, systemClock);
  t.after(() => qmp.close());
  await assert.rejects(
    qmp.execute('x'),
    (error) => error instanceof VmError && /x has not been found/.test(error.message),
  );
});

test('commands that wait fail when QEMU goes away, and later ones at once', async (t) => {
  const path = await fake(t, (_command, socket) => socket.destroy());
  const qmp = await Qmp.connect(path, systemClock);
  await assert.rejects(qmp.execute('quit'), /closed its control socket/);
  await assert.rejects(qmp.execute('query-status'), /closed its control socket/);
});

test('what is no QMP is refused', async (t) => {
  const path = await fake(t, (_command, socket) => socket.write('hello\n'));
  const qmp = await Qmp.connect(path, systemClock);
  await assert.rejects(qmp.execute('query-status'), /something else than JSON/);
  await assert.rejects(Qmp.connect('/nonexistent/qmp', systemClock), /does not answer/);
});

/** A file that is gone when an open has waited for it: made anew by who may make it, missing for everybody else; as natively. */
import assert from 'node:assert/strict';
import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { settle, startGate } from './harness.ts';

const MODES = [true, false].flatMap((passthrough) =>
  [true, false].map((delegation) => ({ passthrough, delegation })),
);

for (const { passthrough, delegation } of MODES) {
  const mode = `passthrough ${passthrough}, delegation ${delegation}`;
  test(`who waits for a file that is then removed makes it anew with O_CREAT, and finds none without (${mode})`, async (t) => {
    const flags = ['--stale-writes', 'off', '--delegation', delegation ? 'auto' : 'off'];
    const gate = await startGate(t, { passthrough, mountFlags: flags });
    const [holder, maker, reader] = [
      await gate.actor('holder'),
      await gate.actor('maker'),
      await gate.actor('reader'),
    ];
    for (const access of ['RDWR|CREAT|TRUNC', 'RDWR|CREAT', 'RDONLY|CREAT']) {
      writeFileSync(join(gate.root, 'f'), 'before');
      const held = await holder.open('f', 'RDWR');
      const making = maker.open('f', access);
      await settle();
      assert.ok(!making.over(), 'it waits for the holder');
      await holder.do('unlink', 'f');
      await holder.do('close', held);
      const made = await making;
      if (access.startsWith('RDWR')) await maker.do('write', made, 'anew');
      await maker.do('close', made);
      assert.equal(readFileSync(join(gate.root, 'f'), 'utf8'), access.startsWith('RDWR') ? 'anew' : '');
    }
    const held = await holder.open('f', 'RDWR');
    const reading = reader.open('f');
    await settle();
    assert.ok(!reading.over(), 'it waits for the holder');
    await holder.do('unlink', 'f');
    await holder.do('close', held);
    await assert.rejects(reading, /ENOENT/);
    assert.ok(!existsSync(join(gate.root, 'f')));
    await gate.idle();
  });
}

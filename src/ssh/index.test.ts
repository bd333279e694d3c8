import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { test } from 'node:test';
import { parseSshUrl, type SshTarget, shellWord, showTarget, sshArguments, sshOptions } from './index.ts';

test('a URL names user, host and port; what is missing is left to the configuration of ssh', () => {
  const whole = parseSshUrl('ssh://ann@example.org:2222');
  assert.deepEqual([whole.user, whole.host, whole.port], ['ann', 'example.org', 2222]);
  const bare = parseSshUrl('ssh://box');
  assert.deepEqual([bare.user, bare.host, bare.port], [null, 'box', null]);
  const six = parseSshUrl('ssh://ann@[::1]:22022');
  assert.equal(six.host, '::1');
  assert.equal(showTarget(six), 'ann@[::1]:22022');
});

test('no address: refused, and nothing that ssh would take for an option', () => {
  for (const url of [
    'box',
    'http://box',
    'ssh://',
    'ssh://-oProxyCommand=x',
    'ssh://-l@box',
    'ssh://a:secret@box',
  ])
    assert.throws(() => parseSshUrl(url), { code: 'invalid_request' }, url);
});

test('the options are what ssh itself understands by them', () => {
  const target: SshTarget = {
    user: 'ann',
    host: '127.0.0.1',
    port: 2022,
    identityFile: '/tmp/a key%h',
    hostKeys: { file: '/tmp/known hosts', alias: 'gate-vm' },
    controlPath: null,
  };
  const shown = spawnSync('ssh', ['-G', ...sshOptions(target), target.host], { encoding: 'utf8' });
  assert.equal(shown.status, 0, shown.stderr);
  const lines = shown.stdout.split('\n');
  for (const line of [
    'user ann',
    'port 2022',
    'hostkeyalias gate-vm',
    'identitiesonly yes',
    'stricthostkeychecking true',
    'userknownhostsfile "/tmp/known hosts"',
  ])
    assert.ok(
      lines.includes(line) || lines.includes(line.replaceAll('"', '')),
      `${line} is not in\n${shown.stdout}`,
    );
  assert.match(shown.stdout, /^identityfile .*a key%+h"?$/m);
  assert.deepEqual(sshArguments(target, 'true').slice(-3), ['--', '127.0.0.1', 'true']);
});

test('a word is one word for a shell', () => {
  for (const word of ['plain', "it's", 'two words', '$(id)', '', 'a\nb']) {
    const out = spawnSync('sh', ['-c', `printf %s ${shellWord(word) || "''"}`], { encoding: 'utf8' });
    assert.equal(out.stdout, word);
  }
});

/**
 * Without Firecracker: its configuration against its API's specification, the driver against a socket that enforces order and fields, the
 * network in a namespace of its own. With GATE_FIRECRACKER_SPEC=<firecracker.yaml> our schemas are compared with that file, too.
 */
import assert from 'node:assert/strict';
import { execFileSync, spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, mkdtempSync, rmSync } from 'node:fs';
import { createServer } from 'node:http';
import { after, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { z } from 'zod';
import { systemClock } from '../../base/clock.ts';
import { Effects } from '../effects.ts';
import { VmError } from '../errors.ts';
import type { MachineRecord } from '../machine.ts';
import { machineFiles } from '../names.ts';
import { put } from './api.ts';
import { type ApiCall, CONFIG, callsFor, configOf, SCHEMAS } from './config.ts';
import { payloadOf } from './kernel.ts';
import { planNetwork, rulesFor } from './network.ts';

const dir = mkdtempSync('/var/tmp/gate-fc-');
after(() => rmSync(dir, { recursive: true, force: true }));
const files = machineFiles(dir, 'gate-fc');
mkdirSync(files.dir, { recursive: true });
const network = planNetwork(files.dir, []);
const record: MachineRecord = {
  ...{
    name: 'gate-fc',
    vmm: 'firecracker',
    base: 'debian-12',
    cpus: 2,
    memoryMib: 1024,
    diskMib: 8192,
    network,
  },
  image: {
    dir,
    disk: `${dir}/rootfs.ext4`,
    format: 'raw',
    kernel: `${dir}/k`,
    initrd: `${dir}/i`,
    seed: 'gate',
  },
  ...{
    sshPort: 22,
    sshHost: network.guestAddress,
    sshKey: null,
    repo: '/r',
    guestRepo: '/srv/repo',
    options: {},
  },
};
const config = configOf(files, record, `${dir}/vmlinux`);

test('the configuration holds what is booted, and a misspelt word is refused, at the top as below', () => {
  assert.equal(config.drives[0]!.path_on_host, files.disk);
  assert.match(config['boot-source'].boot_args!, /root=\/dev\/vda/);
  assert.ok(CONFIG.safeParse(config).success);
  const { vsock, ...rest } = config;
  assert.ok(!CONFIG.safeParse({ ...rest, vsocks: vsock }).success);
  assert.ok(
    !CONFIG.safeParse({ ...config, 'boot-source': { ...config['boot-source'], kernel: 'x' } }).success,
  );
  assert.ok(!CONFIG.safeParse({ ...config, 'machine-config': { mem_size_mib: 1024 } }).success);
  assert.throws(() => configOf(files, { ...record, cpus: 3 }, 'k'), /even number/);
});

test("our schemas are a part of the specification's", { skip: !process.env.GATE_FIRECRACKER_SPEC }, () => {
  interface Definition {
    required?: string[];
    properties: Record<string, { type?: string; enum?: string[] }>;
  }
  const read =
    'import json,sys,yaml; json.dump(yaml.safe_load(open(sys.argv[1]))["definitions"], sys.stdout)';
  const spec = JSON.parse(
    execFileSync('python3', ['-c', read, process.env.GATE_FIRECRACKER_SPEC!], { encoding: 'utf8' }),
  ) as Record<string, Definition>;
  const names = {
    ...{ 'boot-source': 'BootSource', drives: 'Drive', 'machine-config': 'MachineConfiguration' },
    ...{
      'network-interfaces': 'NetworkInterface',
      vsock: 'Vsock',
      entropy: 'EntropyDevice',
      action: 'InstanceActionInfo',
    },
  } as const;
  for (const [ours, theirs] of Object.entries(names)) {
    const schema = z.toJSONSchema(SCHEMAS[ours as keyof typeof SCHEMAS]) as Definition;
    const definition = spec[theirs]!;
    for (const [field, { type, enum: values }] of Object.entries(schema.properties)) {
      const known = definition.properties[field];
      assert.ok(known, `${theirs} has no ${field}`);
      assert.equal(type, known.type, `${theirs}.${field}`);
      if (values) assert.deepEqual(values.toSorted(), known.enum?.toSorted(), `${theirs}.${field}`);
    }
    for (const field of definition.required ?? [])
      assert.ok(schema.required?.includes(field), `${theirs}.${field} is required`);
  }
  const sections = Object.keys(spec.FullVmConfiguration!.properties);
  for (const section of Object.keys(config)) assert.ok(sections.includes(section), section);
});

/** Firecracker's API as far as we use it: fields are checked, and nothing may be configured once the machine has started. */
async function fake(): Promise<{ socket: string; calls: string[]; close: () => void }> {
  const socket = `${files.dir}/fake-${calls++}`;
  const seen: string[] = [];
  let started = false;
  const server = createServer((request, response) => {
    let text = '';
    request.on('data', (chunk) => (text += chunk));
    request.on('end', () => {
      const refuse = (why: string) => response.writeHead(400).end(JSON.stringify({ fault_message: why }));
      const path = request.url ?? '';
      const section = path.split('/')[1]!.replace('actions', 'action') as keyof typeof SCHEMAS;
      const schema = SCHEMAS[section];
      if (request.method !== 'PUT' || !schema) return refuse(`no such call: ${request.method} ${path}`);
      const body = schema.safeParse(JSON.parse(text));
      if (!body.success) return refuse(`wrong body: ${body.error.message}`);
      if (section === 'drives' && (body.data as { drive_id: string }).drive_id !== path.split('/')[2])
        return refuse('the path names another drive');
      if (section === 'action') {
        for (const need of ['/boot-source', '/drives/rootfs'])
          if (!seen.includes(need)) return refuse(`cannot start without ${need}`);
        if (started) return refuse('it has started already');
        started = true;
      } else if (started)
        return refuse('The requested operation is not supported after starting the microVM.');
      seen.push(path);
      response.writeHead(204).end();
    });
  });
  await new Promise<void>((done) => server.listen(socket, done));
  return { socket, calls: seen, close: () => server.close() };
}
let calls = 0;

async function all(socket: string, list: readonly ApiCall[]): Promise<void> {
  for (const call of list) await put(socket, call);
}

test('the calls configure a machine, then start it', async (t) => {
  const api = await fake();
  t.after(api.close);
  await all(api.socket, callsFor(config));
  assert.equal(api.calls.at(-1), '/actions');
  assert.deepEqual(new Set(api.calls).size, api.calls.length);
});

test('calls in a wrong order, with a wrong field, and no Firecracker at all are told', async (t) => {
  const api = await fake();
  t.after(api.close);
  const list = callsFor(config);
  await assert.rejects(put(api.socket, list.at(-1)!), /cannot start without \/boot-source/);
  await all(api.socket, list);
  await assert.rejects(put(api.socket, list[0]!), /not supported after starting/);
  await assert.rejects(
    put(api.socket, { path: '/drives/rootfs', body: { drive_id: 'rootfs', is_root: true } }),
    (error) => error instanceof VmError && /wrong body/.test(error.message),
  );
  await assert.rejects(put(`${files.dir}/nobody`, list[0]!), /ENOENT/);
});

test('addresses stay the same, and off those that are taken', () => {
  assert.deepEqual(planNetwork(files.dir, []), network);
  const other = planNetwork(files.dir, [network.hostAddress]);
  assert.notEqual(other.hostAddress, network.hostAddress);
  assert.ok(network.tap.length <= 15);
  assert.match(rulesFor(network), /masquerade/);
});

test('what is no packed kernel is refused', () => {
  assert.throws(() => payloadOf(Buffer.alloc(10)), /no setup header/);
  const image = Buffer.alloc(4096);
  image.write('HdrS', 0x202, 'latin1');
  image.writeUInt32LE(1 << 30, 0x24c);
  assert.throws(() => payloadOf(image), /outside the file/);
  image.writeUInt32LE(64, 0x24c);
  assert.throws(() => payloadOf(image), /not packed with LZ4/);
});

const PROGRAM = fileURLToPath(new URL('./network-trial.test-helper.ts', import.meta.url));
const canTry =
  process.getuid?.() === 0 && existsSync('/dev/net/tun') && spawnSync('unshare', ['-n', 'true']).status === 0;

test('the network comes up, carries packets and goes without a trace, in a namespace of its own', {
  skip: !canTry,
}, () => {
  const ran = spawnSync(
    'unshare',
    ['-n', process.execPath, '--disable-warning=ExperimentalWarning', PROGRAM, files.dir],
    {
      encoding: 'utf8',
      timeout: 60_000,
    },
  );
  assert.equal(ran.status, 0, `${ran.stdout}\n${ran.stderr}`);
  assert.match(ran.stdout, /all went well/);
});

test('a dry run prints the calls of ip and nft', async () => {
  const lines: string[] = [];
  const { setUpNetwork } = await import('./network.ts');
  await setUpNetwork(new Effects({ clock: systemClock, dry: (line) => lines.push(line) }), network);
  assert.ok(lines.some((line) => line.startsWith(`run    ip tuntap add dev ${network.tap} mode tap`)));
});

/**
 * The network between this host and one Firecracker machine: a tap device, two addresses of a /30 of its own, and masquerading
 * for what the guest sends further. No DHCP: the guest learns its address from its seed. Set up and taken down by us alone, and each is the same from
 * any state.
 */
import { createHash } from 'node:crypto';
import { networkInterfaces } from 'node:os';
import type { Effects } from '../effects.ts';
import { VmError } from '../errors.ts';
import type { NetworkRecord } from '../machine.ts';

/** 172.31.0.0/16 in pieces of four addresses. */
const BLOCKS = 16_384;
const FORWARD = '/proc/sys/net/ipv4/ip_forward';

function address(block: number, host: number): string {
  const last = block * 4 + host;
  return `172.31.${last >> 8}.${last & 255}`;
}

/** A device's name has at most 15 bytes: `gate` and ten digits of a hash. */
function tapName(machineDir: string): string {
  return `gate${createHash('sha256').update(machineDir).digest('hex').slice(0, 10)}`;
}

/** What a machine's network is to be; by its folder, so that it stays the same, and off the addresses that this host has. */
export function planNetwork(machineDir: string, used = hostAddresses()): NetworkRecord {
  const hash = createHash('sha256').update(machineDir).digest();
  for (let n = 0; n < BLOCKS; n++) {
    const block = (hash.readUInt16BE(0) + n) % BLOCKS;
    if (used.includes(address(block, 1)) || used.includes(address(block, 2))) continue;
    return {
      tap: tapName(machineDir),
      hostAddress: address(block, 1),
      guestAddress: address(block, 2),
      prefix: 30,
      // Locally administered: the second bit of the first byte.
      mac: `06:00:${hash.toString('hex', 2, 6).match(/../g)!.join(':')}`,
    };
  }
  throw new VmError('no address is left in 172.31.0.0/16');
}

function hostAddresses(): string[] {
  return Object.values(networkInterfaces()).flatMap((each) => (each ?? []).map((one) => one.address));
}

/** The rules of one machine, a table of its own: what is gone with it is gone whole. */
export function rulesFor(network: NetworkRecord): string {
  const { tap, hostAddress, prefix } = network;
  return [
    `table ip ${tap} {`,
    '  chain postrouting {',
    '    type nat hook postrouting priority srcnat; policy accept;',
    `    ip saddr ${hostAddress}/${prefix} oifname != "${tap}" masquerade`,
    '  }',
    '  chain forward {',
    '    type filter hook forward priority filter; policy accept;',
    `    iifname "${tap}" accept`,
    `    oifname "${tap}" ct state established,related accept`,
    `    oifname "${tap}" drop`,
    '  }',
    '}',
    '',
  ].join('\n');
}

/** Sets it up; what is there of a former time is replaced. Only root may. Throws a VmError. */
export async function setUpNetwork(effects: Effects, network: NetworkRecord): Promise<void> {
  await takeDownNetwork(effects, network);
  const { tap, hostAddress, prefix } = network;
  const ip = (...args: string[]) => effects.run('ip', args, { what: `set up the network device ${tap}` });
  try {
    await ip('tuntap', 'add', 'dev', tap, 'mode', 'tap');
    await ip('address', 'add', `${hostAddress}/${prefix}`, 'dev', tap);
    await ip('link', 'set', tap, 'up');
    await effects.run('nft', ['-f', '-'], {
      what: 'let the guest reach the network',
      input: rulesFor(network),
    });
    await effects.run('sh', ['-c', `[ "$(cat ${FORWARD})" = 1 ] || echo 1 >${FORWARD}`], {
      what: 'let this host forward packets',
    });
  } catch (error) {
    await takeDownNetwork(effects, network);
    throw error;
  }
}

/** Takes it down; does nothing where there is nothing. That this host forwards packets stays: others may count on it. */
export async function takeDownNetwork(effects: Effects, { tap }: NetworkRecord): Promise<void> {
  for (const [program, ...args] of [
    ['nft', 'delete', 'table', 'ip', tap],
    ['ip', 'link', 'delete', tap],
  ] as const) {
    const ran = await effects.run(program, args, { what: 'take the network down', anyStatus: true });
    // Already gone is as good.
    if (ran.status !== 0 && !/No such|Cannot find|does not exist/i.test(ran.stderr))
      throw new VmError(`the network of the machine cannot be taken down: ${ran.stderr.trim()}`);
  }
}

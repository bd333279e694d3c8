/** Run in a network namespace of its own: the real network set-up, and a guest at the other end of the tap that pings the host. */
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { systemClock } from '../../base/clock.ts';
import { Effects } from '../effects.ts';
import { planNetwork, setUpNetwork, takeDownNetwork } from './network.ts';

const effects = new Effects({ clock: systemClock });
const network = planNetwork(process.argv[2] ?? '/trial', []);
const output = (program: string, ...args: string[]) => spawnSync(program, args, { encoding: 'utf8' }).stdout;

/** A guest in miniature: opens the tap, answers ARP, sends one echo request, and waits for its reply. */
const GUEST = `
import fcntl, os, select, socket, struct, sys, time
tap, mac, me, host = sys.argv[1], bytes.fromhex(sys.argv[2].replace(':', '')), socket.inet_aton(sys.argv[3]), socket.inet_aton(sys.argv[4])
fd = os.open('/dev/net/tun', os.O_RDWR)
fcntl.ioctl(fd, 0x400454ca, struct.pack('16sH', tap.encode(), 0x1002))
def total(data):
    s = sum(struct.unpack('!%dH' % (len(data) // 2), data))
    while s >> 16: s = (s & 0xffff) + (s >> 16)
    return ~s & 0xffff
def arp(op, to, target): return to + mac + b'\\x08\\x06' + struct.pack('!HHBBH', 1, 0x800, 6, 4, op) + mac + me + (b'\\0' * 6 if op == 1 else to) + target
end = time.time() + 20
gate, sent = None, 0
while time.time() < end:
    if time.time() - sent > 1:
        sent = time.time()
        if gate is None: os.write(fd, arp(1, b'\\xff' * 6, host))
        else:
            icmp = struct.pack('!BBHHH', 8, 0, 0, 7, 1) + b'gate'
            icmp = icmp[:2] + struct.pack('!H', total(icmp)) + icmp[4:]
            ip = struct.pack('!BBHHHBBH', 0x45, 0, 20 + len(icmp), 1, 0, 64, 1, 0) + me + host
            ip = ip[:10] + struct.pack('!H', total(ip)) + ip[12:]
            os.write(fd, gate + mac + b'\\x08\\x00' + ip + icmp)
    if not select.select([fd], [], [], 0.2)[0]: continue
    frame = os.read(fd, 2000)
    if frame[12:14] == b'\\x08\\x06' and frame[38:42] == me:
        if frame[20:22] == b'\\0\\x01': os.write(fd, arp(2, frame[22:28], frame[28:32]))
        else: gate, sent = frame[22:28], 0
    if frame[12:14] == b'\\x08\\0' and frame[23] == 1 and frame[34] == 0 and frame[26:30] == host: print('reply'); sys.exit(0)
sys.exit(1)
`;

spawnSync('ip', ['link', 'set', 'lo', 'up']);
await takeDownNetwork(effects, network);
// Twice: what is there of a former time is replaced.
for (let n = 0; n < 2; n++) await setUpNetwork(effects, network);
assert.match(
  output('ip', '-4', 'address', 'show', 'dev', network.tap),
  new RegExp(`${network.hostAddress}/30`),
);
assert.match(output('nft', 'list', 'table', 'ip', network.tap), /masquerade/);
assert.equal(output('cat', '/proc/sys/net/ipv4/ip_forward').trim(), '1');
const guest = spawnSync(
  'python3',
  ['-c', GUEST, network.tap, network.mac, network.guestAddress, network.hostAddress],
  {
    encoding: 'utf8',
  },
);
assert.equal(guest.stdout.trim(), 'reply', guest.stderr);
for (let n = 0; n < 2; n++) await takeDownNetwork(effects, network);
assert.equal(output('ip', '-o', 'link', 'show').includes(network.tap), false);
assert.equal(output('nft', 'list', 'tables').includes(network.tap), false);
console.log('all went well');

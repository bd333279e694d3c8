/**
 * What `sshfs -o sftp_server=…`, `sftp -s …` and an sshd `Subsystem` start: it joins its standard input and output with the server's
 * socket, and ends when either does. The launcher starts it directly, so that nothing else has to be loaded.
 *
 *     node relay.ts SOCKET
 */
import { connect } from 'node:net';

const path = process.argv[2] ?? '';
const socket = connect({ path, allowHalfOpen: true });
const fail = (what: string) => (error: NodeJS.ErrnoException) => {
  // The client is gone, or the server is: the other side is told by the end of the stream.
  if (error.code === 'EPIPE' || error.code === 'ECONNRESET') process.exit(0);
  process.stderr.write(`gate sftp: ${what}: ${error.message}\n`);
  process.exit(1);
};
socket.on('error', fail(path));
process.stdin.on('error', fail('input'));
process.stdout.on('error', fail('output'));
process.stdin.pipe(socket);
socket.pipe(process.stdout);
socket.on('end', () => process.stdout.write('', () => process.exit(0)));

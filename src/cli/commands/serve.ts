/** `gate serve`: joins its input and output to the socket of a view, for `gate mount --remote-command`. */
import { connect } from 'node:net';
import type { Command } from 'commander';
import { CliError, type Context } from '../context.ts';
import { resolved } from '../locate.ts';
import { REMOTE_SOCKET } from '../remote.ts';

export function register(command: Command, context: Context, finish: (status: number) => void): void {
  command
    .option('--socket <FILE>', `where the view serves (gate mount --serve; default: ${REMOTE_SOCKET})`)
    .action(async (flags: { socket?: string }) => {
      const path = flags.socket === undefined ? REMOTE_SOCKET : resolved(context, flags.socket);
      await new Promise<void>((done, failed) => {
        const socket = connect(path);
        socket.on('error', (error) =>
          failed(new CliError(`nobody serves a view at ${path}: ${error.message}`)),
        );
        socket.on('connect', () => {
          process.stdin.pipe(socket);
          socket.pipe(process.stdout);
        });
        socket.on('close', () => done());
      });
      finish(0);
      process.exit(0);
    });
}

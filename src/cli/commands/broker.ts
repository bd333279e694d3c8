import type { Command } from 'commander';
import { createLogger } from '../../base/log.ts';
import { startBroker } from '../../broker/index.ts';
import { CliError, type Context } from '../context.ts';
import { groupId } from '../groups.ts';
import { stateToUse } from '../locate.ts';
import { addOptions, BROKER_OPTIONS, givenOptions, readConfig, settingsOf } from '../options.ts';
import { onSignals, tellReady } from '../service.ts';

export function register(command: Command, context: Context, finish: (status: number) => void): void {
  command
    .option('--state-dir <DIR>', 'where the broker keeps its state [GATE_STATE_DIR]')
    .option('--foreground', 'the only way it runs')
    .option('--ready-fd <FD>', 'write one line of JSON there when it answers');
  addOptions(command, BROKER_OPTIONS).action(async (flags: Record<string, string | undefined>) => {
    const files = stateToUse(context, flags.stateDir);
    const given = givenOptions(BROKER_OPTIONS, flags, context.env, readConfig(files.config));
    const settings = settingsOf(BROKER_OPTIONS, given);
    const log = createLogger('broker', settings.logLevel, context.stderrIsTerminal);
    const broker = await startBroker({
      stateDir: files.dir,
      host: settings.host,
      port: settings.port,
      portExplicit: settings.port !== undefined,
      socketPath: settings.socket,
      socketGroup: groupId(settings.socketGroup ?? (context.uid === 0 ? context.env.SUDO_GID : undefined)),
      auth: settings.auth,
      durability: settings.durability,
      sessionTtlMs: settings.sessionTtlMs,
      defaultLeaseMs: settings.leaseMs,
      maxHoldWriteMs: settings.maxHoldMs,
      maxHoldReadMs: settings.maxReadHoldMs,
      acquireTimeoutMs: settings.acquireTimeoutMs,
      log,
    });
    onSignals(() => void broker.close());
    log.info(`answers at ${broker.url} and ${broker.socketPath}`);
    tellReady(flags.readyFd, { url: broker.url, socket: broker.socketPath });
    const stopped = await broker.stopped;
    if (stopped) throw new CliError(`the broker stopped: ${stopped.message}`);
    log.info('stopped');
    finish(0);
  });
}

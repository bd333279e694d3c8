/** Taking a machine down, from whatever state: first its door, then its VMM. */
import { alone, deleteMachine, stopMachine } from '../../vm/lifecycle.ts';
import { readMachine, stateOf, writeMachine } from '../../vm/machine.ts';
import type { Context } from '../context.ts';
import { closeDoor } from './door.ts';
import { type FoundMachine, type HostFlags, makeHost, told } from './host.ts';

/** Ends it; with `forget` nothing stays of it. Its image stays in either case. */
export async function takeDownMachine(
  context: Context,
  flags: HostFlags,
  machine: FoundMachine,
  forget: boolean,
): Promise<void> {
  const host = makeHost(context, { ...flags, vmDir: machine.vmDir }, machine.stateDir);
  const { effects, journal } = host;
  const { files, name } = machine;
  await told(() =>
    alone(host, files, async () => {
      const record = readMachine(files);
      if (record?.door) {
        if (effects.dry) effects.remove(record.door.mount);
        else await closeDoor(record.door);
        const { door: _closed, ...rest } = record;
        writeMachine(effects, files, rest);
      }
      const before = stateOf(record);
      await journal.step('stop the virtual machine', async () => {
        const how = await stopMachine(host, files, record);
        return { value: undefined, said: before === 'running' ? `${name} is ${how}` : null };
      });
      if (forget) {
        await deleteMachine(host, files);
        journal.note(`${name} is deleted`);
      }
    }),
  );
}

/** Firecracker's API: HTTP with JSON over its Unix socket. */
import { request } from 'node:http';
import { VmError } from '../errors.ts';
import type { ApiCall } from './config.ts';

const CALL_MS = 10_000;
const ANSWER_BYTES_MAX = 64 * 1024;

/** One PUT. Throws a VmError with Firecracker's own `fault_message`. */
export function put(socket: string, { path, body }: ApiCall): Promise<void> {
  const text = JSON.stringify(body);
  return new Promise((resolve, reject) => {
    const fail = (why: string) => reject(new VmError(`Firecracker, PUT ${path}: ${why}`));
    const call = request(
      {
        socketPath: socket,
        method: 'PUT',
        path,
        timeout: CALL_MS,
        headers: {
          'Content-Type': 'application/json',
          Accept: 'application/json',
          'Content-Length': Buffer.byteLength(text),
        },
      },
      (response) => {
        let answer = '';
        response.setEncoding('utf8');
        response.on('data', (chunk: string) => {
          answer += chunk;
          if (answer.length > ANSWER_BYTES_MAX) call.destroy(new Error('its answer is too long'));
        });
        response.on('end', () => {
          const status = response.statusCode ?? 0;
          if (status >= 200 && status < 300) resolve();
          else fail(faultIn(answer) ?? `status ${status}`);
        });
      },
    );
    call.on('timeout', () => call.destroy(new Error(`no answer in ${CALL_MS / 1000} s`)));
    call.on('error', (error) => fail(error.message));
    call.end(text);
  });
}

function faultIn(answer: string): string | undefined {
  try {
    const { fault_message: fault } = JSON.parse(answer) as { fault_message?: unknown };
    return typeof fault === 'string' ? fault : undefined;
  } catch {
    return answer.trim() || undefined;
  }
}

/** The HTTP routes. Names and shapes are the ancestor's, with more fields; see docs for the list. */
import Fastify, { type FastifyInstance, type FastifyReply, type FastifyRequest } from 'fastify';
import { GateError } from '../base/errors.ts';
import type { Door, Gatekeeper } from './auth.ts';
import { describeStatus, describeWaits, httpQueueEntry } from './describe.ts';
import { historyOf } from './events.ts';
import type { HttpLocks } from './http-locks.ts';
import {
  acquireBody,
  breakBody,
  eventsQuery,
  heartbeatBody,
  historyQuery,
  parse,
  releaseBody,
  statusQuery,
} from './http-schema.ts';
import type { OpParts } from './ops.ts';
import { streamEvents } from './sse.ts';
import type { BrokerInfo } from './wire.ts';

export interface HttpParts extends OpParts {
  readonly locks: HttpLocks;
  readonly gatekeeper: Gatekeeper;
  readonly doorOf: (request: FastifyRequest) => Door;
  readonly info: () => BrokerInfo;
}

const HISTORY_LIMIT = 1000;
const CORE_ERRORS: Partial<Record<string, string>> = {
  invalid_request: 'invalid request',
  owner_mismatch: 'owner mismatch',
};

/** The JSON of a refusal: `error` in the ancestor's words, `code` and `hint` of the registry, `field` where one is wrong. */
export function errorBody(error: GateError, subject = ''): Record<string, unknown> {
  const words =
    error.code === 'not_found'
      ? `${subject}not found`
      : (CORE_ERRORS[error.code] ?? error.code.replaceAll('_', ' '));
  return { error: words, code: error.code, message: error.message, hint: error.hint, ...error.details };
}

/** Fastify's own refusals, in our words. */
function gateError(error: unknown): GateError {
  if (error instanceof GateError) return error;
  const { code, statusCode, message } = error as { code?: string; statusCode?: number; message: string };
  if (code === 'FST_ERR_CTP_BODY_TOO_LARGE')
    return new GateError('too_large', 'body: it is over the limit', { field: 'body' });
  if (statusCode !== undefined && statusCode >= 400 && statusCode < 500)
    return new GateError('invalid_request', `body: ${message}`, { field: 'body' });
  return new GateError('internal', `The broker failed: ${message}`);
}

export function createHttp(parts: HttpParts): FastifyInstance {
  const { state, gatekeeper } = parts;
  const { limits, log } = state.parts.settings;
  const app = Fastify({
    bodyLimit: limits.bodyBytes,
    logger: false,
    exposeHeadRoutes: false,
    // The doors are servers of our own (doors.ts).
    forceCloseConnections: true,
  });
  app.removeAllContentTypeParsers();
  // curl says application/x-www-form-urlencoded; what counts is that it is JSON.
  app.addContentTypeParser('*', { parseAs: 'string' }, (_request, text, done) => {
    try {
      done(null, text === '' ? {} : JSON.parse(text as string));
    } catch {
      done(new GateError('invalid_request', 'body: it is not JSON', { field: 'body' }));
    }
  });
  app.addHook('onRequest', async (request) => {
    if (request.url !== '/healthz') gatekeeper.admit(request.raw, parts.doorOf(request));
  });
  app.setErrorHandler((thrown, request, reply) => {
    const error = gateError(thrown);
    if (error.code === 'internal')
      log.error('a request failed', { url: request.url, error: String((thrown as Error).stack) });
    const subject = request.url.startsWith('/v1/locks/') ? 'lock ' : '';
    return reply.code(error.status).send(errorBody(error, subject));
  });
  app.setNotFoundHandler((request, reply) =>
    reply
      .code(404)
      .send(errorBody(new GateError('not_found', `There is no ${request.method} ${request.url}.`))),
  );
  lockRoutes(app, parts);
  watchRoutes(app, parts);
  return app;
}

function lockRoutes(app: FastifyInstance, { locks, state, volumes, delegations, doorOf }: HttpParts): void {
  app.post('/v1/locks/acquire', (request, reply) => {
    const body = parse(acquireBody, request.body);
    const host = doorOf(request) === 'tcp' ? request.ip : undefined;
    return locks.acquire(body, reply, host === undefined ? {} : { host });
  });
  app.post('/v1/locks/release', (request) => {
    const { lock_id, owner } = parse(releaseBody, request.body);
    return locks.release(lock_id, owner);
  });
  app.post('/v1/locks/heartbeat', (request) => {
    const { lock_id, owner, lease_ms } = parse(heartbeatBody, request.body);
    return locks.heartbeat(lock_id, owner, lease_ms);
  });
  app.post('/v1/locks/break', (request) => locks.break(parse(breakBody, request.body).lock_id));
  app.get('/v1/locks/status', async (request) => {
    const { path, volume, scope } = parse(statusQuery, request.query);
    const key = volumes.keyOf('path', path, volume);
    const shown = (one: string) => (one === key.path ? path : one);
    const tree = scope === 'tree';
    const delegated = await delegations.holdsIn(key.volume, {
      path: key.path,
      scope: tree ? 'tree' : 'file',
    });
    const { holds, queue } = describeStatus(state, key.volume, key.path, tree, delegated);
    return {
      locks: holds.flatMap((info) => {
        const hold = state.parts.core.hold(info.lockId);
        return hold ? [locks.lockOf(hold, shown)] : [];
      }),
      queue: queue.map((wait) => httpQueueEntry(wait, locks, shown)),
    };
  });
  app.get('/v1/locks/waits', () => ({
    waits: describeWaits(state).map((wait) => httpQueueEntry(wait, locks, (path) => path)),
  }));
}

function watchRoutes(app: FastifyInstance, parts: HttpParts): void {
  const { state, volumes, sessions, hub } = parts;
  app.get('/v1/events', (request, reply: FastifyReply) => {
    const { volume } = parse(eventsQuery, request.query);
    streamEvents(state, hub, reply, volume);
  });
  app.get('/v1/history', (request) => {
    const { path, volume, limit } = parse(historyQuery, request.query);
    const key = path === undefined ? { volume, path } : volumes.keyOf('path', path, volume);
    return {
      events: historyOf(
        state.parts.store,
        key.volume,
        key.path,
        Math.min(limit ?? HISTORY_LIMIT, state.parts.settings.limits.historyEvents),
      ),
    };
  });
  app.get('/v1/volumes', () => ({ volumes: volumes.list() }));
  app.get('/v1/info', () => ({
    ...parts.info(),
    sessions: sessions.list().map(({ id, client, startedAtMs, outlet }) => ({
      id,
      client,
      started_at: parts.locks.seconds(startedAtMs),
      connected: outlet !== undefined,
    })),
    holds: state.parts.metrics.holds,
    waiters: state.waiterCount,
  }));
  app.get('/healthz', () => ({ status: 'ok' }));
  app.get('/metrics', async (_request, reply) => {
    const { registry } = state.parts.metrics;
    reply.header('content-type', registry.contentType);
    return registry.metrics();
  });
}

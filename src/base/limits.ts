/** Every queue, frame, path and cache has its limit here, by name. Each has a test that reaches it. */
export const LIMITS = {
  /** Bytes of a path below a volume's root. More than PATH_MAX: a relative path may be that long by itself, at any depth. */
  pathBytes: 16_384,
  /** Bytes of one name. NAME_MAX, limits.h. */
  nameBytes: 255,
  /** Targets of one request. */
  targetsPerRequest: 64,
  /** Requests that wait for one key. */
  waitersPerKey: 20_000,
  /** Locks and waiting requests of one session. */
  locksPerSession: 2_000_000,
  /** Characters of an owner, a request id, a session id. */
  idChars: 512,
  /** Characters of a reason, a command line, a note. */
  textChars: 1024,
  /** Bytes of one HTTP body. */
  bodyBytes: 64 * 1024,
  /** Bytes of one frame of the session protocol. */
  frameBytes: 4 * 1024 * 1024,
  /** Sessions of one broker. */
  sessions: 10_000,
  /** Answers and pushes that may be queued, in bytes, for a client that does not read. */
  outboxBytes: 64 * 1024 * 1024,
  /** Events, in bytes, that may be queued for a subscriber who does not read; further ones are left out, with a gap marker. */
  eventsOutboxBytes: 1024 * 1024,
  /** Regions of a delegated volume that are with the broker; beyond it the whole volume comes back. */
  delegationRegions: 20_000,
  /** Fencing tokens that a delegate gets with the delegation and with what is given back: 2^53 is ninety million times away. */
  delegateTokens: 100_000_000,
  /** Tickets and fencing tokens that the broker draws at once, and that a restart may skip. */
  counterBlock: 1_000_000,
  /**
   * Milliseconds that a view may take to look at what was granted before it opens the file. Later it asks again, because names may have
   * changed through another view.
   */
  admitMs: 10_000,
  /** Unclean paths of one volume; beyond it the whole volume is. */
  uncleanPaths: 4096,
  /** Events that the broker keeps. */
  historyEvents: 100_000,
} as const;

export { MemoryDisk, MemoryStore } from './memory/index.ts';
export { SqliteStore } from './sqlite/index.ts';
export type { Batch, SessionRow, Store, StoredEvent, TableName, Tables, VolumeRow } from './types.ts';

/**
 * The measuring loops of scripts/bench: `node bench-loop.ts DIR BUDGET_MS [ROW,…]`. Runs in a process of its own that is no
 * part of Gate and imports nothing of it. Prints one JSON object: nanoseconds for each operation.
 */
import {
  closeSync,
  mkdirSync,
  openSync,
  readSync,
  rmSync,
  statSync,
  unlinkSync,
  writeFileSync,
  writeSync,
} from 'node:fs';

const [dir = '.', budget = '100', rows = ''] = process.argv.slice(2);
const budgetMs = Number(budget);
const MiB = 1024 * 1024;
const FILE_MIB = 32;
const FILES = 200;

/** Nanoseconds for each of the `count` operations of a batch; batches are repeated until the time is used up. */
function measure(count: number, batch: () => void): number {
  batch();
  let done = 0;
  let totalNs = 0;
  const end = performance.now() + budgetMs;
  do {
    const start = process.hrtime.bigint();
    batch();
    totalNs += Number(process.hrtime.bigint() - start);
    done += count;
  } while (performance.now() < end);
  return totalNs / done;
}

/** As `measure`, with work after each batch that does not count. */
function measureThen(count: number, batch: () => void, after: () => void): number {
  let done = 0;
  let totalNs = 0;
  const end = performance.now() + budgetMs;
  do {
    const start = process.hrtime.bigint();
    batch();
    totalNs += Number(process.hrtime.bigint() - start);
    done += count;
    after();
  } while (performance.now() < end);
  return totalNs / done;
}

const place = `${dir}/loop`;
rmSync(place, { recursive: true, force: true });
mkdirSync(place);
const names = Array.from({ length: FILES }, (_, i) => `${place}/file-${i}`);
for (const name of names) writeFileSync(name, 'x');
const big = `${place}/big`;
const mebibyte = Buffer.alloc(MiB, 1);
const page = Buffer.alloc(4096, 2);

function withFile(flags: string, work: (fd: number) => void): void {
  const fd = openSync(big, flags);
  try {
    work(fd);
  } finally {
    closeSync(fd);
  }
}

const created = Array.from({ length: FILES }, (_, i) => `${place}/new-${i}`);
const loops: Record<string, () => number> = {
  openClose: () =>
    measure(FILES, () => {
      for (const name of names) closeSync(openSync(name, 'r'));
    }),
  openCloseWrite: () =>
    measure(FILES, () => {
      for (const name of names) closeSync(openSync(name, 'r+'));
    }),
  create: () =>
    measureThen(
      FILES,
      () => {
        for (const name of created) closeSync(openSync(name, 'wx'));
      },
      () => {
        for (const name of created) unlinkSync(name);
      },
    ),
  stat: () =>
    measure(FILES, () => {
      for (const name of names) statSync(name);
    }),
  writeMiB: () =>
    measure(FILE_MIB, () =>
      withFile('w', (fd) => {
        for (let i = 0; i < FILE_MIB; i++) writeSync(fd, mebibyte);
      }),
    ),
  readMiB: () =>
    measure(FILE_MIB, () =>
      withFile('r', (fd) => {
        while (readSync(fd, mebibyte) > 0);
      }),
    ),
  write4k: () =>
    measure(1024, () =>
      withFile('r+', (fd) => {
        for (let i = 0; i < 1024; i++) writeSync(fd, page, 0, 4096, i * 4096);
      }),
    ),
  read4k: () =>
    measure(1024, () =>
      withFile('r', (fd) => {
        for (let i = 0; i < 1024; i++) readSync(fd, page, 0, 4096, i * 4096);
      }),
    ),
};

const wanted = rows === '' ? Object.keys(loops) : rows.split(',');
writeFileSync(big, Buffer.alloc(FILE_MIB * MiB, 1));
const results: Record<string, number> = {};
for (const [key, loop] of Object.entries(loops)) if (wanted.includes(key)) results[key] = loop();
rmSync(place, { recursive: true, force: true });
console.log(JSON.stringify(results));

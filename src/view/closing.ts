import * as sys from '../sys/index.ts';
import type { Handle } from './handle.ts';
import type { View } from './view.ts';

/** Looks within RELEASE itself: the kernel may put the file below a moment after it tells us. */
const PROBES_AT_ONCE = 10;
const AGAIN_MS_MIN = 1;
const AGAIN_MS_MAX = 1000;

/**
 * After the last close of a handle that wrote. A file mapped writable and then closed keeps being written without
 * a handle (with passthrough RELEASE comes at close), so a read lease is tried on it: it is refused exactly while
 * anybody has the file open or mapped for writing (fcntl(2), F_SETLEASE). While it is refused the lock stays.
 */
export class Closing {
  readonly #view: View;
  readonly #handle: Handle;
  #againMs = AGAIN_MS_MIN;

  constructor(view: View, handle: Handle) {
    this.#view = view;
    this.#handle = handle;
  }

  start(): void {
    const node = this.#handle.node;
    const { grant } = this.#handle;
    const needed = this.#view.options.passthrough && grant !== null && node.nlink > 0;
    if (!needed) return this.#view.closed(this.#handle);
    for (let i = 0; i < PROBES_AT_ONCE; i++) if (!this.#busy()) return this.#view.closed(this.#handle);
    node.lookups++; // the node stays while its lock does
    node.closing.add(this.#handle);
    this.#wait();
  }

  #wait(): void {
    this.#view.clock.after(this.#againMs, () => {
      const node = this.#handle.node;
      if (this.#busy()) {
        this.#againMs = Math.min(this.#againMs * 2, AGAIN_MS_MAX);
        this.#wait();
        return;
      }
      node.closing.delete(this.#handle);
      this.#view.closed(this.#handle);
      this.#view.tree.forget(node, 1);
    });
  }

  /** True while somebody has it open or mapped for writing. Where leases do not work nothing can be said: false. */
  #busy(): boolean {
    const node = this.#handle.node;
    // Writers that the same actor still has open are no reason to keep this handle's count.
    for (const other of node.handles) if (other.writes) return false;
    const fd = this.#view.reopen(node, sys.O_RDONLY | sys.O_NONBLOCK);
    if (fd < 0) return false;
    const code = sys.fcntl(fd, sys.F_SETLEASE, sys.F_RDLCK);
    // That ends the lease, too.
    sys.close(fd);
    return code === -sys.EAGAIN;
  }
}

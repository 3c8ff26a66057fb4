// Waits between attempts, and what an end asks of the client.

const leastMs = 200;
const mostMs = 30_000;

/**
 * Doubles the wait with each failure and draws half of it, so that clients which
 * lost the same server do not come back together.
 */
export class Waits {
  #fullMs = 0;

  /** An acknowledgement has come. */
  reset(): void {
    this.#fullMs = 0;
  }

  /** Milliseconds to wait; askedMs is the least that the server wants. */
  next(askedMs = 0): number {
    this.#fullMs = Math.min(mostMs, Math.max(leastMs, 2 * this.#fullMs));
    const wait = this.#fullMs * (0.5 + Math.random() / 2);
    return Math.max(wait, askedMs * (1 + Math.random() / 4));
  }
}

/** Lets any number wait for the next change. */
export class Changes {
  #waiting: (() => void)[] = [];

  /** Something has changed: those who wait go on. */
  notify(): void {
    const waiting = this.#waiting;
    this.#waiting = [];
    for (const wake of waiting) wake();
  }

  /** Resolves at the next change. */
  next(): Promise<void> {
    return new Promise((resolve) => this.#waiting.push(resolve));
  }
}

/** Resolves after so many milliseconds, or when the signal is aborted. */
export function sleep(ms: number, signal?: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    if (signal?.aborted) return resolve();
    const timer = setTimeout(resolve, ms);
    signal?.addEventListener('abort', () => (clearTimeout(timer), resolve()), { once: true });
  });
}

/** A status with its typed details, from gRPC or JSON. */
export interface Status {
  code: number;
  /** google.rpc.ErrorInfo's reason; empty without one. */
  reason: string;
  /** The report on the stream that is at fault, 0 if none is named. */
  reportNumber: number;
  retryDelayMs: number;
}

export type Verdict = 'retry' | 'reject' | 'stop';

// google.rpc.Code
const code = { invalidArgument: 3, notFound: 5, permissionDenied: 7, failedPrecondition: 9, outOfRange: 11, unimplemented: 12, unauthenticated: 16 };

/**
 * What a status asks of the client (docs/driver-protocol.md, Statuses); progress is
 * whether the stream has acknowledged anything.
 */
export function judge(status: Status, progress: boolean): Verdict {
  switch (status.code) {
    case code.invalidArgument:
    case code.outOfRange:
      return 'reject';
    case code.permissionDenied:
    case code.unimplemented:
    case code.failedPrecondition:
    case code.notFound:
      return 'stop';
    case code.unauthenticated:
      return progress || status.reason === 'TOKEN_EXPIRED' || status.reason === 'TOKEN_KEY_REMOVED' ? 'retry' : 'stop';
    default:
      return 'retry';
  }
}

// The protocol over JSON and HTTP, for browsers (and whatever else has fetch): one
// report a call, and a vehicle watched by server-sent events with a token.

import { type FixRefusal, type Handlers, type NumberedReport, type Report, Numbers } from './report.js';
import { Changes, type Status, Waits, judge, sleep } from './waits.js';

export type { Fix, FixRefusal, Handlers, NumberedReport, Report } from './report.js';

export interface Options extends Handlers {
  /** Where JSON is served, such as https://starling.example. */
  base: string;
  /** Gives a bearer token for each call. */
  token?: () => string | Promise<string>;
  /** Longest wait for an answer. */
  ackTimeoutMs?: number;
  maxPending?: number;
}

/** A failure that the server has stated, as docs/json.md has it. */
export class StatusError extends Error {
  constructor(readonly status: Status, message: string) {
    super(message);
  }
}

/** Sending again can't help: the app must be mended, or log in anew. */
export class StoppedError extends Error {}

/** Delivers reports one after the other, each until it is acknowledged. */
export class JsonReporter {
  readonly #options: Options;
  readonly #numbers = new Numbers();
  readonly #running: Promise<void>;
  readonly #queue: NumberedReport[] = [];
  #closing = false;
  #stopped: StoppedError | undefined;
  #changes = new Changes();

  constructor(options: Options) {
    this.#options = options;
    this.#running = this.#run().catch((error: Error) => {
      this.#stopped = new StoppedError(`${this.#queue.length} reports are not acknowledged: ${error.message}`, { cause: error });
    }).finally(() => this.#changes.notify());
  }

  /** Numbers a report and queues it; waits while the queue is full. */
  async send(report: Report): Promise<void> {
    while (this.#queue.length >= (this.#options.maxPending ?? 8192) && !this.#stopped) await this.#changes.next();
    if (this.#stopped) throw this.#stopped;
    if (this.#closing) throw new Error('the reporter is closed');
    this.#queue.push(this.#numbers.number(report));
    this.#changes.notify();
  }

  /** How many reports are not acknowledged. */
  get pending(): number {
    return this.#queue.length;
  }

  /** Resolves when everything is acknowledged; rejects with StoppedError if that can't be. */
  async close(): Promise<void> {
    this.#closing = true;
    this.#changes.notify();
    await this.#running;
    if (this.#stopped) throw this.#stopped;
  }

  async #run(): Promise<void> {
    const waits = new Waits();
    for (;;) {
      const [report] = this.#queue;
      if (!report) {
        if (this.#closing) return;
        await this.#changes.next();
        continue;
      }
      try {
        await this.#call(report);
        waits.reset();
        this.#queue.shift();
        this.#changes.notify();
      } catch (error) {
        const status = error instanceof StatusError ? error.status : unknown;
        switch (judge(status, false)) {
          case 'stop':
            throw error;
          case 'reject':
            this.#queue.shift();
            this.#changes.notify();
            this.#options.onRejected?.(report, error as Error);
            continue;
          case 'retry': {
            const wait = waits.next(status.retryDelayMs);
            this.#options.onBroken?.(error as Error, wait);
            await sleep(wait);
          }
        }
      }
    }
  }

  async #call(report: NumberedReport): Promise<void> {
    const response = await fetch(`${this.#options.base}/v1/reports:send`, {
      method: 'POST',
      headers: { 'Content-Type': 'application/json', ...(await authorization(this.#options.token)) },
      body: JSON.stringify({ report }),
      signal: AbortSignal.timeout(this.#options.ackTimeoutMs ?? 30_000),
    });
    if (!response.ok) throw await failure(response);
    const answer = (await response.json()) as { acknowledgedSequence?: string; refusals?: FixRefusal[] };
    if (String(answer.acknowledgedSequence) !== report.sequence) throw new Error(`the server acknowledged ${answer.acknowledgedSequence}, not ${report.sequence}`);
    for (const refusal of answer.refusals ?? []) this.#options.onRefused?.(refusal);
  }
}

async function authorization(token: Options['token']): Promise<Record<string, string>> {
  return token ? { Authorization: `Bearer ${await token()}` } : {};
}

const unknown: Status = { code: 2, reason: '', reportNumber: 0, retryDelayMs: 0 };

/** Reads a google.rpc.Status. What is none, a proxy has answered: it says nothing for good. */
async function failure(response: Response): Promise<StatusError> {
  const said = await response.json().catch(() => ({})) as { code?: number; message?: string; details?: Record<string, unknown>[] };
  return new StatusError(statusOf(said), said.message ?? `HTTP status ${response.status}`);
}

function statusOf(said: { code?: number; details?: Record<string, unknown>[] }): Status {
  const status: Status = { ...unknown, code: said.code ?? unknown.code };
  for (const detail of said.details ?? []) {
    if (String(detail['@type']).endsWith('/google.rpc.ErrorInfo')) status.reason = String(detail.reason ?? '');
    if (String(detail['@type']).endsWith('/google.rpc.RetryInfo')) status.retryDelayMs = Number.parseFloat(String(detail.retryDelay ?? '0s')) * 1000;
  }
  return status;
}

/** A vehicle after a change; docs/json.md and openapi.json have its fields. */
export interface VehicleChange {
  vehicle?: { name: string; [field: string]: unknown };
  unknown?: boolean;
  stale?: boolean;
  resumeToken?: string;
  resumed?: boolean;
}

/**
 * Follows one vehicle by server-sent events, and goes on where it was when the
 * connection breaks. EventSource can't send a token; fetch can. It ends when the
 * signal is aborted, or throws when the server says that trying again can't help.
 */
export async function* watchVehicle(options: Pick<Options, 'base' | 'token' | 'onBroken'>, vehicleId: string, signal?: AbortSignal): AsyncGenerator<VehicleChange> {
  const waits = new Waits();
  let resumeToken = '';
  while (!signal?.aborted) {
    let status = unknown;
    let error = new Error('the watch has ended');
    try {
      const query = resumeToken ? `?resumeToken=${encodeURIComponent(resumeToken)}` : '';
      const response = await fetch(`${options.base}/v1/vehicles/${encodeURIComponent(vehicleId)}:watch${query}`, {
        headers: { Accept: 'text/event-stream', ...(await authorization(options.token)) },
        ...(signal ? { signal } : {}),
      });
      if (!response.ok) throw await failure(response);
      for await (const data of events(response.body as ReadableStream<Uint8Array>)) {
        const message = JSON.parse(data) as { result?: VehicleChange; error?: { code?: number; message?: string } };
        if (message.error) throw new StatusError(statusOf(message.error), message.error.message ?? '');
        if (!message.result) continue;
        waits.reset();
        resumeToken = message.result.resumeToken ?? resumeToken;
        yield message.result;
      }
    } catch (caught) {
      if (signal?.aborted) return;
      error = caught as Error;
      if (caught instanceof StatusError) status = caught.status;
      if (judge(status, false) !== 'retry') throw caught;
    }
    const wait = waits.next(status.retryDelayMs);
    options.onBroken?.(error, wait);
    await sleep(wait, signal);
  }
}

/** The data of server-sent events. */
async function* events(body: ReadableStream<Uint8Array>): AsyncGenerator<string> {
  const reader = body.getReader();
  const decoder = new TextDecoder();
  let rest = '';
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      const lines = (rest + decoder.decode(value, { stream: true })).split('\n');
      rest = lines.pop() ?? '';
      for (const line of lines) if (line.startsWith('data:')) yield line.slice(5).trim();
    }
  } finally {
    await reader.cancel().catch(() => {});
  }
}

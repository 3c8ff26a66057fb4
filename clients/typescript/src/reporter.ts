// The driver app's side of the protocol over gRPC streams, for Node.

import { ChannelCredentials, Client, ClientDuplexStream, Metadata, credentials, loadPackageDefinition, type ServiceClientConstructor } from '@grpc/grpc-js';
import { loadSync } from '@grpc/proto-loader';
import { webcrypto } from 'node:crypto';
import { fileURLToPath } from 'node:url';

import { statusOf } from './details.js';
import { type FixRefusal, type Handlers, type NumberedReport, type Report, Numbers, maxUnacknowledged } from './report.js';
import { Changes, Waits, judge, sleep } from './waits.js';

export type { Fix, FixRefusal, Handlers, NumberedReport, Report } from './report.js';

export interface Options extends Handlers {
  /** host:port of ingest's gRPC server. */
  address: string;
  /** Without credentials there is no TLS: for loopback and tests. */
  credentials?: ChannelCredentials;
  /** Gives a bearer token for each stream. */
  token?: () => string | Promise<string>;
  /** Longest wait for an acknowledgement before a stream is given up. */
  ackTimeoutMs?: number;
  /** Reports in the queue beyond which send waits. */
  maxPending?: number;
  /** The folder with starling/v1/ingest.proto. */
  protos?: string;
}

globalThis.crypto ??= webcrypto as Crypto; // Node 18 has no global one

interface StreamResponse {
  acknowledgedReports?: string;
  refusals?: FixRefusal[];
}
type Stream = ClientDuplexStream<{ report: NumberedReport }, StreamResponse>;

/** Sending again can't help: the app must be mended, or log in anew. */
export class StoppedError extends Error {}

/**
 * Delivers reports of one or several vehicles over one stream at a time, and keeps
 * each until it is acknowledged.
 */
export class Reporter {
  readonly #options: Options;
  readonly #client: Client & { StreamReports(metadata: Metadata): Stream };
  readonly #ackTimeoutMs: number;
  readonly #maxPending: number;
  readonly #numbers = new Numbers();
  readonly #running: Promise<void>;
  #queue: NumberedReport[] = []; // unacknowledged, oldest first
  #onStream = 0; // how many of them, from the oldest, are on the stream
  #acked = 0; // how many the stream has acknowledged
  #closing = false;
  #stopped: StoppedError | undefined;
  #pump: () => void = () => {}; // sends what may be sent
  #changes = new Changes();

  constructor(options: Options) {
    this.#options = options;
    this.#ackTimeoutMs = options.ackTimeoutMs ?? 30_000;
    this.#maxPending = options.maxPending ?? 8192;
    if (!(this.#ackTimeoutMs > 0) || !(this.#maxPending > 0)) throw new RangeError('ackTimeoutMs and maxPending must be positive');
    const protos = options.protos ?? fileURLToPath(new URL('../../../schemas/proto', import.meta.url));
    const definition = loadSync('starling/v1/ingest.proto', { includeDirs: [protos], longs: String, enums: String });
    const { starling } = loadPackageDefinition(definition) as unknown as { starling: { v1: { IngestService: ServiceClientConstructor } } };
    this.#client = new starling.v1.IngestService(options.address, options.credentials ?? credentials.createInsecure(), {
      // Mobile networks forget connections without telling.
      'grpc.keepalive_time_ms': 30_000,
      'grpc.keepalive_timeout_ms': 10_000,
      // The reporter waits between attempts; the channel need not be slower.
      'grpc.initial_reconnect_backoff_ms': 100,
      'grpc.max_reconnect_backoff_ms': 5_000,
    }) as unknown as Client & { StreamReports(metadata: Metadata): Stream };
    this.#running = this.#run().catch((error: Error) => {
      this.#stopped = error instanceof StoppedError ? error : new StoppedError(error.message, { cause: error });
    }).finally(() => this.#changes.notify());
  }

  /** Numbers a report and queues it; waits while the queue is full. */
  async send(report: Report): Promise<void> {
    while (this.#queue.length >= this.#maxPending && !this.#stopped) await this.#changes.next();
    if (this.#stopped) throw this.#stopped;
    if (this.#closing) throw new Error('the reporter is closed');
    this.#queue.push(this.#numbers.number(report));
    this.#changes.notify();
    this.#pump();
  }

  /** How many reports are not acknowledged. */
  get pending(): number {
    return this.#queue.length;
  }

  /** Resolves when everything is acknowledged; rejects with StoppedError if that can't be. */
  async close(): Promise<void> {
    this.#closing = true;
    this.#changes.notify();
    this.#pump();
    await this.#running;
    this.#client.close();
    if (this.#stopped) throw this.#stopped;
  }

  async #run(): Promise<void> {
    const waits = new Waits();
    for (;;) {
      while (this.#queue.length === 0) {
        if (this.#closing) return;
        await this.#changes.next();
      }
      const error = await this.#stream();
      if (this.#queue.length === 0) continue;
      if (this.#acked > 0) waits.reset();
      const status = statusOf(error);
      switch (judge(status, this.#acked > 0)) {
        case 'stop':
          throw new StoppedError(`${this.#queue.length} reports are not acknowledged: ${error.message}`, { cause: error });
        case 'reject':
          this.#reject(status.reportNumber, error);
          continue;
        case 'retry': {
          const wait = waits.next(status.retryDelayMs);
          this.#options.onBroken?.(error, wait);
          await sleep(wait);
        }
      }
    }
  }

  /** Opens a stream and works on it until it ends; resolves with why. */
  async #stream(): Promise<Error> {
    const metadata = new Metadata();
    if (this.#options.token) metadata.set('authorization', `Bearer ${await this.#options.token()}`);
    this.#onStream = this.#acked = 0;
    return new Promise((resolve) => {
      const call = this.#client.StreamReports(metadata);
      let ackedAt = Date.now();
      const watch = setInterval(() => {
        if ((this.#onStream > 0 || this.#closing) && Date.now() - ackedAt > this.#ackTimeoutMs) end(new Error('no acknowledgement in time'));
      }, Math.min(1000, this.#ackTimeoutMs / 4));
      let over = false;
      const end = (why: Error): void => {
        if (over) return;
        over = true;
        clearInterval(watch);
        this.#pump = () => {};
        call.cancel();
        resolve(why);
      };
      call.on('data', (response: StreamResponse) => {
        if (over) return;
        const fault = this.#acknowledge(response);
        if (fault) return end(fault);
        ackedAt = Date.now();
        this.#pump();
      });
      call.on('error', end); // also after end, when it is cancelled
      call.on('end', () => setImmediate(() => end(new Error('the server ended the stream before it had acknowledged everything'))));
      call.on('drain', () => this.#pump());
      let previous: NumberedReport | undefined;
      let halfClosed = false;
      this.#pump = () => {
        while (!call.writableNeedDrain && this.#maySend()) {
          if (this.#onStream === 0) ackedAt = Date.now(); // nothing was waited for before
          const report = this.#queue[this.#onStream++] as NumberedReport;
          call.write({ report: shorten(report, previous) });
          previous = report;
        }
        if (this.#closing && !halfClosed && this.#onStream === this.#queue.length) {
          halfClosed = true;
          call.end();
        }
      };
      this.#pump();
    });
  }

  /** Whether the next report's vehicle has fewer than 64 unacknowledged on the stream. */
  #maySend(): boolean {
    const next = this.#queue[this.#onStream];
    if (!next) return false;
    let unacknowledged = 0;
    for (let i = 0; i < this.#onStream; i++) if (this.#queue[i]?.vehicleId === next.vehicleId) unacknowledged++;
    return unacknowledged < maxUnacknowledged;
  }

  #acknowledge(response: StreamResponse): Error | undefined {
    const acknowledged = Number(response.acknowledgedReports ?? 0);
    const news = acknowledged - this.#acked;
    if (news < 0 || news > this.#onStream) return new Error(`the server acknowledged ${acknowledged} reports, ${this.#acked + this.#onStream} were sent`);
    this.#queue.splice(0, news);
    this.#onStream -= news;
    this.#acked += news;
    for (const refusal of response.refusals ?? []) this.#options.onRefused?.(refusal);
    this.#changes.notify();
    return undefined;
  }

  /** Sets aside the report that the server has named; the others are sent again at once. */
  #reject(number: number, why: Error): void {
    const index = number - this.#acked - 1;
    if (!(index >= 0 && index < this.#onStream)) throw new StoppedError(why.message, { cause: why });
    const [rejected] = this.#queue.splice(index, 1);
    this.#changes.notify();
    this.#options.onRejected?.(rejected as NumberedReport, why);
  }
}

/** A report without the names that the stream's report before it has. */
function shorten(report: NumberedReport, previous: NumberedReport | undefined): NumberedReport {
  if (report.vehicleId !== previous?.vehicleId || report.sessionId !== previous.sessionId) return report;
  const { vehicleId: _v, sessionId: _s, ...rest } = report;
  return rest as NumberedReport;
}

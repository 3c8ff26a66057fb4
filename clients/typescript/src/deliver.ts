// Delivers reports from standard input, one a line as protobuf's JSON: what
// `starling conformance` runs to judge these clients. With --json, by HTTP.

import { createInterface } from 'node:readline';

import { JsonReporter } from './browser.js';
import { type Report, Reporter } from './reporter.js';

const environment = process.env;
const options = {
  ...(environment.STARLING_TOKEN ? { token: () => environment.STARLING_TOKEN as string } : {}),
  ackTimeoutMs: 1000 * Number(environment.STARLING_ACK_TIMEOUT ?? '30'),
  onRefused: (refusal: { description: string }) => console.error('a fix is refused:', refusal.description),
  onRejected: (_: unknown, why: Error) => console.error('a report is rejected:', why.message),
  onBroken: (why: Error, ms: number) => console.error(`broken, again in ${ms.toFixed()} ms:`, why.message),
};
const reporter = process.argv.includes('--json')
  ? new JsonReporter({ ...options, base: environment.STARLING_JSON ?? '' })
  : new Reporter({ ...options, address: environment.STARLING_INGEST ?? '' });
try {
  for await (const line of createInterface({ input: process.stdin })) await reporter.send(JSON.parse(line) as Report);
  await reporter.close();
} catch (error) {
  console.error((error as Error).message);
  process.exitCode = 1;
}

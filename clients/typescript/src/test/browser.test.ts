import assert from 'node:assert/strict';
import { type IncomingMessage, type ServerResponse, createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import test from 'node:test';

import { type VehicleChange, watchVehicle } from '../browser.js';

/** Serves one handler after the other, and returns the requests. */
async function served(t: { after(f: () => void): void }, ...handlers: ((response: ServerResponse) => void)[]): Promise<{ base: string; requests: IncomingMessage[] }> {
  const requests: IncomingMessage[] = [];
  const server = createServer((request, response) => {
    requests.push(request);
    handlers.shift()?.(response);
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  t.after(() => (server.closeAllConnections(), server.close()));
  return { base: `http://127.0.0.1:${(server.address() as AddressInfo).port}`, requests };
}

const event = (change: VehicleChange) => `data: ${JSON.stringify({ result: change })}\n\n`;
const change = (resumeToken: string): VehicleChange => ({ vehicle: { name: 'vehicles/é' }, resumeToken });

test('a watch goes on where it was, with its token', async (t) => {
  const { base, requests } = await served(
    t,
    (response) => {
      // An event in two pieces, cut within a character.
      const bytes = Buffer.from(event(change('one')) + event(change('two')));
      response.writeHead(200, { 'Content-Type': 'text/event-stream' });
      response.write(bytes.subarray(0, 40), () => setImmediate(() => (response.write(bytes.subarray(40)), setTimeout(() => response.destroy(), 50))));
    },
    (response) => response.writeHead(503).end('a proxy says so'),
    (response) => {
      response.writeHead(200, { 'Content-Type': 'text/event-stream' });
      response.write(event(change('three')));
    },
  );
  const seen: (string | undefined)[] = [];
  const broken: string[] = [];
  const stop = new AbortController();
  for await (const got of watchVehicle({ base, token: () => 'secret', onBroken: (why) => broken.push(why.message) }, 'é', stop.signal)) {
    assert.equal(got.vehicle?.name, 'vehicles/é');
    seen.push(got.resumeToken);
    if (seen.length === 3) stop.abort();
  }
  assert.deepEqual(seen, ['one', 'two', 'three']);
  assert.equal(broken.length, 2);
  assert.deepEqual(requests.map((r) => r.url), ['/v1/vehicles/%C3%A9:watch', '/v1/vehicles/%C3%A9:watch?resumeToken=two', '/v1/vehicles/%C3%A9:watch?resumeToken=two']);
  for (const request of requests) {
    assert.equal(request.headers.authorization, 'Bearer secret');
    assert.equal(request.headers.accept, 'text/event-stream');
  }
});

test('a watch that is denied ends', async (t) => {
  const { base, requests } = await served(t, (response) => response.writeHead(403).end(JSON.stringify({ code: 7, message: 'not yours' })));
  await assert.rejects(async () => {
    for await (const _ of watchVehicle({ base }, 'car')) assert.fail();
  }, /not yours/);
  assert.equal(requests.length, 1);
});

test('an error on the stream that trying again can help is tried again', async (t) => {
  const { base } = await served(
    t,
    (response) => response.writeHead(200).end(`data: ${JSON.stringify({ error: { code: 14, message: 'stopping' } })}\n\n`),
    (response) => response.writeHead(200).write(event(change('one'))),
  );
  const stop = new AbortController();
  for await (const got of watchVehicle({ base }, 'car', stop.signal)) {
    assert.equal(got.resumeToken, 'one');
    stop.abort();
  }
});

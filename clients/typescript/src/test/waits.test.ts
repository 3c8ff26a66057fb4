import assert from 'node:assert/strict';
import test from 'node:test';

import { Numbers } from '../report.js';
import '../reporter.js';
import { type Status, Waits, judge } from '../waits.js';

test('waits double up to 30 s, are drawn, and are as long as the server asks', () => {
  const firsts = new Set<number>();
  for (let run = 0; run < 100; run++) {
    const waits = new Waits();
    for (let full = 200; full < 100_000; full *= 2) {
      const wait = waits.next();
      if (full === 200) firsts.add(wait);
      const most = Math.min(full, 30_000);
      assert.ok(wait >= most / 2 && wait <= most, `${wait} of ${most}`);
    }
    const asked = waits.next(60_000);
    assert.ok(asked >= 60_000 && asked <= 75_000);
    waits.reset();
    assert.ok(waits.next() <= 200);
  }
  assert.ok(firsts.size > 50);
});

test('statuses are judged as docs/driver-protocol.md has them', () => {
  const status = (code: number, reason = ''): Status => ({ code, reason, reportNumber: 0, retryDelayMs: 0 });
  assert.equal(judge(status(14), false), 'retry');
  assert.equal(judge(status(8), true), 'retry');
  assert.equal(judge(status(3), false), 'reject');
  for (const code of [5, 7, 9, 12]) assert.equal(judge(status(code), true), 'stop');
  assert.equal(judge(status(16), false), 'stop');
  assert.equal(judge(status(16), true), 'retry');
  assert.equal(judge(status(16, 'TOKEN_EXPIRED'), false), 'retry');
});

test('reports are numbered by vehicle, in one session', () => {
  const numbers = new Numbers();
  const report = { vehicleId: 'a', fixes: [] };
  const [a1, b1, a2] = [numbers.number(report), numbers.number({ vehicleId: 'b' }), numbers.number(report)];
  assert.deepEqual([a1.sequence, b1.sequence, a2.sequence], ['1', '1', '2']);
  assert.equal(a1.sessionId, a2.sessionId);
  assert.notEqual(a1.sessionId, b1.sessionId);
  assert.ok(BigInt(a1.sessionId) > 0n);
  assert.throws(() => numbers.number({ vehicleId: '' }), /vehicleId/);
  assert.throws(() => numbers.number({ vehicleId: 'a', fixes: new Array(1001).fill({}) }), /1001/);
});

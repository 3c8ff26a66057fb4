// Vehicles and dispatchers at the JSON gateway: each vehicle reports once a second,
// each dispatcher searches the nearest ten as fast as it gets answers. Every
// report must be acknowledged, with no fix refused, and every search answered.
//
//   k6 run loadtest/k6/http.js
//   k6 run -e BASE=http://127.0.0.1:7603 -e VEHICLES=500 -e DISPATCHERS=8 -e DURATION=1m loadtest/k6/http.js
import http from 'k6/http';
import { check, sleep } from 'k6';
import exec from 'k6/execution';

const base = __ENV.BASE || 'http://127.0.0.1:7603';
const duration = __ENV.DURATION || '30s';
const periodMs = Number(__ENV.PERIOD_MS || 1000);
const params = (name) => ({ headers: { 'Content-Type': 'application/json' }, tags: { name } });

export const options = {
  scenarios: {
    vehicles: { executor: 'constant-vus', exec: 'vehicle', vus: Number(__ENV.VEHICLES || 100), duration },
    dispatchers: { executor: 'constant-vus', exec: 'dispatcher', vus: Number(__ENV.DISPATCHERS || 4), duration },
  },
  thresholds: {
    checks: ['rate==1'],
    'http_req_duration{name:report}': ['p(99)<250'],
    'http_req_duration{name:nearest}': ['p(99)<250'],
  },
};

// Every virtual user has its own copy of what follows: one vehicle's app.
let sequence = 0;
let lastMs = 0;
let lat = 48.2085 + (Math.random() - 0.5) / 10;
let lon = 16.373 + (Math.random() - 0.5) / 10;
const headingDeg = Math.floor(Math.random() * 360);
// A 64-bit number travels as a string; 53 random bits are enough.
const session = String(1 + Math.floor(Math.random() * Number.MAX_SAFE_INTEGER));

export function vehicle() {
  const begun = Date.now();
  sequence += 1;
  const ms = Math.max(lastMs + 1, begun);
  const metres = lastMs ? (10 * (ms - lastMs)) / 1000 : 0;
  lastMs = ms;
  lat += (metres * Math.cos((headingDeg * Math.PI) / 180)) / 111195;
  lon += (metres * Math.sin((headingDeg * Math.PI) / 180)) / (111195 * Math.cos((lat * Math.PI) / 180));
  const fix = { deviceTimeMs: String(ms), latitude: lat, longitude: lon, accuracyM: 5, speedMps: 10, headingDeg };
  const report = { vehicleId: `k6-${exec.vu.idInTest}`, sessionId: session, sequence: String(sequence), fixes: [fix] };
  const response = http.post(`${base}/v1/reports:send`, JSON.stringify({ report }), params('report'));
  const ok = check(response, {
    'report: status is 200': (r) => r.status === 200,
    'report: acknowledged': (r) => r.status === 200 && r.json('acknowledgedSequence') === String(sequence),
    'report: no fix is refused': (r) => r.status === 200 && r.json('refusals') === undefined,
  });
  if (!ok && sequence === 1) {
    console.error(response.body);
  }
  sleep(Math.max(0, periodMs - (Date.now() - begun)) / 1000);
}

export function dispatcher() {
  const place = { latitude: 48.2085 + (Math.random() - 0.5) / 10, longitude: 16.373 + (Math.random() - 0.5) / 10 };
  const response = http.post(`${base}/v1/vehicles:searchNearest`, JSON.stringify({ place, maxResults: 10 }), params('nearest'));
  check(response, {
    'nearest: status is 200': (r) => r.status === 200,
    // Nothing found is an object without results, before the first report.
    'nearest: at most ten, in order': (r) => {
      const found = r.status === 200 ? r.json().results || [] : null;
      return found !== null && found.length <= 10 && found.every((v, i) => i === 0 || found[i - 1].distanceM <= v.distanceM);
    },
  });
}

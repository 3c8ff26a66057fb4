// Vehicles that report once a second through the unary SendReport, one virtual
// user each. Every report must be acknowledged, with no fix refused. A server
// that can't be reached fails the run.
//
//   k6 run loadtest/k6/send_report.js
//   k6 run -e ADDR=127.0.0.1:7600 -e VEHICLES=500 -e DURATION=1m -e FIXES=5 loadtest/k6/send_report.js
import grpc from 'k6/net/grpc';
import { check, sleep } from 'k6';
import { Counter } from 'k6/metrics';
import exec from 'k6/execution';

const addr = __ENV.ADDR || '127.0.0.1:7600';
const vehicles = Number(__ENV.VEHICLES || 100);
const fixesPerReport = Number(__ENV.FIXES || 1);
const periodMs = Number(__ENV.PERIOD_MS || 1000);

export const options = {
  scenarios: {
    fleet: { executor: 'constant-vus', vus: vehicles, duration: __ENV.DURATION || '30s' },
  },
  thresholds: {
    // A rate without samples passes every threshold, a counter without samples
    // is 0: what never reached the server must not look like success.
    checks: ['rate==1'],
    starling_acknowledged_fixes: ['count>0'],
    starling_failed_connections: ['count==0'],
    grpc_req_duration: ['p(99)<250'],
  },
};

const acknowledgedFixes = new Counter('starling_acknowledged_fixes');
const failedConnections = new Counter('starling_failed_connections');
const client = new grpc.Client();
client.load(['../../schemas/proto'], 'starling/v1/ingest.proto');

// Every virtual user has its own copy of what follows: one vehicle's app.
let connected = false;
let sequence = 0;
let lastMs = 0;
let lat = 48.2085 + (Math.random() - 0.5) / 10;
let lon = 16.373 + (Math.random() - 0.5) / 10;
const headingDeg = Math.floor(Math.random() * 360);
// An unsigned 64-bit number travels as a string; 53 random bits are enough.
const session = String(1 + Math.floor(Math.random() * Number.MAX_SAFE_INTEGER));

// connect returns whether the server was reached. client.connect throws if not,
// which would end the iteration before anything is checked.
function connect() {
  let fault = null;
  try {
    client.connect(addr, { plaintext: true });
    connected = true;
  } catch (error) {
    fault = error;
    failedConnections.add(1);
  }
  check(fault, { 'the server is reached': (f) => f === null });
  if (fault && exec.vu.idInTest === 1) {
    console.error(`${addr}: ${fault}`);
  }
  return connected;
}

export default function () {
  if (!connected && !connect()) {
    sleep(periodMs / 1000);
    return;
  }
  const begun = Date.now();
  sequence += 1;
  const fixes = [];
  for (let i = 0; i < fixesPerReport; i++) {
    const ms = Math.max(lastMs + 1, begun - Math.floor(((fixesPerReport - 1 - i) * periodMs) / fixesPerReport));
    const seconds = lastMs ? (ms - lastMs) / 1000 : 0;
    lastMs = ms;
    const metres = 10 * seconds;
    lat += (metres * Math.cos((headingDeg * Math.PI) / 180)) / 111195;
    lon += (metres * Math.sin((headingDeg * Math.PI) / 180)) / (111195 * Math.cos((lat * Math.PI) / 180));
    fixes.push({ device_time_ms: String(ms), latitude: lat, longitude: lon, accuracy_m: 5, speed_mps: 10, heading_deg: headingDeg });
  }
  const response = client.invoke('starling.v1.IngestService/SendReport', {
    report: { vehicle_id: `k6-${exec.vu.idInTest}`, session_id: session, sequence: String(sequence), fixes },
  });
  const ok = check(response, {
    'status is OK': (r) => r && r.status === grpc.StatusOK,
    'the report is acknowledged': (r) => r && r.message && Number(r.message.acknowledgedSequence) === sequence,
    'no fix is refused': (r) => r && r.message && (r.message.refusals || []).length === 0,
  });
  if (ok) {
    acknowledgedFixes.add(fixesPerReport);
  } else if (sequence === 1) {
    console.error(JSON.stringify(response));
  }
  sleep(Math.max(0, periodMs - (Date.now() - begun)) / 1000);
}

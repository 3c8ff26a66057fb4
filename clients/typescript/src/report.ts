// Reports as protobuf's JSON has them: 64-bit numbers may be strings.

/** One position as the device reported it; what it does not know is left out. */
export interface Fix {
  /** When the device took the fix, in milliseconds since 1970, UTC. */
  deviceTimeMs: number | string;
  latitude: number;
  longitude: number;
  accuracyM?: number;
  speedMps?: number;
  headingDeg?: number;
  altitudeM?: number;
  mocked?: boolean;
}

/** A batch of one vehicle's fixes and, when they changed, availability and attributes. */
export interface Report {
  vehicleId: string;
  fixes?: Fix[];
  availability?: 'AVAILABILITY_OFFLINE' | 'AVAILABILITY_FREE' | 'AVAILABILITY_BUSY';
  attributes?: { type?: string; seats?: number; tags?: string[] };
}

/** A report with its place: it keeps both as long as it is not acknowledged. */
export interface NumberedReport extends Report {
  sessionId: string;
  sequence: string;
}

/** A fix that the server refused; the other fixes of its report are durable. */
export interface FixRefusal {
  reportNumber: string;
  sequence: string;
  fixIndex: number;
  field: string;
  reason: string;
  description: string;
}

/** What a reporter tells the app. */
export interface Handlers {
  /** A fix was refused: log it. */
  onRefused?: (refusal: FixRefusal) => void;
  /** A report was refused as a whole and is set aside: tell the developer. */
  onRejected?: (report: NumberedReport, why: Error) => void;
  /** A stream or call failed; the next attempt comes after so many milliseconds. */
  onBroken?: (why: Error, waitMs: number) => void;
}

export const maxFixesPerReport = 1000;
/** Of one vehicle and session; the protocol fixes it. */
export const maxUnacknowledged = 64;

/** Draws sessions and numbers reports. */
export class Numbers {
  readonly #of = new Map<string, { sessionId: string; newest: number }>();

  /** Gives a report its place. One session as long as the queue lives: it is drawn once a vehicle. */
  number(report: Report): NumberedReport {
    if (!report.vehicleId) throw new RangeError('vehicleId is empty');
    if ((report.fixes?.length ?? 0) > maxFixesPerReport) throw new RangeError(`fixes: ${report.fixes?.length} are more than ${maxFixesPerReport}`);
    let of = this.#of.get(report.vehicleId);
    if (!of) this.#of.set(report.vehicleId, (of = { sessionId: drawSession(), newest: 0 }));
    of.newest++;
    return { ...structuredClone(report), sessionId: of.sessionId, sequence: String(of.newest) };
  }
}

/** A random 64-bit number other than 0, in decimal. */
function drawSession(): string {
  const [drawn = 0n] = crypto.getRandomValues(new BigUint64Array(1));
  return String(drawn || 1n);
}

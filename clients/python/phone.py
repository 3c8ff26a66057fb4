"""A phone that drives in a circle and reports each second: python phone.py [--vehicle ID]"""

import argparse
import math
import time

from starling.v1 import fix_pb2, ingest_pb2

import starling_driver

CENTRE, RADIUS_M, SPEED_MPS = (48.2085, 16.3730), 300.0, 8.0
METRES_PER_DEGREE = 111_195.0


def fix_at(seconds: float) -> fix_pb2.Fix:
    """Where the phone is after so many seconds."""
    angle = SPEED_MPS / RADIUS_M * seconds  # clockwise from north
    return fix_pb2.Fix(
        device_time_ms=time.time_ns() // 1_000_000,  # when the fix is taken, not when it is sent
        latitude=CENTRE[0] + RADIUS_M * math.cos(angle) / METRES_PER_DEGREE,
        longitude=CENTRE[1] + RADIUS_M * math.sin(angle) / METRES_PER_DEGREE / math.cos(math.radians(CENTRE[0])),
        accuracy_m=5,
        speed_mps=SPEED_MPS,
        heading_deg=math.degrees(angle + math.pi / 2) % 360 // 1,
    )


def main() -> None:
    """Reports until it is interrupted, or for so many seconds."""
    parser = argparse.ArgumentParser(description="A phone that drives in a circle.")
    parser.add_argument("--ingest", default="127.0.0.1:7600", help="host:port of ingest's gRPC server")
    parser.add_argument("--vehicle", default="python-1")
    parser.add_argument("--seconds", type=float, default=math.inf)
    options = parser.parse_args()

    with starling_driver.connect(options.ingest) as channel:
        reporter = starling_driver.Reporter(
            channel,
            on_refused=lambda refusal: print("refused:", refusal.description),
            on_broken=lambda error, seconds: print(f"no connection, again in {seconds:.1f} s; {reporter.pending()} reports wait"),
        )
        started = time.monotonic()
        first = True
        try:
            while (driven := time.monotonic() - started) < options.seconds:
                report = ingest_pb2.Report(vehicle_id=options.vehicle, fixes=[fix_at(driven)])
                if first:  # say what changed: availability, when the session begins
                    report.availability = fix_pb2.AVAILABILITY_FREE
                    first = False
                reporter.send(report)
                time.sleep(1)
        except KeyboardInterrupt:
            pass
        try:
            reporter.close(timeout=10)
            print("everything is acknowledged")
        except (TimeoutError, starling_driver.Stopped) as error:
            raise SystemExit(str(error)) from error


if __name__ == "__main__":
    main()

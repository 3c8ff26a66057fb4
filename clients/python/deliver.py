"""Delivers reports from standard input, one a line as protobuf's JSON: what
`starling conformance` runs to judge this client."""

import os
import sys

from google.protobuf import json_format
from starling.v1 import ingest_pb2

import starling_driver


def main() -> int:
    """Returns the exit code: 0 when everything is acknowledged."""
    def say(*what: object) -> None:
        print("deliver:", *what, file=sys.stderr)

    token = os.environ.get("STARLING_TOKEN")
    with starling_driver.connect(os.environ["STARLING_INGEST"]) as channel:
        reporter = starling_driver.Reporter(
            channel,
            token=(lambda: token) if token else None,
            ack_timeout=float(os.environ.get("STARLING_ACK_TIMEOUT", "30")),
            on_refused=lambda refusal: say("a fix is refused:", refusal.description),
            on_rejected=lambda rejected: say("a report is rejected:", rejected.why),
            on_broken=lambda error, seconds: say(f"broken, again in {seconds:.3f} s:", error),
        )
        try:
            for line in sys.stdin:
                reporter.send(json_format.Parse(line, ingest_pb2.Report()))
            reporter.close()
        except starling_driver.Stopped as error:
            say(error)
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())

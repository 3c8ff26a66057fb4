"""What conformance does not show: python -m unittest"""

import unittest

import grpc
from starling.v1 import fix_pb2, ingest_pb2

import starling_driver
from starling_driver.status import Verdict, judge
from starling_driver.waits import Waits


class FakeError(grpc.RpcError):
    """A status without details."""

    def __init__(self, code: grpc.StatusCode) -> None:
        super().__init__()
        self._code = code

    def code(self) -> grpc.StatusCode:
        return self._code

    def details(self) -> str:
        return ""

    def trailing_metadata(self) -> None:
        return None


class WaitsTest(unittest.TestCase):
    """Waits double up to 30 s, are drawn, and are as long as the server asks."""

    def test_bounds(self) -> None:
        firsts = set()
        for _ in range(100):
            waits, full = Waits(), 0.2
            for step in range(10):
                wait = waits.next()
                if step == 0:
                    firsts.add(wait)
                self.assertTrue(min(full, 30) / 2 <= wait <= min(full, 30))
                full *= 2
            self.assertTrue(60 <= waits.next(60) <= 75)
            waits.reset()
            self.assertLessEqual(waits.next(), 0.2)
        self.assertGreater(len(firsts), 50)


class JudgeTest(unittest.TestCase):
    """Statuses are judged as docs/driver-protocol.md has them."""

    def test_statuses(self) -> None:
        code = grpc.StatusCode
        for status, progress, want in [
            (code.UNAVAILABLE, False, Verdict.RETRY),
            (code.RESOURCE_EXHAUSTED, True, Verdict.RETRY),
            (code.INVALID_ARGUMENT, True, Verdict.STOP),  # it names no report
            (code.PERMISSION_DENIED, True, Verdict.STOP),
            (code.UNIMPLEMENTED, False, Verdict.STOP),
            (code.UNAUTHENTICATED, False, Verdict.STOP),
            (code.UNAUTHENTICATED, True, Verdict.RETRY),
        ]:
            self.assertIs(judge(FakeError(status), progress).verdict, want, status)
        self.assertIs(judge(ConnectionError("broken"), False).verdict, Verdict.RETRY)


class SendTest(unittest.TestCase):
    """Bad input is refused before it is queued, with the field and its rule."""

    def test_bad_input(self) -> None:
        with starling_driver.connect("127.0.0.1:1") as channel:
            reporter = starling_driver.Reporter(channel)
            fix = fix_pb2.Fix(device_time_ms=1)
            for report, rule in [
                (ingest_pb2.Report(fixes=[fix]), "vehicle_id"),
                (ingest_pb2.Report(vehicle_id="car", fixes=[fix] * 1001), "1001"),
                (ingest_pb2.Report(vehicle_id="car", session_id=1), "session_id"),
                (ingest_pb2.Report(vehicle_id="car", attributes=fix_pb2.Attributes(tags=["x" * 200_000])), "bytes"),
            ]:
                with self.assertRaisesRegex(ValueError, rule):
                    reporter.send(report)
            self.assertEqual(reporter.pending(), 0)
            with self.assertRaisesRegex(ValueError, "ack_timeout"):
                starling_driver.Reporter(channel, ack_timeout=0)
            reporter.close(timeout=10)
            with self.assertRaisesRegex(ValueError, "closed"):
                reporter.send(ingest_pb2.Report(vehicle_id="car", fixes=[fix]))


if __name__ == "__main__":
    unittest.main()

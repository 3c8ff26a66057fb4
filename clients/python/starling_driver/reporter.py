"""Delivers reports over one stream at a time and keeps each until it is acknowledged."""

from __future__ import annotations

import collections
import dataclasses
import secrets
import threading
import time
from collections.abc import Callable, Iterator

import grpc
from starling.v1 import ingest_pb2, ingest_pb2_grpc

from .status import Verdict, judge
from .waits import Waits

MAX_UNACKNOWLEDGED = 64  # of one vehicle and session; the protocol fixes it
MAX_FIXES = 1000
MAX_REPORT_BYTES = 120 << 10


class Stopped(Exception):
    """Sending again can't help: the app must be mended, or log in anew."""


@dataclasses.dataclass
class Rejected:
    """A report that the server never takes."""

    report: ingest_pb2.Report
    why: str


def connect(address: str, credentials: grpc.ChannelCredentials | None = None) -> grpc.Channel:
    """Opens a channel; without credentials it has no TLS, for loopback and tests."""
    options = [
        # Mobile networks forget connections without telling.
        ("grpc.keepalive_time_ms", 30_000),
        ("grpc.keepalive_timeout_ms", 10_000),
        # The reporter waits between attempts; the channel need not be slower.
        ("grpc.initial_reconnect_backoff_ms", 100),
        ("grpc.min_reconnect_backoff_ms", 100),
        ("grpc.max_reconnect_backoff_ms", 5_000),
    ]
    if credentials is None:
        return grpc.insecure_channel(address, options)
    return grpc.secure_channel(address, credentials, options)


class Reporter:
    """Delivers reports of one or several vehicles.

    send() numbers a report and queues it; a thread delivers the queue; close() waits
    until everything is acknowledged. on_refused(refusal) is told of each refused fix,
    on_rejected(Rejected) of each report that is refused as a whole, on_broken(error,
    seconds) of each broken stream and the wait before the next. They are called from
    the reporter's thread.
    """

    def __init__(
        self,
        channel: grpc.Channel,
        *,
        token: Callable[[], str] | None = None,
        ack_timeout: float = 30.0,
        max_pending: int = 8192,
        on_refused: Callable[[ingest_pb2.FixRefusal], None] | None = None,
        on_rejected: Callable[[Rejected], None] | None = None,
        on_broken: Callable[[Exception, float], None] | None = None,
    ) -> None:
        if ack_timeout <= 0 or max_pending < 1:
            raise ValueError(f"ack_timeout is {ack_timeout}, max_pending {max_pending}: both must be positive")
        self._stub = ingest_pb2_grpc.IngestServiceStub(channel)
        self._token = token
        self._ack_timeout = ack_timeout
        self._max_pending = max_pending
        self._on_refused = on_refused or (lambda refusal: None)
        self._on_rejected = on_rejected or (lambda rejected: None)
        self._on_broken = on_broken or (lambda error, seconds: None)

        # One lock guards what follows; each change of it is notified.
        self._changed = threading.Condition()
        self._queue: collections.deque[ingest_pb2.Report] = collections.deque()  # unacknowledged
        self._on_stream = 0  # how many of them, from the oldest, are on the stream
        self._numbers: dict[str, tuple[int, int]] = {}  # vehicle: session, newest sequence
        self._stream: object | None = None  # names the present stream
        self._acked_at = 0.0
        self._progress = False  # the present stream has acknowledged something
        self._closing = False
        self._error: Exception | None = None
        self._thread = threading.Thread(target=self._run, name="starling-reporter", daemon=True)
        self._thread.start()

    def send(self, report: ingest_pb2.Report) -> None:
        """Queues a report, which is given its session and sequence.

        Blocks while the queue is full. Raises ValueError for what every server
        refuses, Stopped when the reporter has stopped.
        """
        if not report.vehicle_id:
            raise ValueError("vehicle_id is empty")
        if report.session_id or report.sequence:
            raise ValueError("session_id and sequence are the reporter's to set")
        if len(report.fixes) > MAX_FIXES:
            raise ValueError(f"fixes: {len(report.fixes)} are more than {MAX_FIXES}")
        if report.ByteSize() > MAX_REPORT_BYTES:
            raise ValueError(f"the report has {report.ByteSize()} bytes, at most {MAX_REPORT_BYTES} are taken")
        kept = ingest_pb2.Report()
        kept.CopyFrom(report)
        with self._changed:
            self._changed.wait_for(lambda: len(self._queue) < self._max_pending or self._closing or self._error)
            if self._error:
                raise Stopped(str(self._error)) from self._error
            if self._closing:
                raise ValueError("the reporter is closed")
            # One session as long as the queue lives: it is drawn once a vehicle.
            session, newest = self._numbers.get(kept.vehicle_id) or (secrets.randbits(64) or 1, 0)
            kept.session_id, kept.sequence = session, newest + 1
            self._numbers[kept.vehicle_id] = (session, newest + 1)
            self._queue.append(kept)
            self._changed.notify_all()

    def pending(self) -> int:
        """How many reports are not acknowledged."""
        with self._changed:
            return len(self._queue)

    def close(self, timeout: float | None = None) -> None:
        """Returns when everything is acknowledged; raises Stopped or TimeoutError if it is not."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        self._thread.join(timeout)
        if self._thread.is_alive():
            raise TimeoutError(f"{self.pending()} reports are not acknowledged")
        if self._error:
            raise Stopped(f"{self.pending()} reports are not acknowledged: {self._error}") from self._error

    # The reporter's thread.

    def _run(self) -> None:
        waits = Waits()
        try:
            while self._wait_for_work():
                error = self._run_stream()
                if error is None:
                    continue
                if self._progress:
                    waits.reset()
                end = judge(error, self._progress)
                if end.verdict is Verdict.STOP:
                    raise error
                if end.verdict is Verdict.REJECT:
                    self._reject(end.report_number, error)
                    continue
                seconds = waits.next(end.retry_delay)
                self._on_broken(error, seconds)
                time.sleep(seconds)
        except Exception as error:  # pylint: disable=broad-except
            with self._changed:
                self._error = error
                self._changed.notify_all()

    def _wait_for_work(self) -> bool:
        with self._changed:
            self._changed.wait_for(lambda: self._queue or self._closing)
            return bool(self._queue)

    def _run_stream(self) -> Exception | None:
        """Opens a stream and works on it until it ends; returns why, or None if all is acknowledged."""
        stream = object()
        with self._changed:
            self._stream, self._on_stream, self._progress = stream, 0, False
            self._acked, self._acked_at = 0, time.monotonic()
        error: Exception | None = None
        try:
            metadata = [("authorization", f"Bearer {self._token()}")] if self._token else []
            call = self._stub.StreamReports(self._outgoing(stream), metadata=metadata)
            threading.Thread(target=self._watch, args=(stream, call), daemon=True).start()
            try:
                for response in call:
                    self._acknowledge(response)
            finally:
                call.cancel()
        except (grpc.RpcError, ConnectionError) as caught:
            error = caught
        with self._changed:
            self._stream = None  # ends what waits on this stream
            self._changed.notify_all()
            if error is None and self._queue:
                error = ConnectionError("the server ended the stream before it had acknowledged everything")
            if error is not None and not self._queue:
                error = None
        return error

    def _outgoing(self, stream: object) -> Iterator[ingest_pb2.StreamReportsRequest]:
        """The requests of a stream, until it is over or everything is sent and close was called."""
        vehicle, session = "", 0
        while (report := self._next(stream)) is not None:
            sent = ingest_pb2.Report()
            sent.CopyFrom(report)
            if (report.vehicle_id, report.session_id) == (vehicle, session):
                # Those of the report before need not be said again.
                sent.ClearField("vehicle_id")
                sent.ClearField("session_id")
            vehicle, session = report.vehicle_id, report.session_id
            yield ingest_pb2.StreamReportsRequest(report=sent)

    def _next(self, stream: object) -> ingest_pb2.Report | None:
        with self._changed:
            self._changed.wait_for(
                lambda: self._stream is not stream or self._may_send() or (self._closing and self._on_stream == len(self._queue))
            )
            if self._stream is not stream or self._on_stream == len(self._queue):
                return None
            if self._on_stream == 0:
                self._acked_at = time.monotonic()  # nothing was waited for before
            report = self._queue[self._on_stream]
            self._on_stream += 1
            return report

    def _may_send(self) -> bool:
        """Whether there is a report whose vehicle has fewer than 64 unacknowledged on the stream."""
        if self._on_stream == len(self._queue):
            return False
        vehicle, on_stream = self._queue[self._on_stream].vehicle_id, 0
        for i in range(self._on_stream):
            on_stream += self._queue[i].vehicle_id == vehicle
        return on_stream < MAX_UNACKNOWLEDGED

    def _acknowledge(self, response: ingest_pb2.StreamReportsResponse) -> None:
        with self._changed:
            new = response.acknowledged_reports - self._acked
            if new < 0 or new > self._on_stream:
                raise ConnectionError(f"the server acknowledged {response.acknowledged_reports} reports, {self._acked + self._on_stream} were sent")
            for _ in range(new):
                self._queue.popleft()
            self._on_stream -= new
            self._acked += new
            self._acked_at = time.monotonic()
            self._progress = self._progress or new > 0
            self._changed.notify_all()
        for refusal in response.refusals:
            self._on_refused(refusal)

    def _reject(self, number: int, error: Exception) -> None:
        """Sets aside the report that the server has named; the others are sent again at once."""
        with self._changed:
            index = number - self._acked - 1
            if not 0 <= index < self._on_stream:
                raise error
            report = self._queue[index]
            del self._queue[index]
            self._changed.notify_all()
        self._on_rejected(Rejected(report, str(error)))

    def _watch(self, stream: object, call: grpc.Call) -> None:
        """Gives a stream up on which nothing has been acknowledged for too long."""
        with self._changed:
            while self._stream is stream:
                self._changed.wait(min(1.0, self._ack_timeout / 4))
                silent = time.monotonic() - self._acked_at
                if self._stream is stream and (self._on_stream or self._closing) and silent > self._ack_timeout:
                    break
            else:
                return
        call.cancel()

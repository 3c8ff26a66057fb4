"""What the end of a stream asks of the client (docs/driver-protocol.md, Statuses)."""

import dataclasses
import enum

import grpc
from google.rpc import error_details_pb2
from grpc_status import rpc_status


class Verdict(enum.Enum):
    """What to do after the end of a stream."""

    RETRY = enum.auto()
    REJECT = enum.auto()  # one report is at fault, the others are not
    STOP = enum.auto()


@dataclasses.dataclass
class End:
    """The end of a stream."""

    verdict: Verdict
    retry_delay: float = 0.0
    report_number: int = 0  # of the report at fault


_STOP = {
    grpc.StatusCode.PERMISSION_DENIED,
    grpc.StatusCode.UNIMPLEMENTED,
    grpc.StatusCode.FAILED_PRECONDITION,
    grpc.StatusCode.NOT_FOUND,
}
_NEW_TOKEN = {"TOKEN_EXPIRED", "TOKEN_KEY_REMOVED"}


def judge(error: Exception, progress: bool) -> End:
    """Judges what a stream ended with; progress is whether it has acknowledged anything."""
    if not isinstance(error, grpc.RpcError) or not hasattr(error, "code"):
        return End(Verdict.RETRY)
    code = error.code()
    info, delay = _details(error)
    if code is grpc.StatusCode.INVALID_ARGUMENT or code is grpc.StatusCode.OUT_OF_RANGE:
        number = info.metadata.get("report_number", "")
        return End(Verdict.REJECT, report_number=int(number)) if number.isdigit() else End(Verdict.STOP)
    if code in _STOP:
        return End(Verdict.STOP)
    if code is grpc.StatusCode.UNAUTHENTICATED and not progress and info.reason not in _NEW_TOKEN:
        return End(Verdict.STOP)
    return End(Verdict.RETRY, retry_delay=delay)


def _details(error: grpc.RpcError) -> tuple[error_details_pb2.ErrorInfo, float]:
    info, delay = error_details_pb2.ErrorInfo(), 0.0
    try:
        status = rpc_status.from_call(error)
    except ValueError:
        status = None
    for detail in status.details if status else []:
        retry = error_details_pb2.RetryInfo()
        if detail.Is(info.DESCRIPTOR):
            detail.Unpack(info)
        elif detail.Unpack(retry):
            delay = max(0.0, retry.retry_delay.ToTimedelta().total_seconds())
    return info, delay

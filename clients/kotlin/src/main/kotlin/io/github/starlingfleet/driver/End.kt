package io.github.starlingfleet.driver

import com.google.rpc.ErrorInfo
import com.google.rpc.RetryInfo
import io.grpc.Status
import io.grpc.protobuf.StatusProto
import kotlin.time.Duration
import kotlin.time.Duration.Companion.nanoseconds
import kotlin.time.Duration.Companion.seconds

/** What the end of a stream asks of the client (docs/driver-protocol.md, Statuses). */
sealed interface End {
    /** Wait, at least [asked], then send again. */
    data class Retry(val asked: Duration = Duration.ZERO) : End

    /** Report [number] of the stream, from 1, is at fault; the others are not. */
    data class Reject(val number: Int) : End

    /** Sending again can't help. */
    data object Stop : End
}

/** Judges what a stream ended with; [progress] is whether it has acknowledged anything. */
fun judge(error: Throwable, progress: Boolean): End {
    val details = StatusProto.fromThrowable(error)?.detailsList.orEmpty()
    val info = details.firstOrNull { it.`is`(ErrorInfo::class.java) }?.unpack(ErrorInfo::class.java)
    return when (Status.fromThrowable(error).code) {
        Status.Code.INVALID_ARGUMENT, Status.Code.OUT_OF_RANGE ->
            info?.metadataMap?.get("report_number")?.toIntOrNull()?.let { End.Reject(it) } ?: End.Stop
        Status.Code.PERMISSION_DENIED, Status.Code.UNIMPLEMENTED, Status.Code.FAILED_PRECONDITION, Status.Code.NOT_FOUND -> End.Stop
        Status.Code.UNAUTHENTICATED ->
            if (progress || info?.reason in setOf("TOKEN_EXPIRED", "TOKEN_KEY_REMOVED")) End.Retry() else End.Stop
        else -> {
            val delay = details.firstOrNull { it.`is`(RetryInfo::class.java) }?.unpack(RetryInfo::class.java)?.retryDelay
            End.Retry(delay?.let { it.seconds.seconds + it.nanos.nanoseconds }?.coerceAtLeast(Duration.ZERO) ?: Duration.ZERO)
        }
    }
}

package io.github.starlingfleet.driver

import io.github.starlingfleet.v1.FixRefusal
import io.github.starlingfleet.v1.Report
import io.github.starlingfleet.v1.StreamReportsRequest
import io.github.starlingfleet.v1.StreamReportsResponse
import io.grpc.Channel
import io.grpc.Metadata
import io.grpc.MethodDescriptor
import io.grpc.kotlin.ClientCalls
import io.grpc.protobuf.ProtoUtils
import java.io.IOException
import java.security.SecureRandom
import kotlin.time.Duration
import kotlin.time.Duration.Companion.seconds
import kotlin.time.TimeSource
import kotlinx.coroutines.CancellationException
import kotlinx.coroutines.CoroutineScope
import kotlinx.coroutines.Deferred
import kotlinx.coroutines.Dispatchers
import kotlinx.coroutines.ExperimentalCoroutinesApi
import kotlinx.coroutines.async
import kotlinx.coroutines.cancelAndJoin
import kotlinx.coroutines.coroutineScope
import kotlinx.coroutines.delay
import kotlinx.coroutines.flow.Flow
import kotlinx.coroutines.flow.MutableStateFlow
import kotlinx.coroutines.flow.first
import kotlinx.coroutines.flow.flow
import kotlinx.coroutines.flow.update
import kotlinx.coroutines.launch
import kotlinx.coroutines.supervisorScope
import kotlinx.coroutines.withContext

/** Sending again can't help: the app must be mended, or log in anew. */
class StoppedException(message: String, cause: Throwable) : Exception(message, cause)

/** What a reporter tells the app. */
interface Listener {
    /** A fix was refused: log it. The other fixes of its report are durable. */
    fun refused(refusal: FixRefusal) {}

    /** A report was refused as a whole and is set aside: tell the developer. */
    fun rejected(report: Report, why: Throwable) {}

    /** A stream has broken; the next attempt comes after [wait]. */
    fun broken(why: Throwable, wait: Duration) {}
}

/**
 * Delivers reports of one or several vehicles over one stream at a time, and keeps each
 * until it is acknowledged. Its work ends with [scope], or with [close].
 */
class Reporter(
    private val channel: Channel,
    scope: CoroutineScope,
    private val token: (suspend () -> String)? = null,
    private val ackTimeout: Duration = 30.seconds,
    private val maxPending: Int = 8192,
    private val listener: Listener = object : Listener {},
) {
    // One coroutine at a time uses what follows; each change of it is told.
    @OptIn(ExperimentalCoroutinesApi::class)
    private val confined = Dispatchers.Default.limitedParallelism(1)
    private val changes = MutableStateFlow(0L)
    private val queue = ArrayDeque<Report>() // unacknowledged, oldest first
    private var onStream = 0 // how many of them, from the oldest, are on the stream
    private var acked = 0 // how many the stream has acknowledged
    private var ackedAt = TimeSource.Monotonic.markNow()
    private val numbers = HashMap<String, Place>()
    private var closing = false
    private var stopped: StoppedException? = null

    private class Place(val session: Long, var newest: Long = 0)

    private val running: Deferred<Unit> = scope.async(confined) { supervisorScope { run() } }

    init {
        require(ackTimeout.isPositive() && maxPending > 0) { "ackTimeout is $ackTimeout, maxPending $maxPending: both must be positive" }
    }

    /** Numbers a report and queues it; waits while the queue is full. */
    suspend fun send(report: Report) = withContext(confined) {
        require(report.vehicleId.isNotEmpty()) { "vehicle_id is empty" }
        require(report.sessionId == 0L && report.sequence == 0L) { "session_id and sequence are the reporter's to set" }
        require(report.fixesCount <= MAX_FIXES) { "fixes: ${report.fixesCount} are more than $MAX_FIXES" }
        require(report.serializedSize <= MAX_REPORT_BYTES) { "the report has ${report.serializedSize} bytes, at most $MAX_REPORT_BYTES are taken" }
        await { queue.size < maxPending || closing || stopped != null }
        stopped?.let { throw it }
        check(!closing) { "the reporter is closed" }
        // One session as long as the queue lives: it is drawn once a vehicle.
        val place = numbers.getOrPut(report.vehicleId) { Place(drawSession()) }
        queue += report.toBuilder().setSessionId(place.session).setSequence(++place.newest).build()
        changed()
    }

    /** Returns when everything is acknowledged; throws [StoppedException] if that can't be. */
    suspend fun close() {
        withContext(confined) {
            closing = true
            changed()
        }
        running.await()
        stopped?.let { throw it }
    }

    private fun changed() = changes.update { it + 1 }

    private suspend fun await(condition: () -> Boolean) {
        changes.first { condition() }
    }

    private suspend fun run() {
        val waits = Waits()
        while (true) {
            await { queue.isNotEmpty() || closing }
            if (queue.isEmpty()) return
            val error = stream() ?: continue
            if (acked > 0) waits.reset()
            when (val end = judge(error, acked > 0)) {
                is End.Retry -> {
                    val wait = waits.next(end.asked)
                    listener.broken(error, wait)
                    delay(wait)
                }
                is End.Reject -> if (!reject(end.number, error)) return stop(error)
                End.Stop -> return stop(error)
            }
        }
    }

    private fun stop(error: Throwable) {
        stopped = StoppedException("${queue.size} reports are not acknowledged: ${error.message}", error)
        changed()
    }

    /** Opens a stream and works on it until it ends; returns why, or null if all is acknowledged. */
    private suspend fun stream(): Throwable? {
        onStream = 0
        acked = 0
        ackedAt = TimeSource.Monotonic.markNow()
        return try {
            coroutineScope {
                val headers = Metadata()
                token?.let { headers.put(AUTHORIZATION, "Bearer ${it()}") }
                val watch = launch { watch() }
                ClientCalls.bidiStreamingRpc(channel, STREAM_REPORTS, outgoing(), headers = headers).collect(::acknowledge)
                watch.cancelAndJoin()
            }
            IOException("the server ended the stream before it had acknowledged everything").takeIf { queue.isNotEmpty() }
        } catch (e: CancellationException) {
            throw e
        } catch (e: Exception) {
            e.takeIf { queue.isNotEmpty() }
        }
    }

    /** The requests of a stream, until everything is sent and close was called. */
    private fun outgoing(): Flow<StreamReportsRequest> = flow {
        var vehicle = ""
        while (true) {
            await { maySend() || closing && onStream == queue.size }
            if (onStream == queue.size) return@flow
            if (onStream == 0) ackedAt = TimeSource.Monotonic.markNow() // nothing was waited for before
            val report = queue[onStream++]
            val sent = if (report.vehicleId == vehicle) {
                // Those of the report before need not be said again.
                report.toBuilder().clearVehicleId().clearSessionId().build()
            } else {
                report
            }
            vehicle = report.vehicleId
            emit(StreamReportsRequest.newBuilder().setReport(sent).build())
        }
    }

    /** Whether the next report's vehicle has fewer than 64 unacknowledged on the stream. */
    private fun maySend(): Boolean {
        val next = queue.getOrNull(onStream) ?: return false
        return (0 until onStream).count { queue[it].vehicleId == next.vehicleId } < MAX_UNACKNOWLEDGED
    }

    private fun acknowledge(response: StreamReportsResponse) {
        val news = response.acknowledgedReports - acked
        if (news < 0 || news > onStream) {
            throw IOException("the server acknowledged ${response.acknowledgedReports} reports, ${acked + onStream} were sent")
        }
        repeat(news.toInt()) { queue.removeFirst() }
        onStream -= news.toInt()
        acked += news.toInt()
        ackedAt = TimeSource.Monotonic.markNow()
        response.refusalsList.forEach(listener::refused)
        changed()
    }

    /** Sets aside the report that the server has named; the others are sent again at once. */
    private fun reject(number: Int, why: Throwable): Boolean {
        val index = number - acked - 1
        if (index !in 0 until onStream) return false
        listener.rejected(queue.removeAt(index), why)
        changed()
        return true
    }

    /** Gives a stream up on which nothing has been acknowledged for too long. */
    private suspend fun watch() {
        while (true) {
            delay(minOf(1.seconds, ackTimeout / 4))
            if ((onStream > 0 || closing) && ackedAt.elapsedNow() > ackTimeout) throw IOException("no acknowledgement in time")
        }
    }

    private companion object {
        const val MAX_UNACKNOWLEDGED = 64 // of one vehicle and session; the protocol fixes it
        const val MAX_FIXES = 1000
        const val MAX_REPORT_BYTES = 120 shl 10
        val AUTHORIZATION: Metadata.Key<String> = Metadata.Key.of("authorization", Metadata.ASCII_STRING_MARSHALLER)

        // The one method that is called: no generator of stubs is needed for it.
        val STREAM_REPORTS: MethodDescriptor<StreamReportsRequest, StreamReportsResponse> =
            MethodDescriptor.newBuilder<StreamReportsRequest, StreamReportsResponse>()
                .setType(MethodDescriptor.MethodType.BIDI_STREAMING)
                .setFullMethodName("starling.v1.IngestService/StreamReports")
                .setRequestMarshaller(ProtoUtils.marshaller(StreamReportsRequest.getDefaultInstance()))
                .setResponseMarshaller(ProtoUtils.marshaller(StreamReportsResponse.getDefaultInstance()))
                .build()
        val random = SecureRandom()

        fun drawSession(): Long = random.nextLong().takeIf { it != 0L } ?: 1L
    }
}

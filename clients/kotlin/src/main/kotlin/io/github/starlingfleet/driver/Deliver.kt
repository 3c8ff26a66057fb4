package io.github.starlingfleet.driver

import com.google.protobuf.util.JsonFormat
import io.github.starlingfleet.v1.FixRefusal
import io.github.starlingfleet.v1.Report
import io.grpc.netty.shaded.io.grpc.netty.NettyChannelBuilder
import java.util.concurrent.TimeUnit
import kotlin.system.exitProcess
import kotlin.time.Duration
import kotlin.time.Duration.Companion.seconds
import kotlinx.coroutines.Dispatchers
import kotlinx.coroutines.runBlocking

/**
 * Delivers reports from standard input, one a line as protobuf's JSON: what
 * `starling conformance` runs to judge this client.
 */
fun main() {
    val channel = NettyChannelBuilder.forTarget(System.getenv("STARLING_INGEST"))
        .usePlaintext()
        // Mobile networks forget connections without telling.
        .keepAliveTime(30, TimeUnit.SECONDS)
        .build()
    val token = System.getenv("STARLING_TOKEN")
    val listener = object : Listener {
        override fun refused(refusal: FixRefusal) = System.err.println("a fix is refused: ${refusal.description}")
        override fun rejected(report: Report, why: Throwable) = System.err.println("a report is rejected: ${why.message}")
        override fun broken(why: Throwable, wait: Duration) {
            System.err.println("broken, again in $wait: ${why.message}")
            channel.resetConnectBackoff() // the reporter waits; the channel need not
        }
    }
    val code = runBlocking(Dispatchers.Default) {
        val reporter = Reporter(
            channel,
            scope = this,
            token = token?.let { { it } },
            ackTimeout = (System.getenv("STARLING_ACK_TIMEOUT") ?: "30").toDouble().seconds,
            listener = listener,
        )
        try {
            generateSequence(::readLine).forEach { line ->
                val report = Report.newBuilder()
                JsonFormat.parser().merge(line, report)
                reporter.send(report.build())
            }
            reporter.close()
            0
        } catch (e: StoppedException) {
            System.err.println(e.message)
            1
        }
    }
    channel.shutdownNow()
    exitProcess(code)
}

package io.github.starlingfleet.driver

import kotlin.random.Random
import kotlin.time.Duration
import kotlin.time.Duration.Companion.milliseconds
import kotlin.time.Duration.Companion.seconds

/**
 * Waits between attempts: doubled with each failure, half of it drawn, so that clients
 * which lost the same server do not come back together.
 */
class Waits {
    private var full = Duration.ZERO

    /** An acknowledgement has come. */
    fun reset() {
        full = Duration.ZERO
    }

    /** The next wait; [asked] is the least that the server wants. */
    fun next(asked: Duration = Duration.ZERO): Duration {
        full = (full * 2).coerceIn(LEAST, MOST)
        val wait = full * Random.nextDouble(0.5, 1.0)
        return maxOf(wait, asked * Random.nextDouble(1.0, 1.25))
    }

    private companion object {
        val LEAST = 200.milliseconds
        val MOST = 30.seconds
    }
}

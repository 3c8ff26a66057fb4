package history

import (
	"context"
	"time"

	"github.com/starling-fleet/starling/internal/retry"
	"github.com/starling-fleet/starling/schemas/topics"
)

// roller is a sink that computes statistics of what it was given.
type roller interface {
	// Rollup computes those hours (since the Unix epoch) anew that have changed and
	// that owns is true for, and returns how many there were.
	Rollup(ctx context.Context, owns func(hour int64) bool) (computed int, err error)
}

// rollShare bounds the share of the time that statistics are computed in: a pause is
// at least this many times as long as the pass before it.
const rollShare = 4

// joiner is a sink that joins small files of old hours.
type joiner interface {
	// Join joins files of hours that ended a while before now, of the partitions that
	// owns is true for, and returns how many there were.
	Join(ctx context.Context, now time.Time, after time.Duration, owns func(partition int32) bool) (joined int, err error)
}

// joinPause is the longest between two looks for files to join.
const joinPause = 10 * time.Minute

// join joins files from time to time until ctx is done.
func (w *writer) join(ctx context.Context, j joiner) {
	pause := min(joinPause, w.joinAfter)
	for retry.Sleep(ctx, pause) == nil {
		started := time.Now()
		joined, err := j.Join(ctx, w.now(), w.joinAfter, func(partition int32) bool {
			w.mu.Lock()
			defer w.mu.Unlock()
			return w.owned[partition]
		})
		w.metrics.joined.Add(float64(joined))
		if ctx.Err() != nil {
			return
		}
		if err != nil {
			w.metrics.failures.Inc()
			w.logger.Warn("history could not join files", "error", err)
		}
		pause = max(min(joinPause, w.joinAfter), rollShare*time.Since(started))
	}
}

// roll computes statistics from time to time until ctx is done. The hours are shared
// out as the partitions are: whoever serves the partition whose number an hour has,
// modulo how many there are, computes it. A partition without an owner leaves its hours
// as they are until it has one.
func (w *writer) roll(ctx context.Context, r roller) {
	pause := w.rollup
	for retry.Sleep(ctx, pause) == nil {
		started := time.Now()
		bounds, err := w.log.Bounds(ctx, topics.Tracks)
		computed := 0
		if err == nil {
			computed, err = r.Rollup(ctx, func(hour int64) bool {
				w.mu.Lock()
				defer w.mu.Unlock()
				return w.owned[int32(hour%int64(len(bounds)))]
			})
		}
		w.metrics.hours.Add(float64(computed))
		if ctx.Err() != nil {
			return
		}
		if err != nil {
			w.metrics.failures.Inc()
			w.logger.Warn("history could not compute statistics of cells", "error", err)
		}
		pause = max(w.rollup, rollShare*time.Since(started))
	}
}

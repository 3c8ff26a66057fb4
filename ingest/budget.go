package ingest

import (
	"context"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/semaphore"
)

// budget bounds the bytes that all streams and calls have in flight. Waiters
// are served in order. It is safe for concurrent use.
type budget struct {
	free  *semaphore.Weighted
	gauge prometheus.Gauge
}

func newBudget(bytes int64, gauge prometheus.Gauge) *budget {
	return &budget{free: semaphore.NewWeighted(bytes), gauge: gauge}
}

// acquire waits for bytes until ctx is done; its error is ctx's cause.
func (b *budget) acquire(ctx context.Context, bytes int64) error {
	if err := b.free.Acquire(ctx, bytes); err != nil {
		return context.Cause(ctx)
	}
	b.gauge.Add(float64(bytes))
	return nil
}

func (b *budget) release(bytes int64) {
	if bytes == 0 {
		return
	}
	b.gauge.Sub(float64(bytes))
	b.free.Release(bytes)
}

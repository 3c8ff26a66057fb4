// Package retry waits before another attempt.
package retry

import (
	"context"
	"time"
)

// Sleep returns nil after d, or ctx's error when ctx is done first.
func Sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

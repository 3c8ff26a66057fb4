// Package retry waits, but not beyond a context.
package retry

import (
	"context"
	"time"
)

// For returns nil after d, or ctx's error when ctx is done first.
func For(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

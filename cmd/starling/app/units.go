package app

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
)

// unit is a part of the process with a blocking run.
type unit struct {
	name string
	// run blocks until ctx is done and its goroutines have ended. It returns
	// nil when it stopped because it was asked to.
	run func(ctx context.Context) error
}

// runUnits starts units in order and blocks until ctx is done or one of them
// ends by itself; then it stops them one after the other in reverse order, each
// only after the one before has ended. It returns what the units failed with.
func runUnits(ctx context.Context, logger *slog.Logger, units []unit) error {
	type running struct {
		unit
		cancel context.CancelFunc
		done   chan struct{}
		err    error
	}
	ended := make(chan string, len(units))
	all := make([]*running, len(units))
	for i, u := range units {
		// Not a child of ctx: each unit is stopped when its turn comes.
		unitCtx, cancel := context.WithCancel(context.WithoutCancel(ctx))
		r := &running{unit: u, cancel: cancel, done: make(chan struct{})}
		all[i] = r
		go func() {
			defer close(r.done)
			r.err = r.run(unitCtx)
			ended <- r.name
		}()
	}
	select {
	case <-ctx.Done():
		logger.Info("stopping")
	case name := <-ended:
		logger.Error("stopping because a part of the process ended", "part", name)
	}
	var faults []error
	for i := len(all) - 1; i >= 0; i-- {
		r := all[i]
		r.cancel()
		<-r.done
		if r.err != nil {
			faults = append(faults, fmt.Errorf("%s: %w", r.name, r.err))
		}
	}
	return errors.Join(faults...)
}

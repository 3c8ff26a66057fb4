package ingest

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/starling-fleet/starling/internal/eventlog"
	"github.com/starling-fleet/starling/schemas/topics"
)

// failureCounts is how long a failed append, or a failed look at the log, keeps
// the server from being ready while nothing shows that the log takes appends
// again. A server that gets no calls because it is not ready has no appends of
// its own to learn from, so the time is bounded.
const failureCounts = 30 * time.Second

// Refuser is a log that knows before an append that it would refuse it;
// eventlog.Log need not have it.
type Refuser interface {
	// Refuses returns why the log takes no record of a topic now, or nil.
	Refuses(topic string) error
}

// appends follows whether the log takes appends, by the outcomes of those that are
// made anyway and by the records of others that are seen in the log. It is safe for
// concurrent use.
type appends struct {
	mono     func() time.Duration
	refuser  Refuser      // nil if the log has none
	failedAt atomic.Int64 // by the monotonic clock, in ns and never zero; zero when the log has taken an append since
	failure  atomic.Value // of type outcomeError
}

type outcomeError struct{ error }

// settled notes the outcome of an append. It is called for every report, so that a
// success is a read of what other processors have in their caches.
func (a *appends) settled(err error) {
	if err == nil {
		if a.failedAt.Load() != 0 {
			a.failedAt.Store(0)
		}
		return
	}
	// A record that is too large says nothing of the log, nor does a caller that
	// has gone or that the pressure has turned away.
	for _, other := range []error{eventlog.ErrTooLarge, context.Canceled, context.DeadlineExceeded, errAppendWait} {
		if errors.Is(err, other) {
			return
		}
	}
	a.failed(err)
}

// failed notes that the log did not answer.
func (a *appends) failed(err error) {
	a.failure.Store(outcomeError{err})
	a.failedAt.Store(int64(a.mono()) + 1)
}

// failing returns why the log does not take appends as far as is known, or nil.
func (a *appends) failing() error {
	if a.refuser != nil {
		if err := a.refuser.Refuses(topics.Locations); err != nil {
			return err
		}
	}
	at := a.failedAt.Load()
	if at == 0 || a.mono()+1-time.Duration(at) > failureCounts {
		return nil
	}
	return a.failure.Load().(outcomeError).error
}

// Unready returns why clients should not be sent here, empty when they should: the
// log takes no appends, or the server's clock is in doubt.
func (s *Server) Unready() string {
	if err := s.appends.failing(); err != nil {
		return fmt.Sprintf("the log takes no appends: %v", err)
	}
	if s.clocks.judge().inDoubt() {
		return "the clock of this server is in doubt"
	}
	return ""
}

// Ready returns whether clients should be sent here.
func (s *Server) Ready() bool { return s.Unready() == "" }

package ingest

import (
	"time"

	"google.golang.org/grpc/codes"
)

// quiet is the silence after which a stream releases the memory of a burst.
const quiet = 5 * time.Second

// watchInterval is a fraction of the shortest timeout.
func (s *Server) watchInterval() time.Duration {
	l := s.cfg.Limits
	shortest := min(l.AppendWait, l.SendWait, l.FlushWait, l.StreamIdleTimeout)
	return min(max(shortest/8, time.Millisecond), time.Second)
}

// watch looks at every stream for a timeout that has passed and a token that has
// expired. One goroutine for
// all streams costs less than timers that every report would have to move.
func (s *Server) watch() {
	now := int64(time.Since(s.started)) + 1
	s.tick.Store(now)
	s.judgeClock(now)
	s.mu.Lock()
	defer s.mu.Unlock()
	wall := time.Now()
	for st := range s.streams {
		if err := st.caller.Ended(wall); err != nil {
			st.finish(err) // what is durable is still acknowledged
		}
		st.watch(now)
	}
}

// watch ends the stream if one of its timeouts has passed at now.
func (s *stream) watch(now int64) {
	l := &s.srv.cfg.Limits
	passed := func(since int64, timeout time.Duration) bool { return since != 0 && now-since > int64(timeout) }

	sending := s.sendingSince.Load()
	if passed(sending, l.SendWait) {
		s.abort(s.srv.retryLater(codes.ResourceExhausted, reasonAcksUnread, "the client does not read its acknowledgements"))
		return
	}
	switch receiving := s.receiving.Load(); {
	case receiving < 0 && sending == 0 && passed(-receiving, l.AppendWait):
		// The receiver waits for capacity; it ends the stream when its wait is
		// cancelled. While an acknowledgement is being sent, capacity is the client's to
		// make, and SendWait counts.
		s.stopReceive(errAppendWait)
	case receiving > 0 && passed(receiving, l.StreamIdleTimeout):
		s.endIdle()
	case receiving > 0 && passed(receiving, quiet):
		s.shrink()
	}
	s.endUnsettled(func(since int64) bool { return passed(since, l.FlushWait) })
}

// endIdle ends a silent stream unless something is in flight.
func (s *stream) endIdle() {
	if s.isIdle() {
		s.finish(statusError(codes.DeadlineExceeded, reasonStreamIdle,
			"no report for "+s.srv.cfg.Limits.StreamIdleTimeout.String()))
	}
}

func (s *stream) isIdle() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.inFlight == 0
}

// endUnsettled ends a stream that is ending, without what the log has still not
// settled.
func (s *stream) endUnsettled(tooLong func(since int64) bool) {
	since, result := s.ending()
	if !tooLong(since) {
		return
	}
	if result == nil {
		result = s.srv.retryLater(codes.Unavailable, reasonOutcomeUnknown, "the log did not confirm a report in time")
	}
	s.abort(result)
}

// ending is since when the stream ends, zero if it does not, and with what.
func (s *stream) ending() (since int64, result error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.endingSince, s.result
}
